package net_test

import (
	"math"
	"slices"
	"testing"

	"sluice/net"
	"sluice/net/nettest"
)

// weightsOf are the initial weights of a graph by name.
func weightsOf(t *testing.T, g net.Graph, seed uint64) map[string][]float32 {
	t.Helper()
	plan, err := g.Def().Plan(1, 16, 16, 4)
	if err != nil {
		t.Fatal(err)
	}
	n, err := net.New(t.Context(), nettest.NewReference(), plan, seed, false)
	if err != nil {
		t.Fatal(err)
	}
	tensors, err := n.Snapshot(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]float32{}
	for _, w := range tensors {
		out[w.Name] = w.Data
	}
	return out
}

func initGraph(nodes ...net.Node) net.Graph {
	return net.Graph{Input: unit, Layers: append(nodes, net.Node{Name: "out", Layer: net.NewDense(0)}, net.Node{Layer: net.SoftmaxLayer{}})}
}

// PyTorch's default is even within 1 / sqrt(inputs of one output), for biases too.
func TestTorchInit(t *testing.T) {
	l := net.NewConv(64, 5)
	l.Init = "torch"
	last := net.NewDense(0)
	last.Init = "torch"
	g := net.Graph{Input: unit, Layers: []net.Node{{Name: "a", Layer: l}, {Name: "b", Layer: last}, {Layer: net.SoftmaxLayer{}}}}
	weights := weightsOf(t, g, 1)
	for name, inputs := range map[string]float64{"a.weight": 3 * 5 * 5, "a.bias": 3 * 5 * 5, "b.weight": 64 * 12 * 12, "b.bias": 64 * 12 * 12} {
		limit, sum, square := 1/math.Sqrt(inputs), 0., 0.
		for _, v := range weights[name] {
			if math.Abs(float64(v)) > limit*(1+1e-6) {
				t.Fatalf("%s has a number %g beyond %g", name, v, limit)
			}
			sum += float64(v)
			square += float64(v) * float64(v)
		}
		n := float64(len(weights[name]))
		if n < 64 {
			continue
		}
		sigma := limit / math.Sqrt(3) // of an even distribution
		if mean := sum / n; math.Abs(mean) > 4*sigma/math.Sqrt(n) {
			t.Errorf("%s has the mean %g", name, mean)
		}
		if got := math.Sqrt(square / n); math.Abs(got/sigma-1) > 2/math.Sqrt(n) {
			t.Errorf("%s has the deviation %g, want %g", name, got, sigma)
		}
	}
}

// Initial weights depend on seed and name, and on nothing else.
func TestInitIsPure(t *testing.T) {
	same := func(l net.ConvLayer) net.ConvLayer { l.Padding = 1; return l }
	a := net.Node{Name: "a", Layer: same(net.NewConv(3, 3))}
	b := net.Node{Name: "b", Layer: same(net.NewConv(3, 3))}
	first, swapped, other := weightsOf(t, initGraph(a, b), 1), weightsOf(t, initGraph(b, a), 1), weightsOf(t, initGraph(a, b), 2)
	for _, name := range []string{"a.weight", "b.weight", "out.weight"} {
		if !slices.Equal(first[name], swapped[name]) {
			t.Errorf("%s depends on the order of layers", name)
		}
		if slices.Equal(first[name], other[name]) {
			t.Errorf("%s does not depend on the seed", name)
		}
	}
	if slices.Equal(first["a.weight"], first["b.weight"]) {
		t.Error("two layers start alike")
	}
}

// Weights are normal with the deviation asked for, or He's.
func TestInitDistribution(t *testing.T) {
	plain := net.NewDense(300)
	std := net.NewDense(300)
	std.Std, std.Bias = 0.02, 0.7
	linear := net.NewDense(300)
	linear.Activation = net.Tanh
	w := weightsOf(t, initGraph(net.Node{Name: "he", Layer: plain}, net.Node{Name: "std", Layer: std}, net.Node{Name: "tanh", Layer: linear}), 7)
	for name, want := range map[string]float64{
		"he.weight": math.Sqrt(2. / 768), "std.weight": 0.02, "tanh.weight": math.Sqrt(1. / 300),
	} {
		var sum, squares, fourth float64
		inside := 0
		for _, v := range w[name] {
			x := float64(v) / want
			sum += x
			squares += x * x
			fourth += x * x * x * x
			if math.Abs(x) < 1 {
				inside++
			}
		}
		n := float64(len(w[name]))
		for what, c := range map[string][3]float64{
			"mean": {sum / n, 0, 4 / math.Sqrt(n)}, "variance": {squares / n, 1, 4 * math.Sqrt(2/n)},
			"kurtosis": {fourth / n, 3, 4 * math.Sqrt(96/n)}, "inside one deviation": {float64(inside) / n, 0.68269, 4 * 0.4655 / math.Sqrt(n)},
		} {
			if math.Abs(c[0]-c[1]) > c[2] {
				t.Errorf("%s: %s is %.4f, want %.4f within %.4f", name, what, c[0], c[1], c[2])
			}
		}
	}
	for _, v := range w["std.bias"] {
		if v != 0.7 {
			t.Errorf("a bias starts at %g, want 0.7", v)
		}
	}
}
