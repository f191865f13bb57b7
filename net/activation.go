package net

import "fmt"

func init() {
	RegisterLayer("activation", "A non-linear function of each element, for one that does not follow a convolution or a dense layer at once: those have it among their options, where it costs nothing.",
		ActivationLayer{Function: ReLU}, func(l ActivationLayer) (Layer, error) { return l, nil })
}

// ActivationLayer keeps the shape of its input.
type ActivationLayer struct {
	Function Activation `yaml:"function" doc:"relu, tanh or none"`
}

// Plan says what the layer makes of one input.
func (l ActivationLayer) Plan(in []Shape) (Plan, error) {
	x, err := single(in)
	if err != nil {
		return Plan{}, err
	}
	if l.Function < None || l.Function > Tanh { // for layers that Go code makes
		return Plan{}, fmt.Errorf("there is no activation %d", l.Function)
	}
	return Plan{Out: x, KeepY: true}, nil
}

// Rectifies reports whether the layer is a ReLU.
func (l ActivationLayer) Rectifies() bool { return l.Function == ReLU }

// Forward computes Y.
func (l ActivationLayer) Forward(e Engine, f *Frame) { e.Activate(f.Y, f.X[0], l.Function) }

// Backward computes the gradient of the input.
func (l ActivationLayer) Backward(e Engine, f *Frame) {
	if f.DX[0] != nil {
		e.ActivateGrad(f.DX[0], f.DY, f.Y, l.Function)
	}
}
