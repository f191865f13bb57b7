package cmd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"

	"sluice/net"
	"sluice/pipeline"
)

// fragile counts the samples that the stage of that name has seen, and ends the
// run at one of them.
var fragile struct {
	seen atomic.Int64
	at   int64
	end  context.CancelCauseFunc
}

func init() {
	pipeline.RegisterSampleStage("fragile", "Fails for some images and skips others, and interrupts a test's run.", struct{}{},
		func(struct{}) (pipeline.SampleStage, error) {
			return pipeline.SampleFunc(func(_ context.Context, s *pipeline.Sample) error {
				if n := fragile.seen.Add(1); n == fragile.at {
					fragile.end(errInterrupted)
				}
				switch s.Index % 13 {
				case 3:
					return errors.New("no good")
				case 7:
					return pipeline.ErrSkip
				}
				return nil
			}), nil
		})
}

var errInterrupted = errors.New("interrupted")

// resumableYAML has all that a resumed run can get wrong: a shuffled source with
// bad and skipped images, random crops, dropout, a short last batch that is
// dropped, metrics over several steps, a validation that is not of every epoch, and
// a rate that falls on a plateau.
const resumableYAML = `
name: x
seed: 4
source: {shapes: {samples: 61}}
samples: [decode, fragile, {resize: {shorter: 20}}, {random_crop: {size: 16}}, flip, {pca_jitter: {sigma: 0.1}}]
batch: {size: 8}
batches:
  - train:
      net: [{conv: {out: 4, size: 3}}, {dropout: {rate: 0.3}}, dense, softmax]
      epochs: 4
      device: cpu
      log_every: 4
      validate_every: 2
      solver: {lr: 0.01, warmup: 3, schedule: {plateau: {patience: 1, threshold: 0.5}}}
validate:
  source: {shapes: {split: val, samples: 20}}
  samples: [decode, fragile, {resize: {shorter: 16}}, {center_crop: {size: 16}}]
  batch: {size: 8}
sinks: [metrics, weights, {checkpoints: {every_steps: 3, every_minutes: 0, every_epochs: 2}}]
run: {workers: 3, threads: 1, on_error: quarantine}
`

// resumable runs the YAML in dir, interrupted at a sample if at is not 0.
func resumable(t *testing.T, dir string, resume bool, at int64, edit func(*pipeline.Line), sets ...string) error {
	t.Helper()
	sets = append(sets, "run.dir="+dir)
	spec, err := pipeline.Parse("resumable.yaml", []byte(resumableYAML), sets)
	if err != nil {
		t.Fatal(err)
	}
	line, err := spec.Line("test")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	fragile.seen.Store(0)
	fragile.at, fragile.end = at, cancel
	line.Env.Resume = resume
	if edit != nil {
		edit(line)
	}
	return line.Run(ctx)
}

// result is all that a run has left, timings aside.
func result(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	files, err := net.Checkpoints(filepath.Join(dir, "x", net.CheckpointDir))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d checkpoints (%v)", len(files), err)
	}
	tensors, meta, err := files[0].Read()
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range tensors {
		fmt.Fprintf(&out, "%s %s", x.Name, x.Role)
		for _, v := range x.Data {
			fmt.Fprintf(&out, " %x", math.Float32bits(v))
		}
		out.WriteString("\n")
	}
	weights, err := os.ReadFile(filepath.Join(dir, "x", "weights.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&out, "weights %x\n", weights)
	object := func(text []byte) {
		var v map[string]any
		if err := json.Unmarshal(text, &v); err != nil {
			t.Fatal(err)
		}
		dropTimings(v)
		fmt.Fprintln(&out, v)
	}
	object([]byte(meta["state"]))
	metrics, err := os.ReadFile(filepath.Join(dir, "x", "metrics.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(metrics) {
		object(line)
	}
	for _, row := range quarantineRows(t, filepath.Join(dir, "x", "quarantine.parquet")) {
		fmt.Fprintln(&out, row)
	}
	return out.String()
}

func dropTimings(v map[string]any) {
	for _, key := range []string{"seconds", "images_per_second", "input_wait", "sink_wait", "wall", "input", "sink"} {
		delete(v, key)
	}
	for _, inner := range v {
		if m, ok := inner.(map[string]any); ok {
			dropTimings(m)
		}
	}
}

// sameResult compares line by line.
func sameResult(t *testing.T, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(a), len(b)) {
		x, y := "nothing", "nothing"
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			t.Errorf("%s: line %d is\n%.300s\nwant\n%.300s", what, i, x, y)
			return
		}
	}
}

