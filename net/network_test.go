package net_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"sluice/net"
	"sluice/net/nettest"
)

// small is a network with every kind of tensor in it.
func small() net.Graph {
	return net.Graph{Input: unit, Layers: []net.Node{
		{Name: "conv1", Layer: conv(4, 3, nil)},
		{Name: "norm1", Layer: net.LRNLayer{Size: 3, K: 2, Alpha: 0.1, Beta: 0.75, Groups: 1}},
		{Name: "pool1", Layer: net.MaxPoolLayer{Size: 3, Stride: 2}},
		{Name: "conv2", Layer: conv(4, 3, func(l *net.ConvLayer) { l.Padding, l.Groups = 1, 2 })},
		{Name: "sum", From: []string{"conv2", "pool1"}, Layer: net.AddLayer{}},
		{Name: "fc3", Layer: net.NewDense(8)},
		{Name: "drop3", Layer: net.DropoutLayer{Rate: 0.5}},
		{Name: "fc4", Layer: net.NewDense(0)},
		{Name: "softmax", Layer: net.SoftmaxLayer{}},
	}}
}

// step runs one step of training and gives the weights after it.
func step(t *testing.T, n *net.Network, in net.Input, s int) []net.NamedTensor {
	t.Helper()
	if err := n.Forward(t.Context(), in, s, true); err != nil {
		t.Fatal(err)
	}
	n.Backward(t.Context())
	n.Update(net.SGD{LR: 0.05, Momentum: 0.9, Decay: 0.001})
	w, err := n.Snapshot(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func sameTensors(a, b []net.NamedTensor) bool {
	return slices.EqualFunc(a, b, func(a, b net.NamedTensor) bool {
		return a.Name == b.Name && a.Role == b.Role && slices.Equal(a.Dims, b.Dims) && slices.Equal(a.Data, b.Data)
	})
}

// A batch that is learnt from again and again is learnt.
func TestLearns(t *testing.T) {
	g := small()
	g.Layers[5].Layer = net.NewDense(32) // so that what is not dropped is enough
	_, n, in := build(t, g, 6, 12, 4)
	var first, last float64
	for s := range 100 {
		step(t, n, in, s)
		if err := n.Forward(t.Context(), in, 0, false); err != nil {
			t.Fatal(err)
		}
		stats, err := n.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if stats.Rows != 5 || stats.Top5 != 5 {
			t.Fatalf("%+v: of 6 rows one has no label, and there are 4 classes", stats)
		}
		if last = stats.Loss / 5; s == 0 {
			first = last
		}
	}
	if last > first/5 {
		t.Errorf("the loss went from %.3f only to %.3f", first, last)
	}
}

// Weights and momentum that are saved and loaded go on to the same bits.
func TestSnapshotAndLoad(t *testing.T) {
	_, a, inA := build(t, small(), 4, 12, 3)
	for s := range 3 {
		step(t, a, inA, s)
	}
	saved, err := a.Snapshot(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	_, b, inB := build(t, small(), 4, 12, 3)
	if err := b.Load(saved); err != nil {
		t.Fatal(err)
	}
	// The reference engine holds float64, so a goes on from what was saved, too.
	if err := a.Load(saved); err != nil {
		t.Fatal(err)
	}
	for s := 3; s < 6; s++ {
		if !sameTensors(step(t, a, inA, s), step(t, b, inB, s)) {
			t.Fatalf("step %d differs after loading", s)
		}
	}
	before := &saved[0].Data[0]
	again, err := a.Snapshot(saved, true)
	if err != nil {
		t.Fatal(err)
	}
	if &again[0].Data[0] != before || len(again) != len(saved) {
		t.Error("Snapshot does not reuse the memory it is given")
	}
}

func TestSnapshotNames(t *testing.T) {
	_, n, _ := build(t, small(), 1, 12, 3)
	tensors, err := n.Snapshot(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]int{
		"conv1.weight": {4, 3, 3, 3}, "conv1.bias": {4}, "conv2.weight": {4, 2, 3, 3}, "conv2.bias": {4},
		"fc3.weight": {8, 64}, "fc3.bias": {8}, "fc4.weight": {3, 8}, "fc4.bias": {3},
	}
	if len(tensors) != len(want) {
		t.Errorf("%d tensors, want %d", len(tensors), len(want))
	}
	for _, w := range tensors {
		if !slices.Equal(w.Dims, want[w.Name]) || w.Role != net.RoleWeight {
			t.Errorf("%s (%s) has shape %v, want %v", w.Name, w.Role, w.Dims, want[w.Name])
		}
	}
}

// Inference, which shares more memory, computes what a network in training does.
func TestInference(t *testing.T) {
	_, trained, in := build(t, small(), 5, 12, 4)
	w := step(t, trained, in, 0)
	if err := trained.Load(w); err != nil { // as float32
		t.Fatal(err)
	}
	e := nettest.NewReference()
	n, err := net.New(t.Context(), e, trained.Plan(), 99, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Load(w); err != nil {
		t.Fatal(err)
	}
	place, err := n.NewInput()
	if err != nil {
		t.Fatal(err)
	}
	if err := place.Load(batchOf(5, 12, 12, 4, 9)); err != nil {
		t.Fatal(err)
	}
	var got [2][]float32
	var stats [2]net.Stats
	for i, run := range []struct {
		*net.Network
		net.Input
	}{{trained, in}, {n, place}} {
		if err := run.Forward(t.Context(), run.Input, 3, false); err != nil {
			t.Fatal(err)
		}
		got[i] = run.Probabilities([]float32{7}, 5)
		if stats[i], err = run.Stats(); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(got[0], got[1]) || stats[0] != stats[1] {
		t.Errorf("training gives %v %+v, inference %v %+v", got[0], stats[0], got[1], stats[1])
	}
	if len(got[0]) != 1+5*4 || got[0][0] != 7 {
		t.Fatalf("Probabilities gave %v", got[0])
	}
	for r := range 5 {
		sum := 0.
		for _, p := range got[0][1+r*4:][:4] {
			sum += float64(p)
		}
		if math.Abs(sum-1) > 1e-6 {
			t.Errorf("row %d sums to %g", r, sum)
		}
	}
	if err := n.Forward(t.Context(), place, 0, true); err == nil {
		t.Error("a network for inference trains")
	}
	if _, err := n.Snapshot(nil, true); err == nil {
		t.Error("a network for inference has momentum")
	}
	train, inference := e.Size(n.Plan().Specs(true)), e.Size(n.Plan().Specs(false))
	if 3*inference > 2*train {
		t.Errorf("inference takes %d bytes and training %d", inference, train)
	}
}

// A short batch counts only its rows.
func TestShortBatch(t *testing.T) {
	_, n, in := build(t, small(), 5, 12, 4)
	if err := in.Load(batchOf(3, 12, 12, 4, 2)); err != nil {
		t.Fatal(err)
	}
	if err := n.Forward(t.Context(), in, 0, false); err != nil {
		t.Fatal(err)
	}
	if s, err := n.Stats(); err != nil || s.Rows != 2 { // the last row has no label
		t.Errorf("%+v, %v: want 2 rows", s, err)
	}
}

func TestLoadMistakes(t *testing.T) {
	_, n, _ := build(t, small(), 1, 12, 3)
	good, err := n.Snapshot(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	bad := slices.Clone(good)
	bad[0].Dims = []int{3, 4, 3, 3}
	bad[0].Data = slices.Repeat([]float32{5}, len(bad[0].Data))
	bad[1].Name = "conv9.bias"
	bad = append(bad, bad[2], net.NamedTensor{Name: "fc4.bias", Role: net.RoleMomentum, Dims: []int{3}, Data: make([]float32, 3)})
	err = n.Load(bad)
	for _, want := range []string{
		`"conv1.weight" (weight) has shape [3 4 3 3]`, `unknown tensor "conv9.bias"`, `"conv2.weight" (weight) is given twice`,
		`missing: "conv1.weight" (momentum), "conv1.bias" (weight)`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
	if after, err := n.Snapshot(nil, false); err != nil || !sameTensors(after, good) {
		t.Errorf("a Load that failed has changed something (%v)", err)
	}
}

func TestCancelledStep(t *testing.T) {
	e, n, in := build(t, small(), 2, 12, 3)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := n.Forward(ctx, in, 0, true); err != nil {
		t.Fatal(err)
	}
	n.Backward(ctx)
	if err := e.Sync(); !errors.Is(err, cause) {
		t.Errorf("Sync gives %v", err)
	}
}

// The multipliers of a parameter reach the update: a frozen layer stays.
func TestFrozen(t *testing.T) {
	g := small()
	frozen := conv(4, 3, nil)
	frozen.LR, frozen.BiasLR = 0, 0
	g.Layers[0].Layer = frozen
	_, n, in := build(t, g, 3, 12, 3)
	before, err := n.Snapshot(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	after := step(t, n, in, 0)
	for i, w := range before {
		if frozen := strings.HasPrefix(w.Name, "conv1."); slices.Equal(w.Data, after[i].Data) != frozen {
			t.Errorf("%s changed, or did not", w.Name)
		}
	}
}

// What Specs promises to engines: a tensor lives when it is used, names differ,
// and the halo is what the widest consumer wants.
func TestSpecs(t *testing.T) {
	plan, err := small().Def().Plan(2, 12, 12, 3)
	if err != nil {
		t.Fatal(err)
	}
	layers := len(plan.Layers)
	for _, train := range []bool{true, false} {
		seen := map[string]net.Spec{}
		for _, s := range plan.Specs(train) {
			if _, dup := seen[s.Name]; dup {
				t.Errorf("two tensors are called %q", s.Name)
			}
			seen[s.Name] = s
			if s.To >= 0 && (s.From < 0 || s.To < s.From || s.To > 2*layers) {
				t.Errorf("%s lives from %d to %d", s.Name, s.From, s.To)
			}
		}
		if h := seen["sum"].Halo; h != 0 {
			t.Errorf("sum has a halo of %d", h)
		}
		if h := seen["pool1"].Halo; h != 1 {
			t.Errorf("pool1, which conv2 reads with padding 1, has a halo of %d", h)
		}
		if s := seen["softmax"]; s.To >= 0 {
			t.Errorf("probabilities die at op %d", s.To)
		}
		if s := seen["conv2"]; !train && s.To != 4 {
			t.Errorf("conv2 lives to op %d in inference, and its last reader is op 4", s.To)
		}
		if _, ok := seen["conv1.gradient"]; ok != train {
			t.Errorf("gradients are there: %t, in training: %t", ok, train)
		}
	}
}
