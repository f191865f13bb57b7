package gpu

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/memory"

	"sluice/net"
	"sluice/pipeline"
)

// validating makes an Env.Validate over pictures in batches of those sizes.
func validating(sizes []int) func(context.Context, pipeline.BatchStage) error {
	return func(ctx context.Context, v pipeline.BatchStage) error {
		return feedBatches(ctx, v, 0, 1000, sizes, discard)
	}
}

// warned trains as the text says and gives what was said, how the run ended, and
// the metrics.
func warned(t *testing.T, text string, wrap func(net.Engine) net.Engine, edit func(*Train, *pipeline.Env), steps, epochs int) (said []string, out outbox, err error) {
	t.Helper()
	s := trainStage(t, text, wrap)
	e := env(6)
	e.Warn = func(text string) { said = append(said, text) }
	prepare(t, s, e)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if edit != nil {
		edit(s, e)
	}
	for n := range steps * epochs {
		b := batch(memory.DefaultAllocator, n/steps, n, n%steps*6, 6, nil)
		err = s.Process(t.Context(), b, out.emit)
		b.Record.Release()
		if err != nil {
			return said, out, err
		}
	}
	return said, out, s.Flush(t.Context(), out.emit)
}

// A run that learns nothing stays at ln(3). It is warned of once, or ended.
func TestTrainSaysThatTheLossIsFlat(t *testing.T) {
	flat := guessingNet + "epochs: 2\nwatch: {flat_steps: 8, chance_epochs: 0, every: 0"
	atChance := func(s *Train, _ *pipeline.Env) { guess(t, s) }
	said, out, err := warned(t, flat+"}", nil, atChance, 12, 2)
	if err != nil {
		t.Fatal(err)
	}
	want := "epoch 1, step 8: the loss has stayed at 1.0"
	if len(said) != 1 || !strings.HasPrefix(said[0], want) || !strings.Contains(said[0], "ln(3)") || !strings.Contains(said[0], "bias: 0.1") {
		t.Errorf("said %q, want one that begins with %q", said, want)
	}
	if rows := out.of("warning"); len(rows) != 1 || rows[0].Step != 8 || !strings.HasSuffix(said[0], rows[0].Text) {
		t.Errorf("metrics %+v", rows)
	}
	_, out, err = warned(t, flat+", lost: stop}", nil, atChance, 12, 2)
	if err == nil || !strings.Contains(err.Error(), "epoch 1, step 8: the run is lost (watch.lost is stop): the loss has stayed") {
		t.Errorf("error %v", err)
	}
	if out.weights != nil || len(out.of("warning")) != 1 {
		t.Errorf("emitted %v", out.order)
	}
	// One that learns, and one that is not watched.
	if said, _, err := warned(t, smallNet+"epochs: 2\nwatch: {flat_steps: 8, chance_epochs: 0}", nil, nil, 12, 2); err != nil || len(said) > 0 {
		t.Errorf("a run that learns: said %q (%v)", said, err)
	}
	if said, _, err := warned(t, strings.Replace(flat, "flat_steps: 8", "flat_steps: 0", 1)+"}", nil, atChance, 12, 2); err != nil || len(said) > 0 {
		t.Errorf("not watched: said %q (%v)", said, err)
	}
}

// guessingNet never learns once its last layer gives 0.
var guessingNet = strings.Replace(smallNet, "{name: fc2}", "{name: fc2, lr: 0, bias_lr: 0}", 1)