// A run that is ended after any step, or interrupted at any image (of training or
// of a validation), and resumed, leaves what one leaves that ran through.
func TestResumeIsExact(t *testing.T) {
	whole := t.TempDir()
	if err := resumable(t, whole, false, 0, nil); err != nil {
		t.Fatal(err)
	}
	want := result(t, whole)
	images := fragile.seen.Load()
	for _, must := range []string{"event:validation", "drops:1", "no good", "validate: fragile"} {
		if !strings.Contains(want, must) {
			t.Fatalf("the run has no %q", must)
		}
	}
	total := 24                                              // 4 epochs of 6 whole batches
	for steps := 1; steps < total; steps += 1 + steps/13*2 { // every one of two epochs with a validation's end
		dir := t.TempDir()
		if err := resumable(t, dir, false, 0, func(l *pipeline.Line) { l.StopAfter = steps }); err != nil {
			t.Fatal(err)
		}
		if err := resumable(t, dir, true, 0, nil); err != nil {
			t.Fatal(err)
		}
		sameResult(t, fmt.Sprintf("ended after step %d", steps), result(t, dir), want)
	}
	resumed := 0
	for at := int64(40); at < images; at += 61 {
		dir := t.TempDir()
		err := resumable(t, dir, false, at, nil)
		if !errors.Is(err, errInterrupted) {
			t.Fatalf("interrupted at image %d: error is %v", at, err)
		}
		files, err := net.Checkpoints(filepath.Join(dir, "x", net.CheckpointDir))
		if err != nil {
			t.Fatal(err)
		}
		if len(files) == 0 {
			continue // no step was whole
		}
		resumed++
		// Interrupted again, soon.
		if err := resumable(t, dir, true, 30, nil); err != nil && !errors.Is(err, errInterrupted) {
			t.Fatal(err)
		}
		if err := resumable(t, dir, true, 0, nil); err != nil {
			t.Fatal(err)
		}
		sameResult(t, fmt.Sprintf("interrupted at image %d", at), result(t, dir), want)
	}
	if resumed < 3 {
		t.Errorf("only %d interrupted runs had a checkpoint", resumed)
	}
}

// So does one whose weights change after some batches only, by clipped gradients of
// smoothed labels, and that is watched.
func TestResumeIsExactBetweenUpdates(t *testing.T) {
	sets := []string{
		"batches.train.solver={lr: 0.01, warmup: 3, accumulate: 4, clip_norm: 0.5, clip_value: 0.1, label_smoothing: 0.1}",
		"batches.train.watch={every: 5, flat_steps: 6, dead: 0.25}", "batches.train.log_every=3",
		"batches.train.net=[{conv: {out: 4, size: 3, bias: -1e6}}, {dense: {out: 8}}, {dropout: {rate: 0.3}}, dense, softmax]", // whose first layer is dead
		"sinks.checkpoints.every_steps=1",
	}
	whole := t.TempDir()
	quiet := func(l *pipeline.Line) { l.Env.Warn = func(string) {} }
	if err := resumable(t, whole, false, 0, quiet, sets...); err != nil {
		t.Fatal(err)
	}
	want := result(t, whole)
	for _, must := range []string{"event:validation", "event:layer", "event:warning", "grad_norm:", "update_ratio:"} {
		if !strings.Contains(want, must) {
			t.Fatalf("the run has no %q", must)
		}
	}
	for steps := 4; steps < 24; steps += 1 + steps/10*2 { // every one of an epoch
		dir := t.TempDir()
		if err := resumable(t, dir, false, 0, func(l *pipeline.Line) { quiet(l); l.StopAfter = steps }, sets...); err != nil {
			t.Fatal(err)
		}
		if err := resumable(t, dir, true, 0, quiet, sets...); err != nil {
			t.Fatal(err)
		}
		sameResult(t, fmt.Sprintf("ended after step %d", steps), result(t, dir), want)
	}
}

