package cmd_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/net"
	"sluice/pipeline"
)

// recipe draws a small training run: one in which all that a resumed run must take up
// again comes together in some way.
func recipe(r *rand.Rand) string {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	between := func(lo, hi int) int { return lo + r.IntN(hi-lo+1) }
	size := between(1, 8)
	// A batch at least stays when the bad images and the skipped ones are left out.
	images := between(size+size/4+4, size+40)
	validation := ""
	if r.IntN(4) > 0 {
		validation = fmt.Sprintf(`
validate:
  source: {shapes: {split: val, samples: %d}}
  samples: [decode, fragile, {resize: {shorter: 12}}, {center_crop: {size: 12}}]
  batch: {size: %d}`, between(2, 20), between(1, size))
	}
	return fmt.Sprintf(`
name: x
seed: %d
source: {shapes: {samples: %d}}
samples: [decode, fragile, {resize: {shorter: 15}}, {random_crop: {size: 12}}, flip, {pca_jitter: {sigma: 0.1}}]
batch: {size: %d, last: %s, shuffle: %s}
batches:
  - train:
      net: [{conv: {out: 4, size: 3}}, {dropout: {rate: 0.3}}, dense, softmax]
      epochs: %d
      device: cpu
      log_every: %d
      validate_every: %d
      early_stop: {patience: %s, threshold: %s}
      watch: {every: %d, flat_steps: %d, chance_epochs: %d, dead: 0.25}
      solver:
        lr: %s
        momentum: %s
        momentum_form: %s
        weight_decay: %s
        warmup: %s
        accumulate: %d
        clip_norm: %s
        clip_value: %s
        label_smoothing: %s
        schedule: %s%s
sinks: [metrics, {weights: {every: %d}}, {checkpoints: {every_steps: %d, every_minutes: 0, every_epochs: %d, keep: %d, keep_best: %s}}]
run: {on_error: %s}
`, r.IntN(1000), images, size, pick("drop", "keep", "auto"), pick("true", "true", "false"),
		between(1, 4), between(1, 5), between(0, 3), pick("0", "0", "1", "2"), pick("0", "0.5"),
		between(0, 5), between(0, 9), between(0, 2),
		pick("0.01", "0.001"), pick("0", "0.5", "0.9"), pick("paper", "torch", "nesterov"), pick("0", "0.0005"), pick("0", "1", "7"),
		between(1, 5), pick("0", "0.3"), pick("0", "0.05"), pick("0", "0.1"),
		pick("constant", "cosine", "{polynomial: {power: 2}}", "{multistep: {epochs: [1, 3]}}", "{plateau: {patience: 1, threshold: 0.5}}"), validation,
		between(1, 3), between(0, 5), between(0, 2), between(1, 3), pick("true", "false"), pick("quarantine", "{quarantine: {max_fraction: 0.9}}"))
}

// leg runs a recipe in dir, as one leg of a run that is interrupted again and again.
func leg(t *testing.T, dir, text string, resume bool, at int64, edit func(*pipeline.Line, context.CancelCauseFunc), sets ...string) error {
	t.Helper()
	spec, err := pipeline.Parse("recipe.yaml", []byte(text), append(sets, "run.dir="+dir))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	line, err := spec.Line("test")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	fragile.seen.Store(0)
	fragile.at, fragile.end = at, cancel
	line.Env.Resume, line.Env.Warn = resume, func(string) {}
	edit(line, cancel)
	return line.Run(ctx)
}

// fuse is a sink that interrupts the run when so many batches have come to it.
type fuse struct {
	left int
	end  context.CancelCauseFunc
}

func (f *fuse) Write(context.Context, *pipeline.Batch) error {
	if f.left--; f.left == 0 {
		f.end(errInterrupted)
	}
	return nil
}

func (*fuse) Close() error { return nil }

// Whatever the recipe, and wherever a run of it is ended or interrupted (by its steps,
// at an image, at anything that comes to the sinks, or by two of these), the run that
// goes on, at another number of workers and threads, leaves what one leaves that ran
// through. The number draws recipe and interruptions; go test -fuzz goes on to others.
func FuzzResumeIsExact(f *testing.F) {
	for seed := range uint64(12) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		text := recipe(r)
		width := func() []string {
			return []string{fmt.Sprintf("run.workers=%d", 1+r.IntN(4)), fmt.Sprintf("run.threads=%d", 1+r.IntN(2))}
		}
		count := &fuse{}
		whole, dir := t.TempDir(), t.TempDir()
		err := leg(t, whole, text, false, 0, func(l *pipeline.Line, _ context.CancelCauseFunc) {
			l.Sinks = append(l.Sinks, pipeline.NamedSink{Name: "fuse", Sink: count})
		}, width()...)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		want := result(t, whole)
		images, batches := int(fragile.seen.Load()), -count.left

		var story []string
		resume := false
		for range 1 + r.IntN(4) {
			at, steps, left, place := 0, 0, 0, 0
			how := 1 + r.IntN(7)
			if how&1 != 0 {
				at = 1 + r.IntN(images)
			}
			if how&2 != 0 {
				steps = 1 + r.IntN(batches)
			}
			if how&4 != 0 {
				left, place = 1+r.IntN(batches), r.IntN(2)
			}
			story = append(story, fmt.Sprintf("{image %d, step %d, batch %d}", at, steps, left))
			err := leg(t, dir, text, resume, int64(at), func(l *pipeline.Line, end context.CancelCauseFunc) {
				l.StopAfter = steps
				l.Sinks = slices.Insert(l.Sinks, place*len(l.Sinks), pipeline.NamedSink{Name: "fuse", Sink: &fuse{left, end}})
			}, width()...)
			if err != nil && !errors.Is(err, errInterrupted) && !strings.Contains(err.Error(), "the weights change only after") {
				t.Fatalf("interrupted at %v: %v\n%s", story, err, text)
			}
			files, err := net.Checkpoints(filepath.Join(dir, "x", net.CheckpointDir))
			if err != nil {
				t.Fatal(err)
			}
			resume = len(files) > 0
		}
		if err := leg(t, dir, text, resume, 0, func(*pipeline.Line, context.CancelCauseFunc) {}, width()...); err != nil {
			t.Fatalf("interrupted at %v: %v\n%s", story, err, text)
		}
		if got := result(t, dir); got != want {
			sameResult(t, fmt.Sprintf("interrupted at %v", story), got, want)
			t.Log(text)
		}
	})
}