// guess makes a network give every class the same probability.
func guess(t *testing.T, s *Train) {
	t.Helper()
	all, err := s.net.Snapshot(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range all {
		if strings.HasPrefix(w.Name, "fc2.") {
			clear(w.Data)
		}
	}
	if err := s.net.Load(all); err != nil {
		t.Fatal(err)
	}
}

// An accuracy of guessing after an epoch is warned of once there are enough steps
// and images to tell.
func TestTrainSaysThatItGuesses(t *testing.T) {
	text := guessingNet + "epochs: 3\nwatch: {flat_steps: 0, every: 0}\nvalidate_every: 1"
	validated := func(s *Train, e *pipeline.Env) {
		guess(t, s)
		e.Validate = validating([]int{6, 6, 6})
	}
	said, out, err := warned(t, text, nil, validated, 60, 3)
	if err != nil {
		t.Fatal(err)
	}
	// 60 steps are too few to judge.
	want := "epoch 2, step 120: after epoch 2 the top-1 accuracy is 33.33 % over 18 images, no better than guessing among 3 classes (33.33 %)"
	if len(said) != 1 || !strings.HasPrefix(said[0], want) {
		t.Errorf("said %q, want one that begins with %q", said, want)
	}
	if i := slices.Index(out.order, "warning"); i < 1 || out.order[i-1] != "validation" {
		t.Errorf("emitted %v, want the warning after the validation that it is of", out.order)
	}
	if _, _, err := warned(t, strings.Replace(text, "every: 0", "every: 0, lost: stop", 1), nil, validated, 60, 3); err == nil || !strings.Contains(err.Error(), "the run is lost") {
		t.Errorf("lost: stop ends with %v", err)
	}
	few := func(s *Train, e *pipeline.Env) {
		guess(t, s)
		e.Validate = validating([]int{6, 6})
	}
	if said, _, err := warned(t, text, nil, few, 60, 3); err != nil || len(said) > 0 {
		t.Errorf("of 12 images in 3 classes was said %q (%v)", said, err)
	}
	if said, _, err := warned(t, smallNet+"epochs: 2\nwatch: {every: 0}", nil, nil, 60, 2); err != nil || len(said) > 0 {
		t.Errorf("a run that learns: said %q (%v)", said, err)
	}
}

// Every so many steps each layer has a row, and one whose units are dead is told.
func TestTrainWatchesLayers(t *testing.T) {
	kill := func(s *Train, _ *pipeline.Env) {
		all, err := s.net.Snapshot(nil, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range all {
			if w.Name == "conv1.bias" {
				for i := range w.Data[:6] { // of 8
					w.Data[i] = -1e6
				}
			}
		}
		if err := s.net.Load(all); err != nil {
			t.Fatal(err)
		}
	}
	said, out, err := warned(t, smallNet+"epochs: 2\nsolver: {lr: 0.01}\nlog_every: 100\nwatch: {every: 4, dead: 0.7, chance_epochs: 0}", nil, kill, 5, 2)
	if err != nil {
		t.Fatal(err)
	}
	if len(said) != 1 || !strings.HasPrefix(said[0], "epoch 1, step 4: 75 % of the units of conv1 are dead") {
		t.Errorf("said %q", said)
	}
	var got []string
	for _, m := range out.of("layer") {
		got = append(got, fmt.Sprintf("%d %d %s %.2f", m.Epoch, m.Step, m.Layer, m.Dead))
		if m.GradNorm <= 0 || m.Update <= 0 || m.Update > 1 || m.Loss != 0 {
			t.Errorf("layer %+v makes no sense", m)
		}
	}
	if want := "0 4 conv1 0.75|0 4 fc2 0.00|1 8 conv1 0.75|1 8 fc2 0.00"; strings.Join(got, "|") != want {
		t.Errorf("layers %s, want %s", strings.Join(got, "|"), want)
	}
	if _, out, err := warned(t, smallNet+"epochs: 1\nwatch: {every: 0}", nil, nil, 5, 1); err != nil || len(out.of("layer")) > 0 {
		t.Errorf("not watched, it emitted %v (%v)", out.order, err)
	}
}

// poisonedGradient makes the gradient of one dense layer infinite at a step.
type poisonedGradient struct {
	net.Engine
	at, calls int
}

func (p *poisonedGradient) DenseGrad(dx, dw, db, dy, y, x, w *net.Tensor, act net.Activation) {
	p.Engine.DenseGrad(dx, dw, db, dy, y, x, w, act)
	if p.calls++; p.calls == p.at {
		v := make([]float32, dw.Shape.Len())
		v[7] = float32(math.Inf(1))
		p.Upload(dw, v)
	}
}

// A gradient that is not finite ends the run before it touches the weights, naming
// the step and the images; also one of the first of several batches.
func TestTrainStopsBeforeABadUpdate(t *testing.T) {
	for _, c := range []struct {
		solver, images string
		at, step       int
	}{
		{"{lr: 0.01}", "the batch's images are picture 12, picture 13, picture 14, picture 15, picture 16, picture 17", 3, 2},
		{"{lr: 0.01, accumulate: 2}", "the images of its last 2 batches are picture 12, picture 13, picture 14, picture 15, picture 16, picture 17, picture 18, picture 19 and 4 more", 3, 3},
	} {
		var stage, twin *Train
		said, out, err := warned(t, smallNet+"epochs: 1\nsolver: "+c.solver,
			func(e net.Engine) net.Engine { return &poisonedGradient{Engine: e, at: c.at} },
			func(s *Train, e *pipeline.Env) { stage = s; e.Checkpoints = nil }, 6, 1)
		want := fmt.Sprintf("epoch 1, step %d: the loss is still ", c.step)
		if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "the gradient of fc2.weight is not finite") ||
			!strings.Contains(err.Error(), "the weights are still those after step 2") || !strings.HasSuffix(err.Error(), c.images) {
			t.Errorf("error %v", err)
		}
		if rows := out.of("lost"); len(rows) != 1 || !strings.Contains(rows[0].Text, "fc2.weight") {
			t.Errorf("metrics %+v", rows)
		}
		_, _, err = warned(t, smallNet+"epochs: 1\nsolver: "+c.solver, nil, func(s *Train, _ *pipeline.Env) { twin = s }, 2, 1)
		if err != nil {
			t.Fatal(err)
		}
		sameTensors(t, "after the step that was stopped", stateOf(t, stage), stateOf(t, twin))
		if len(said) > 0 || stage.mark.Step != 2 || !stage.whole {
			t.Errorf("said %q; stands at step %d", said, stage.mark.Step)
		}
	}
}

func TestWatchChecksItsOptions(t *testing.T) {
	for text, want := range map[string]string{
		"{every: -1}":         "watch.every must be at least 0, is -1",
		"{flat_steps: -2}":    "watch.flat_steps must be at least 0",
		"{chance_epochs: -2}": "watch.chance_epochs must be at least 0",
		"{dead: 1.5}":         "watch.dead must be from 0 to 1, is 1.5",
		"{lost: panic}":       `watch.lost must be warn or stop, is "panic"`,
	} {
		if _, err := NewTrain(trainOptions(t, smallNet+"epochs: 1\nwatch: "+text)); err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "watch: ", "watch."), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}