// A run that is done can be resumed: nothing is left to do. More epochs are a
// difference only where the rate depends on them.
func TestResumeWithMoreEpochs(t *testing.T) {
	for _, c := range []struct{ schedule, want string }{
		{"{multistep: {epochs: [3]}}", ""},
		{"cosine", `epochs: 4, was 2 (the schedule depends on it)`},
	} {
		schedule := "batches.train.solver.schedule=" + c.schedule
		whole, dir := t.TempDir(), t.TempDir()
		if err := resumable(t, whole, false, 0, nil, schedule, "batches.train.epochs=4"); err != nil {
			t.Fatal(err)
		}
		if err := resumable(t, dir, false, 0, nil, schedule, "batches.train.epochs=2"); err != nil {
			t.Fatal(err)
		}
		done := result(t, dir)
		if err := resumable(t, dir, true, 0, nil, schedule, "batches.train.epochs=2"); err != nil {
			t.Fatal(err)
		}
		sameResult(t, "resumed when done", result(t, dir), done)
		err := resumable(t, dir, true, 0, nil, schedule, "batches.train.epochs=4")
		if c.want != "" {
			if !errors.Is(err, pipeline.ErrResume) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: error is %v", c.schedule, err)
			}
			sameResult(t, "refused", result(t, dir), done)
			if err := resumable(t, dir, true, 0, func(l *pipeline.Line) { l.Env.Force = true }, schedule, "batches.train.epochs=4"); err != nil {
				t.Errorf("forced: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		sameResult(t, c.schedule, result(t, dir), result(t, whole))
	}
}

// What changes the numbers is refused and named, and what does not is taken.
func TestResumeWithAnotherConfiguration(t *testing.T) {
	dir := t.TempDir()
	if err := resumable(t, dir, false, 0, func(l *pipeline.Line) { l.StopAfter = 4 }); err != nil {
		t.Fatal(err)
	}
	err := resumable(t, dir, true, 0, nil, "seed=5", "batches.train.solver.lr=0.02", "source.shapes.samples=70")
	if !errors.Is(err, pipeline.ErrResume) {
		t.Fatalf("error is %v", err)
	}
	for _, want := range []string{"\n  seed: 5, was 4\n", `solver.lr: "0.02", was "0.01"`, "images: 70, was 61", "--resume=force"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error has no %q: %v", want, err)
		}
	}
	if err := resumable(t, dir, true, 0, nil, "run.workers=1", "run.threads=2", "run.on_error={quarantine: {max: 50}}", "batches.train.device=auto"); err != nil {
		t.Error(err)
	}
	// What cannot be gone on with is refused even so.
	err = resumable(t, dir, true, 0, func(l *pipeline.Line) { l.Env.Force = true }, "batches.train.net.conv.out=3")
	if !errors.Is(err, pipeline.ErrResume) || !strings.Contains(err.Error(), `"conv1.weight"`) {
		t.Errorf("another network gives %v", err)
	}
}

// The newest checkpoint is damaged: the run says so and goes on from the one before,
// to the same end. With none that is whole it is refused.
func TestResumeFromADamagedCheckpoint(t *testing.T) {
	whole, dir := t.TempDir(), t.TempDir()
	if err := resumable(t, whole, false, 0, nil); err != nil {
		t.Fatal(err)
	}
	if err := resumable(t, dir, false, 0, func(l *pipeline.Line) { l.StopAfter = 8 }); err != nil {
		t.Fatal(err)
	}
	checkpoint := func(step int) string {
		return filepath.Join(dir, "x", net.CheckpointDir, net.CheckpointName(step))
	}
	flip := func(path string) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)-100] ^= 4
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	flip(checkpoint(8))
	var warnings []string
	if err := resumable(t, dir, true, 0, func(l *pipeline.Line) {
		l.Env.Warn = func(text string) { warnings = append(warnings, text) }
	}); err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "step-8.safetensors: damaged") || !strings.Contains(warnings[0], "of step 6") {
		t.Errorf("warnings are %q", warnings)
	}
	sameResult(t, "from the one before", result(t, dir), result(t, whole))

	files, err := net.Checkpoints(filepath.Join(dir, "x", net.CheckpointDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		flip(f.Path)
	}
	err = resumable(t, dir, true, 0, func(l *pipeline.Line) { l.Env.Warn = func(string) {} })
	if !errors.Is(err, pipeline.ErrResume) || !strings.Contains(err.Error(), "no checkpoint is whole") {
		t.Errorf("error is %v", err)
	}
}

// quarantineRows are the rows of a Parquet file, sorted: those of the validation
// stay where they were first written.
func quarantineRows(t *testing.T, path string) (rows []string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := pqarrow.ReadTable(t.Context(), f, nil, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Release()
	records := array.NewTableReader(table, 0)
	defer records.Release()
	for records.Next() {
		bad, err := pipeline.QuarantineOf(records.Record())
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range bad {
			rows = append(rows, fmt.Sprintf("%+v", row))
		}
	}
	slices.Sort(rows)
	return rows
}

// A run that learns no more ends early and well, its weights written although it is
// not the turn of their epoch; interrupted and resumed it ends at the same epoch,
// and resumed after its end it does nothing.
func TestEarlyStopAndResume(t *testing.T) {
	sets := []string{"batches.train.early_stop={patience: 2, threshold: 1}", "batches.train.epochs=9", "batches.train.validate_every=1", "sinks.weights.every=7"}
	whole, dir := t.TempDir(), t.TempDir()
	if err := resumable(t, whole, false, 0, nil, sets...); err != nil {
		t.Fatal(err)
	}
	want := result(t, whole)
	if !strings.Contains(want, "event:done") || !strings.Contains(want, "epoch:2 event:validation") || strings.Contains(want, "epoch:3 event") {
		t.Fatalf("it did not end after three epochs:\n%s", want[strings.Index(want, "map["):])
	}
	if err := resumable(t, dir, false, 0, func(l *pipeline.Line) { l.StopAfter = 15 }, sets...); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := resumable(t, dir, true, 0, nil, sets...); err != nil {
			t.Fatal(err)
		}
		sameResult(t, "ended early", result(t, dir), want)
	}
}
