package net

import "fmt"

func init() {
	RegisterLayer("add", "The sum of two inputs of one shape: add: {from: [a, b]}.",
		struct{}{}, func(struct{}) (Layer, error) { return AddLayer{}, nil })
}

// AddLayer is y = a + b.
type AddLayer struct{}

// Plan says what the layer makes of two inputs.
func (AddLayer) Plan(in []Shape) (Plan, error) {
	if len(in) != 2 {
		return Plan{}, fmt.Errorf("takes two inputs, from: [a, b], and has %d", len(in))
	}
	if in[0] != in[1] {
		return Plan{}, fmt.Errorf("the inputs must have one shape, and are %s and %s", image(in[0]), image(in[1]))
	}
	return Plan{Out: in[0]}, nil
}

// Forward computes Y.
func (AddLayer) Forward(e Engine, f *Frame) { e.Add(f.Y, f.X[0], f.X[1]) }

// Backward hands the gradient to both inputs.
func (AddLayer) Backward(e Engine, f *Frame) {
	for _, dx := range f.DX {
		if dx != nil {
			e.Copy(dx, f.DY)
		}
	}
}
