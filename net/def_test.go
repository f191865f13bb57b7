package net_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"sluice/net"
	"sluice/pipeline/config"
)

// holder is what a stage's options look like around a Def.
type holder struct {
	Net    net.Def    `yaml:"net" config:"required" doc:"the network"`
	Solver net.Solver `yaml:"solver" doc:"how it learns"`
}

func decode(t testing.TB, text string, sets ...string) (holder, error) {
	t.Helper()
	doc, err := config.Parse("net.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	h := holder{Solver: net.DefaultSolver()}
	for _, s := range sets {
		if err := doc.Set(s, h); err != nil {
			return h, err
		}
	}
	err = doc.Decode(&h)
	return h, err
}

var update = flag.Bool("update", false, "write what testdata/mistakes must give")

// TestMistakes runs testdata/mistakes: a YAML, a line of dashes, and the errors
// that reading or planning it (4 images of 32 x 32, 10 classes) must give.
func TestMistakes(t *testing.T) {
	files, err := filepath.Glob("testdata/mistakes/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text, want, ok := strings.Cut(string(data), "----\n")
			if !ok {
				t.Fatal("no line of dashes")
			}
			h, err := decode(t, text)
			if err == nil {
				_, err = h.Net.Plan(4, 32, 32, 10)
			}
			if err == nil {
				t.Fatal("no error")
			}
			got := err.Error() + "\n"
			if *update {
				if err := os.WriteFile(file, []byte(text+"----\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
				want = got
			}
			if got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
			if _, ok := errors.AsType[config.Errors](err); !ok {
				t.Errorf("the error is a %T, and must be a config.Errors with lines", err)
			}
		})
	}
}

// Every form plans to the same network, and so does its resolved YAML.
func TestForms(t *testing.T) {
	for _, c := range []struct{ name, text, layers string }{
		{"preset", "net: alexnet_small", "conv1 pool1 conv2 pool2 conv3 pool3 fc4 drop4 fc5 softmax"},
		{"preset with options", "net: {alexnet_small: {dropout: 0.3, mean: 120}}", "conv1 pool1 conv2 pool2 conv3 pool3 fc4 drop4 fc5 softmax"},
		{
			"list of layers", "net: [{conv: {out: 4, size: 3}}, max_pool, lrn, dropout, dense, softmax]",
			"conv1 pool1 lrn1 dropout1 dense1 softmax1",
		},
		{
			"input and names", `net:
  input: {mean: [1, 2, 3], scale: 0.5, pad: [0, 3, 0, 3], channels: bgr}
  layers:
    - conv: {name: pool1, out: 4, size: 3, padding: 1, groups: 1, activation: tanh, std: 0.01, bias: 1, lr: 2, decay: 0, bias_lr: 3, bias_decay: 0}
    - max_pool: {padding: 1}
    - conv: {out: 4, size: 1, from: pool1}
    - add: {from: [pool1, conv2]}
    - max_pool: {from: add1, size: 1, stride: 2}
    - add: {name: sum, from: [pool2, pool3]}
    - dense
    - softmax
`, "pool1 pool2 conv2 add1 pool3 sum dense1 softmax1",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, err := decode(t, c.text)
			if err != nil {
				t.Fatal(err)
			}
			first, err := h.Net.Plan(4, 32, 32, 10)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, l := range first.Layers {
				names = append(names, l.Name)
			}
			if got := strings.Join(names, " "); got != c.layers {
				t.Errorf("layers %s, want %s", got, c.layers)
			}
			text, err := yaml.Marshal(h)
			if err != nil {
				t.Fatal(err)
			}
			again, err := decode(t, string(text))
			if err != nil {
				t.Fatalf("%v\nin the resolved\n%s", err, text)
			}
			second, err := again.Net.Plan(4, 32, 32, 10)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(first, second) {
				t.Errorf("the resolved YAML is another network:\n%s", text)
			}
			if twice, err := yaml.Marshal(again); err != nil || string(twice) != string(text) {
				t.Errorf("resolved again:\n%s\nfirst:\n%s%v", twice, text, err)
			}
		})
	}
}

// What the YAML of input says arrives in the plan.
func TestInput(t *testing.T) {
	h, err := decode(t, `net: {input: {mean: [1, 2, 3], scale: 0.5, pad: [1, 2, 3, 4], channels: bgr}, layers: [{conv: {out: 2, size: 3, padding: 1}}, dense, softmax]}`)
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.Net.Plan(4, 32, 30, 10)
	if err != nil {
		t.Fatal(err)
	}
	want := net.InputSpec{
		N: 4, H: 32, W: 30, Top: 1, Bottom: 2, Left: 3, Right: 4,
		Mean: [3]float32{1, 2, 3}, Scale: [3]float32{.5, .5, .5}, BGR: true, Halo: 1,
	}
	if p.Input != want {
		t.Errorf("got %+v, want %+v", p.Input, want)
	}
}

func TestSet(t *testing.T) {
	h, err := decode(t, "net: alexnet_small", "net=alexnet", "net.alexnet.bias=0.1", "solver.schedule.plateau.patience=3")
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.Net.Plan(1, 227, 227, 10)
	if err != nil {
		t.Fatal(err)
	}
	if b := p.Layers[3].Plan.Params[1].Init.Value; b != 0.1 {
		t.Errorf("conv2's bias starts at %g, want 0.1", b)
	}
	h, err = decode(t, "net: [{conv: {name: first, out: 2, size: 3}}, dense, softmax]", "net.first.out=5")
	if err != nil {
		t.Fatal(err)
	}
	if p, err = h.Net.Plan(1, 8, 8, 2); err != nil || p.Layers[0].Plan.Out.C != 5 {
		t.Errorf("first has %d outputs, want 5 (%v)", p.Layers[0].Plan.Out.C, err)
	}
}

// Without a YAML the messages name the layer.
func TestGoGraphMistakes(t *testing.T) {
	_, err := net.Graph{Input: unit, Layers: []net.Node{{Name: "big", Layer: net.NewConv(3, 9)}, {Layer: net.NewDense(0)}, {Layer: net.SoftmaxLayer{}}}}.Def().Plan(1, 8, 8, 2)
	if err == nil || err.Error() != "layer big: size must fit into the input of 8 x 8 with padding 0, is 9" {
		t.Errorf("error %v", err)
	}
	if _, err = (net.Def{}).Plan(1, 8, 8, 2); err == nil || !strings.Contains(err.Error(), "net is missing") {
		t.Errorf("a Def of nothing: error %v", err)
	}
	if _, err = net.Preset("alexnet_small").Plan(0, 64, 64, 2); err == nil {
		t.Error("a batch of nothing plans")
	}
}

// FuzzDef: whatever a YAML says, reading and planning it ends with a plan or an
// error.
func FuzzDef(f *testing.F) {
	files, err := filepath.Glob("testdata/mistakes/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		text, _, _ := strings.Cut(string(data), "----\n")
		f.Add(text)
	}
	f.Add("net: {alexnet: {std: 0}}")
	f.Fuzz(func(t *testing.T, text string) {
		doc, err := config.Parse("fuzz", []byte(text))
		if err != nil {
			return
		}
		h := holder{Solver: net.DefaultSolver()}
		if doc.Decode(&h) != nil {
			return
		}
		p, err := h.Net.Plan(4, 32, 32, 10)
		if err != nil {
			return
		}
		if p.Params < 0 || len(p.Specs(true)) < len(p.Layers) {
			t.Errorf("%d parameters and %d tensors", p.Params, len(p.Specs(true)))
		}
	})
}
