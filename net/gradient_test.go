package net_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"sluice/net"
	"sluice/net/nettest"
)

// batchOf makes random pixels and labels; the last row has no label.
func batchOf(n, h, w, classes int, seed uint64) net.ImageBatch {
	r := rand.New(rand.NewPCG(seed, 1))
	b := net.ImageBatch{N: n, Pixels: make([]byte, n*h*w*3), Shift: make([]float32, n*3), Labels: make([]int32, n)}
	for i := range b.Pixels {
		b.Pixels[i] = byte(r.UintN(256))
	}
	for i := range b.Shift {
		b.Shift[i] = float32(r.NormFloat64())
	}
	for i := range b.Labels {
		b.Labels[i] = int32(r.IntN(classes))
	}
	b.Labels[n-1] = -1
	return b
}

// build puts a graph on the reference engine with a loaded batch of n images.
func build(t testing.TB, g net.Graph, n, side, classes int) (*nettest.Reference, *net.Network, net.Input) {
	t.Helper()
	plan, err := g.Def().Plan(n, side, side, classes)
	if err != nil {
		t.Fatal(err)
	}
	e := nettest.NewReference()
	network, err := net.New(t.Context(), e, plan, 3, true)
	if err != nil {
		t.Fatal(err)
	}
	in, err := network.NewInput()
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Load(batchOf(n, side, side, classes, 9)); err != nil {
		t.Fatal(err)
	}
	return e, network, in
}

var unit = net.InputOptions{Mean: net.Mean{RGB: net.Triple{128, 128, 128}}, Scale: net.Triple{1. / 64, 1. / 64, 1. / 64}, Channels: "rgb"}

func conv(out, size int, edit func(*net.ConvLayer)) net.ConvLayer {
	l := net.NewConv(out, size)
	l.Bias = 0.1
	if edit != nil {
		edit(&l)
	}
	return l
}

func dense(out int, act net.Activation) net.DenseLayer {
	l := net.NewDense(out)
	l.Activation = act
	return l
}

// gradientNets are networks that put every layer, with every option, between a
// parameter and the loss.
var gradientNets = map[string][]net.Node{
	"dense": {{Layer: dense(7, net.Tanh)}, {Layer: dense(5, net.ReLU)}, {Layer: net.NewDense(0)}, {Layer: net.SoftmaxLayer{}}},
	"conv": {
		{Layer: conv(4, 3, func(l *net.ConvLayer) { l.Stride, l.Padding = 2, 1 })},
		{Layer: conv(6, 3, func(l *net.ConvLayer) { l.Groups, l.Activation = 2, net.Tanh })},
		{Layer: conv(4, 1, func(l *net.ConvLayer) { l.Activation = net.None })},
		{Layer: net.NewDense(0)}, {Layer: net.SoftmaxLayer{}},
	},
	"max_pool": {
		{Layer: conv(3, 3, nil)}, {Layer: net.MaxPoolLayer{Size: 3, Stride: 2}},
		{Layer: net.MaxPoolLayer{Size: 3, Stride: 2, Padding: 1, Ceil: true}},
		{Layer: net.NewDense(0)}, {Layer: net.SoftmaxLayer{}},
	},
	"lrn": {
		{Layer: conv(6, 3, nil)}, {Layer: net.LRNLayer{Size: 3, K: 1, Alpha: 0.5, Beta: 0.75, Groups: 2}},
		{Layer: conv(4, 3, nil)}, {Layer: net.LRNLayer{Size: 5, K: 2, Alpha: 0.1, Beta: 0.5, Groups: 1}},
		{Layer: net.NewDense(0)}, {Layer: net.SoftmaxLayer{}},
	},
	// As the first layer of cuda-convnet2, and the other function and form.
	"activation": {
		{Layer: conv(6, 3, func(l *net.ConvLayer) { l.Activation = net.None })}, {Layer: net.LRNLayer{Size: 3, K: 1, Alpha: 0.5, Beta: 0.75, Groups: 1, AlphaPerWindow: true}},
		{Layer: net.MaxPoolLayer{Size: 3, Stride: 2}}, {Layer: net.ActivationLayer{Function: net.ReLU}},
		{Layer: conv(4, 2, func(l *net.ConvLayer) { l.Activation = net.None })}, {Layer: net.ActivationLayer{Function: net.Tanh}},
		{Layer: net.NewDense(0)}, {Layer: net.SoftmaxLayer{}},
	},
	"avg_pool": {
		{Layer: conv(3, 3, nil)}, {Layer: net.AvgPoolLayer{Size: 3, Stride: 2, Padding: 1, CountPadding: true}},
		{Layer: conv(4, 1, nil)}, {Layer: net.AvgPoolLayer{Size: 2, Stride: 2, Padding: 1, Ceil: true}},
		{Layer: conv(5, 1, func(l *net.ConvLayer) { l.Activation = net.Tanh })}, {Layer: net.AvgPoolLayer{Global: true}},
		{Layer: net.NewDense(0)}, {Layer: net.SoftmaxLayer{}},
	},
	// The batch is among what is joined, and one layer twice.
	"concat": {
		{Name: "a", Layer: conv(4, 3, func(l *net.ConvLayer) { l.Padding = 1 })},
		{Name: "b", Layer: conv(3, 1, func(l *net.ConvLayer) { l.Activation = net.Tanh })},
		{Name: "joined", From: []string{"a", "input", "b", "a"}, Layer: net.ConcatLayer{}},
		{Layer: conv(4, 3, nil)},
		{Layer: net.NewDense(0)}, {Layer: net.SoftmaxLayer{}},
	},
	"dropout": {
		{Layer: dense(9, net.ReLU)}, {Layer: net.DropoutLayer{Rate: 0.4}},
		{Layer: dense(8, net.Tanh)}, {Layer: net.DropoutLayer{Rate: 0.5}},
		{Layer: net.NewDense(0)}, {Layer: net.SoftmaxLayer{}},
	},
	// a feeds three readers, one of them twice.
	"fan out and add": {
		{Name: "a", Layer: conv(4, 3, nil)},
		{Name: "b", Layer: conv(4, 3, func(l *net.ConvLayer) { l.Padding, l.Activation = 1, net.Tanh })},
		{Name: "twice", From: []string{"a", "a"}, Layer: net.AddLayer{}},
		{Name: "c", From: []string{"b", "a"}, Layer: net.AddLayer{}},
		{Name: "d", From: []string{"twice", "c"}, Layer: net.AddLayer{}},
		{Layer: net.NewDense(0)}, {Layer: net.SoftmaxLayer{}},
	},
	"the whole, out of order": {
		{Name: "late", From: []string{"norm"}, Layer: conv(6, 3, func(l *net.ConvLayer) { l.Padding, l.Groups = 1, 2 })},
		{Name: "first", From: []string{"input"}, Layer: conv(6, 3, nil)},
		{Name: "norm", Layer: net.LRNLayer{Size: 5, K: 2, Alpha: 0.1, Beta: 0.75, Groups: 1}},
		{Name: "sum", From: []string{"late", "norm"}, Layer: net.AddLayer{}},
		{Name: "pool", Layer: net.MaxPoolLayer{Size: 3, Stride: 2, Ceil: true}},
		{Name: "fc", Layer: dense(6, net.ReLU)}, {Layer: net.DropoutLayer{Rate: 0.5}},
		{Layer: net.NewDense(0)}, {Layer: net.SoftmaxLayer{}},
	},
}

