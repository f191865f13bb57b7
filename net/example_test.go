package net_test

import (
	"context"
	"fmt"

	"go.yaml.in/yaml/v3"

	"sluice/net"
	"sluice/net/nettest"
	"sluice/pipeline/config"
)

// Leaky is a layer made of Go functions over floats in NCHW: y = x where that is
// positive, and Slope*x elsewhere. It runs on every engine, by way of the host.
type Leaky struct {
	Slope float32 `yaml:"slope" doc:"of the negative side"`
}

func (l Leaky) Plan(in []net.Shape) (net.Plan, error) {
	plan, err := net.PlanLike(in)
	plan.KeepX = true // Backward reads it
	return plan, err
}

func (l Leaky) Forward(e net.Engine, f *net.Frame) {
	e.Host([]*net.Tensor{f.Y}, f.X, func(outs, ins [][]float32) {
		for i, x := range ins[0] {
			outs[0][i] = max(x, l.Slope*x)
		}
	})
}

func (l Leaky) Backward(e net.Engine, f *net.Frame) {
	if f.DX[0] == nil {
		return
	}
	e.Host(f.DX, []*net.Tensor{f.DY, f.X[0]}, func(outs, ins [][]float32) {
		for i, dy := range ins[0] {
			if outs[0][i] = dy; ins[1][i] < 0 {
				outs[0][i] = l.Slope * dy
			}
		}
	})
}

func init() {
	net.DefineLayer("leaky", "Lets a part of the negative side through.", Leaky{Slope: 0.01})
}

// A layer of one's own is a struct with three methods, registered by name. From
// then on a YAML can say it, and its mistakes have lines.
func ExampleDefineLayer() {
	doc, err := config.Parse("train.yaml", []byte(`
- conv: {out: 8, size: 3, activation: none}
- leaky: {slope: 0.1}
- dense
- softmax
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	var def net.Def
	if err := doc.Decode(&def); err != nil {
		fmt.Println(err)
		return
	}
	plan, err := def.Plan(32, 16, 16, 10) // 32 images of 16 x 16, 10 classes
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, l := range plan.Layers {
		fmt.Println(l.Name, l.Plan.Out)
	}
	fmt.Println(plan.Params, "parameters")
	// Output:
	// conv1 32x8x14x14
	// leaky1 32x8x14x14
	// dense1 32x10x1x1
	// softmax1 32x10x1x1
	// 15914 parameters
}

// A preset, with an option, as a run resolves it.
func ExampleDef() {
	doc, err := config.Parse("train.yaml", []byte("alexnet: {bias: 0.1}"))
	if err != nil {
		fmt.Println(err)
		return
	}
	var def net.Def
	if err := doc.Decode(&def); err != nil {
		fmt.Println(err)
		return
	}
	text, err := yaml.Marshal(def)
	fmt.Print(string(text), err)
	// Output:
	// alexnet:
	//     mean: [123.68, 116.78, 103.94]
	//     dropout: 0.5
	//     std: 0.01
	//     bias: 0.1
	// <nil>
}

// A network on an engine; the reference engine is slow and needs nothing.
func ExampleNetwork() {
	plan, err := net.Preset("alexnet_small").Plan(2, 64, 64, 10)
	if err != nil {
		fmt.Println(err)
		return
	}
	n, err := net.New(context.Background(), nettest.NewReference(), plan, 42, true)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(n.Plan().Params, "parameters,", n.Plan().MACs, "multiply-adds an image")
	// Output:
	// 94522 parameters, 3367872 multiply-adds an image
}
