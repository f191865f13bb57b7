package net_test

import (
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"sluice/net"
)

// A graph of layers that a YAML can name is written as a list of them, and reads
// as the same network.
func TestGraphAsYAML(t *testing.T) {
	conv := net.NewConv(4, 3)
	conv.Std, conv.BiasLR = 0.01, 2
	g := net.Graph{
		Input: net.InputOptions{Mean: net.Mean{RGB: net.Triple{1, 2, 3}}, Scale: net.Triple{1, 1, 1}, Channels: "bgr"},
		Layers: []net.Node{
			{Name: "first", Layer: conv},
			{Layer: net.LRNLayer{Size: 5, K: 1, Alpha: 2e-5, Beta: 0.75, Groups: 1}},
			{Layer: net.MaxPoolLayer{Size: 3, Stride: 2, Ceil: true}},
			{Name: "other", From: []string{"pool1"}, Layer: net.NewConv(4, 1)},
			{From: []string{"pool1", "other"}, Layer: net.AddLayer{}},
			{Layer: net.DropoutLayer{Rate: 0.5}},
			{Layer: net.NewDense(0)},
			{Layer: net.SoftmaxLayer{}},
		},
	}
	want, err := g.Def().Plan(2, 16, 16, 7)
	if err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(holder{Net: g.Def(), Solver: net.DefaultSolver()})
	if err != nil {
		t.Fatal(err)
	}
	h, err := decode(t, string(text))
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, text)
	}
	got, err := h.Net.Plan(2, 16, 16, 7)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("another network:\n%s", text)
	}

	fitting := g
	fitting.Fit = func(int, int) (net.Padding, error) { return net.Padding{}, nil }
	if _, err := yaml.Marshal(fitting.Def()); err == nil || !strings.Contains(err.Error(), "register it as a preset") {
		t.Errorf("a graph with a Fit: error %v", err)
	}
	own := g
	own.Layers = append([]net.Node{{Layer: unnamed{}}}, g.Layers...)
	if _, err := yaml.Marshal(own.Def()); err == nil || !strings.Contains(err.Error(), "layer unnamed1 of type net_test.unnamed has no YAML form") {
		t.Errorf("a layer that is not registered: error %v", err)
	}
}

// unnamed is a layer that no YAML can name.
type unnamed struct{}

func (unnamed) Plan(in []net.Shape) (net.Plan, error) { return net.Plan{Out: in[0]}, nil }
func (unnamed) Forward(e net.Engine, f *net.Frame)    { e.Copy(f.Y, f.X[0]) }
func (unnamed) Backward(_ net.Engine, _ *net.Frame)   {}

// Weights are held to a plan without allocating its network.
func TestCheckWeights(t *testing.T) {
	h, err := decode(t, "net: [{conv: {name: c, out: 2, size: 3}}, {dense: {name: d, out: 5, activation: none}}, softmax]")
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.Net.Plan(1, 4, 4, 5)
	if err != nil {
		t.Fatal(err)
	}
	tensor := func(name string, dims ...int) net.NamedTensor {
		n := 1
		for _, d := range dims {
			n *= d
		}
		return net.NamedTensor{Name: name, Role: net.RoleWeight, Dims: dims, Data: make([]float32, n)}
	}
	all := []net.NamedTensor{tensor("c.weight", 2, 3, 3, 3), tensor("c.bias", 2), tensor("d.weight", 5, 8), tensor("d.bias", 5)}
	if err := p.CheckWeights(all); err != nil {
		t.Errorf("all weights: %v", err)
	}
	all[0], all[3] = tensor("c.weight", 2, 3, 5, 5), tensor("e.bias", 5)
	err = p.CheckWeights(all)
	for _, want := range []string{`tensor "c.weight" (weight) has shape [2 3 5 5]`, `unknown tensor "e.bias"`, `missing: "d.bias" (weight)`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, without %q", err, want)
		}
	}
}