// TestGradients compares every gradient with central differences. The engine
// computes in float64, so that they agree to 1e-6 but where a step crosses a
// ReLU's or a maximum's corner; those are few, and are skipped by comparing two
// step sizes.
func TestGradients(t *testing.T) {
	for name, layers := range gradientNets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := net.Graph{Input: unit, Layers: layers}
			e, n, in := build(t, g, 3, 7, 4)
			loss := func() float64 {
				if err := n.Forward(t.Context(), in, 7, true); err != nil {
					t.Fatal(err)
				}
				sum := 0.
				for _, v := range nettest.Values(e.Find("softmax1.loss")) {
					sum += v
				}
				return sum / 3
			}
			loss()
			n.Backward(t.Context())
			if err := e.Sync(); err != nil {
				t.Fatal(err)
			}
			gradients := map[string][]float64{} // the next Forward uses their memory
			for _, l := range n.Plan().Layers {
				for _, p := range l.Plan.Params {
					name := l.Name + "." + p.Name
					gradients[name] = slices.Clone(nettest.Values(e.Find(name + ".gradient")))
				}
			}
			corners, checked := 0, 0
			for _, l := range n.Plan().Layers {
				for _, p := range l.Plan.Params {
					name := l.Name + "." + p.Name
					w := nettest.Values(e.Find(name))
					dw := gradients[name]
					norm := 0.
					for _, v := range dw {
						norm = max(norm, math.Abs(v))
					}
					if norm == 0 {
						t.Errorf("%s: every gradient is 0, so nothing is tested", name)
					}
					for i := range w {
						difference := func(h float64) float64 {
							old := w[i]
							w[i] = old + h
							up := loss()
							w[i] = old - h
							down := loss()
							w[i] = old
							return (up - down) / (2 * h)
						}
						a, b := difference(1e-4), difference(1e-5)
						if math.Abs(a-b) > 1e-6 {
							corners++
							continue
						}
						checked++
						if math.Abs(dw[i]-b) > 1e-7+1e-6*math.Abs(b) {
							t.Errorf("%s[%d]: gradient %.9g, central difference %.9g", name, i, dw[i], b)
						}
					}
				}
			}
			if corners*20 > checked {
				t.Errorf("%d of %d differences cross a corner: choose other numbers", corners, corners+checked)
			}
		})
	}
}

// A layer of Go functions takes part like any other: with a slope of 0 it is the
// ReLU that engines compute.
func TestHostLayer(t *testing.T) {
	gradient := func(act net.Activation, rest ...net.Node) []net.NamedTensor {
		c := conv(4, 3, func(l *net.ConvLayer) { l.Activation, l.Std = act, 0.2 })
		layers := append([]net.Node{{Name: "c", Layer: c}}, rest...)
		layers = append(layers, net.Node{Name: "d", Layer: net.NewDense(0)}, net.Node{Layer: net.SoftmaxLayer{}})
		_, n, in := build(t, net.Graph{Input: unit, Layers: layers}, 3, 7, 4)
		if err := n.Forward(t.Context(), in, 0, true); err != nil {
			t.Fatal(err)
		}
		n.Backward(t.Context())
		g, err := n.Gradients()
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	want, got := gradient(net.ReLU), gradient(net.None, net.Node{Layer: Leaky{Slope: 0}})
	for i, w := range want {
		for j, v := range w.Data {
			if math.Abs(float64(v-got[i].Data[j])) > 1e-5 { // host floats are float32
				t.Errorf("%s[%d]: %g, want %g", w.Name, j, got[i].Data[j], v)
			}
		}
	}
}
