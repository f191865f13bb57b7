package net

import "fmt"

func init() {
	RegisterLayer("concat", "The channels of its inputs, one input after another: concat: {from: [a, b, c]}.",
		struct{}{}, func(struct{}) (Layer, error) { return ConcatLayer{}, nil })
}

// ConcatLayer takes inputs of N x Ci x H x W to N x (sum of Ci) x H x W.
type ConcatLayer struct{}

// Plan says what the layer makes of two inputs or more.
func (ConcatLayer) Plan(in []Shape) (Plan, error) {
	if len(in) < 2 {
		return Plan{}, fmt.Errorf("takes two inputs or more, from: [a, b], and has %d", len(in))
	}
	y := in[0]
	for _, x := range in[1:] {
		if x.H != y.H || x.W != y.W {
			return Plan{}, fmt.Errorf("the inputs must have one height and width, and are %s and %s", image(in[0]), image(x))
		}
		y.C += x.C
	}
	return Plan{Out: y}, nil
}

// Forward computes Y.
func (ConcatLayer) Forward(e Engine, f *Frame) {
	at := 0
	for _, x := range f.X {
		e.CopyChannels(f.Y, x, at, 0, x.Shape.C)
		at += x.Shape.C
	}
}

// Backward hands each input its channels of the gradient.
func (ConcatLayer) Backward(e Engine, f *Frame) {
	at := 0
	for i, x := range f.X {
		if f.DX[i] != nil {
			e.CopyChannels(f.DX[i], f.DY, 0, at, x.Shape.C)
		}
		at += x.Shape.C
	}
}
