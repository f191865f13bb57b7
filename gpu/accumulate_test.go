package gpu

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/memory"

	"sluice/net"
	"sluice/pipeline"
)

// plainNet has no dropout, so that a step does not depend on how its images are cut
// into batches.
const plainNet = `
net:
  input: {mean: [120, 120, 120], scale: 0.02}
  layers:
    - conv: {name: conv1, out: 8, size: 3, padding: 1}
    - max_pool: {size: 2, stride: 2}
    - dense: {name: fc2}
    - softmax
`

// stateOf is the weights and the momentum of a stage that is still open.
func stateOf(t *testing.T, s *Train) []net.NamedTensor {
	t.Helper()
	w, err := s.net.Snapshot(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// Three batches of two learn what one of six learns, and an epoch's rest makes an
// update of its own. The metrics count every image once.
func TestAccumulatedBatchesAreOneLargeBatch(t *testing.T) {
	var parts, whole outbox
	a := trainStage(t, plainNet+"epochs: 1\nlog_every: 3\nsolver: {accumulate: 3}", nil)
	prepare(t, a, env(2))
	defer a.Close()
	b := trainStage(t, plainNet+"epochs: 1\nlog_every: 1", nil)
	prepare(t, b, env(6))
	defer b.Close()
	for n := range 7 { // two updates; one batch waits in the input
		process(t, a, batch(memory.DefaultAllocator, 0, n, 2*n, 2, nil), parts.emit)
	}
	for n := range 3 {
		process(t, b, batch(memory.DefaultAllocator, 0, n, 6*n, 6, nil), whole.emit)
	}
	got, want := stateOf(t, a), stateOf(t, b)
	for i, w := range want {
		for k, v := range w.Data {
			if d := math.Abs(float64(got[i].Data[k] - v)); d > 1e-6*(1+math.Abs(float64(v))) {
				t.Fatalf("%s[%d] is %g, want %g", w.Name, k, got[i].Data[k], v)
			}
		}
	}
	if len(parts.of("step")) != 2 || len(whole.of("step")) != 2 {
		t.Fatalf("%d and %d metrics", len(parts.metrics), len(whole.metrics))
	}
	for i, m := range parts.of("step") {
		w := whole.of("step")[i]
		if math.Abs(m.Loss-w.Loss) > 1e-6 || m.Top1 != w.Top1 || math.Abs(m.GradNorm-w.GradNorm) > 1e-5*w.GradNorm || m.GradNorm == 0 || m.Step != 3*w.Step {
			t.Errorf("metric %+v, want the numbers of %+v", m, w)
		}
	}
	// The batch that waits is the epoch's last.
	if err := a.Flush(t.Context(), parts.emit); err != nil {
		t.Fatal(err)
	}
	if a.mark.Step != 7 || parts.of("done")[0].Step != 7 {
		t.Errorf("the epoch ended at the update of step %d", a.mark.Step)
	}
	sameButUpdated(t, got, parts.weights)
}

func sameButUpdated(t *testing.T, before, after []net.NamedTensor) {
	t.Helper()
	for i, w := range after {
		if slices.Equal(w.Data, before[i].Data) {
			t.Errorf("%s has not changed", w.Name)
		}
	}
}

// Between updates there is nothing to save but the last one: a checkpoint is of it.
func TestStopBetweenUpdatesSavesTheLast(t *testing.T) {
	s := trainStage(t, plainNet+"epochs: 1\nsolver: {accumulate: 4}", nil)
	e := env(2)
	e.Checkpoints = &pipeline.Checkpoints{Steps: 3}
	prepare(t, s, e)
	defer s.Close()
	var steps []int
	emit := checkpointsOf(&steps)
	for n := range 4 {
		process(t, s, batch(memory.DefaultAllocator, 0, n, 2*n, 2, nil), emit)
	}
	if err := s.Stop(t.Context(), emit); err != nil || len(steps) > 0 {
		t.Fatalf("before an update the checkpoints of %v (%v) were saved", steps, err)
	}
	for n := 4; n < 15; n++ { // updates after the steps 4, 8 and 12
		process(t, s, batch(memory.DefaultAllocator, 0, n, 2*n, 2, nil), emit)
	}
	if !slices.Equal(steps, []int{4, 8, 12}) {
		t.Errorf("every three steps: saved %v, want every update", steps)
	}
	s.saved = mark{}
	if err := s.Stop(t.Context(), emit); err != nil || steps[len(steps)-1] != 12 {
		t.Errorf("interrupted after 14 steps: saved %v (%v)", steps, err)
	}
}

// A run that ends before the first update says so.
func TestTrainNeedsAnUpdate(t *testing.T) {
	s := trainStage(t, plainNet+"epochs: 1\nsolver: {accumulate: 9}", nil)
	e := env(2)
	e.StopAfter = 2
	prepare(t, s, e)
	defer s.Close()
	for n := range 2 {
		process(t, s, batch(memory.DefaultAllocator, 0, n, 2*n, 2, nil), discard)
	}
	if err := s.Flush(t.Context(), discard); err == nil || !strings.Contains(err.Error(), "ended after 2 steps, and the weights change only after 9") {
		t.Errorf("error %v", err)
	}
}

// Adding up takes memory only where it is wanted.
func TestAccumulationIsInThePlan(t *testing.T) {
	bytes := func(solver string) int64 {
		p, err := trainStage(t, plainNet+"epochs: 1\nsolver: "+solver, nil).Plan(env(6))
		if err != nil {
			t.Fatal(err)
		}
		return p.Memory[0].Bytes
	}
	one, two, three := bytes("{lr: 1}"), bytes("{accumulate: 2}"), bytes("{accumulate: 3}")
	if least := int64(4 * (8*27 + 8 + 3*8*64 + 3)); two != three || two < one+least {
		t.Errorf("memory of %d, %d and %d bytes, want at least %d more for any accumulation", one, two, three, least)
	}
}

// A gradient that is longer than clip_norm becomes as long, and no number of it is
// greater than clip_value; the metrics tell its length before that.
func TestTrainClips(t *testing.T) {
	first := func(solver string) (length, largest, told float64) {
		var out outbox
		s := trainStage(t, plainNet+"epochs: 1\nlog_every: 1\nsolver: {lr: 0.5, weight_decay: 0, "+solver+"}", nil)
		prepare(t, s, env(6))
		defer s.Close()
		for n := range 2 {
			process(t, s, batch(memory.DefaultAllocator, 0, n, 6*n, 6, nil), out.emit)
		}
		for _, w := range stateOf(t, s) {
			if w.Role != net.RoleMomentum {
				continue
			}
			for _, v := range w.Data { // the first step is -lr times the gradient
				g := float64(v) / 0.5
				length += g * g
				largest = max(largest, math.Abs(g))
			}
		}
		return math.Sqrt(length), largest, out.of("step")[0].GradNorm
	}
	length, largest, told := first("clip_norm: 0")
	if math.Abs(length-told) > 1e-5*told {
		t.Fatalf("the gradient is %g long, and the metrics say %g", length, told)
	}
	for _, c := range []struct {
		solver                string
		wantLength, wantLarge float64 // NaN: any
	}{
		{fmt.Sprintf("clip_norm: %g", told/3), told / 3, largest / 3},
		{fmt.Sprintf("clip_norm: %g", told*3), told, largest},
		{fmt.Sprintf("clip_value: %g", largest/4), math.NaN(), largest / 4},
		{fmt.Sprintf("clip_norm: %g, clip_value: %g", told/2, largest/8), math.NaN(), largest / 8},
	} {
		l, m, same := first(c.solver)
		if same != told {
			t.Errorf("%s: grad_norm is %g, want %g", c.solver, same, told)
		}
		if d := math.Abs(l - c.wantLength); d > 1e-5*told || math.Abs(m-c.wantLarge) > 1e-5*largest {
			t.Errorf("%s: a gradient of length %g with a %g, want %g and %g", c.solver, l, m, c.wantLength, c.wantLarge)
		}
	}
}

// Smoothed labels are learnt from; a validation's loss is of the labels as they are.
func TestTrainSmoothsLabels(t *testing.T) {
	losses := func(smoothing string) (step, validation float64) {
		var out outbox
		e := env(6)
		s := trainStage(t, plainNet+"epochs: 1\nlog_every: 1\nsolver: {lr: 1e-12, label_smoothing: "+smoothing+"}", nil)
		e.Validate = validating([]int{6})
		run(t, s, e, 1, 1, out.emit)
		return out.of("step")[0].Loss, out.of("validation")[0].Loss
	}
	plain, val := losses("0")
	smooth, same := losses("0.3")
	if smooth == plain || math.Abs(val-same) > 1e-6 {
		t.Errorf("losses %g and %g without smoothing, %g and %g with it", plain, val, smooth, same)
	}
}

// The mark of a run is the same when it has been in a checkpoint.
func TestMarkInJSON(t *testing.T) {
	m := mark{Window: span{steps: 2, updates: 1, norm: 1.0 / 3}, Watch: watched{Flat: 2, Took: 7, Told: map[string]bool{"flat": true},
		Due: []pipeline.Metric{{Event: "layer", Layer: "conv1", Update: 0.1}}}, Schedule: json.RawMessage("{}")}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var again mark
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if a, b := fmt.Sprintf("%+v", m), fmt.Sprintf("%+v", again); a != b {
		t.Errorf("%s\nwas read as\n%s", a, b)
	}
}
