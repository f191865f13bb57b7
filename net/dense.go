package net

import (
	"errors"

	"sluice/pipeline/config"
)

func init() {
	RegisterLayer("dense", "Fully connected layer with a bias and an activation. Output: out x 1 x 1.",
		NewDense(0), func(l DenseLayer) (Layer, error) { return l, l.check() })
}

// DenseLayer is y = activation(w x + b), N x C x H x W to N x Out x 1 x 1.
type DenseLayer struct {
	Out        int        `yaml:"out,omitempty" doc:"outputs; left out in the last dense layer, it is the number of classes, and there is no activation"`
	Activation Activation `yaml:"activation" doc:"relu, tanh or none"`
	Parameters `yaml:",inline"`
}

// NewDense is a dense layer with defaults: ReLU, He's initialisation. With out 0
// it is the last one, as wide as there are classes.
func NewDense(out int) DenseLayer {
	return DenseLayer{Out: out, Activation: ReLU, Parameters: plainParameters()}
}

func (l DenseLayer) check() error {
	errs := append(l.Parameters.check(), atLeast("out", l.Out, 0))
	if l.Out == 0 && l.Activation == Tanh {
		errs = append(errs, config.Fieldf("activation", "must be left out with out: the classes' outputs go to the softmax as they are"))
	}
	return errors.Join(errs...)
}

// Widen makes the layer n wide and linear if its width was left out.
func (l DenseLayer) Widen(n int) (Layer, bool) {
	if l.Out != 0 {
		return l, false
	}
	l.Out, l.Activation = n, None
	return l, true
}

// Plan says what the layer makes of one input.
func (l DenseLayer) Plan(in []Shape) (Plan, error) {
	x, err := single(in)
	if err != nil {
		return Plan{}, err
	}
	if err := errors.Join(l.check(), atLeast("out", l.Out, 1)); err != nil {
		return Plan{}, err
	}
	w := Shape{l.Out, x.C, x.H, x.W}
	return Plan{
		Out:    Shape{x.N, l.Out, 1, 1},
		Params: l.specs(w, Matrix, 0, l.Activation),
		KeepX:  true, KeepY: l.Activation != None,
		MACs: int64(x.N) * int64(w.Len()),
	}, nil
}

// Rectifies reports whether the layer ends in a ReLU.
func (l DenseLayer) Rectifies() bool { return l.Activation == ReLU }

// Forward computes Y.
func (l DenseLayer) Forward(e Engine, f *Frame) {
	e.Dense(f.Y, f.X[0], f.W[0], f.W[1], l.Activation)
}

// Backward computes the gradients of input, weight and bias.
func (l DenseLayer) Backward(e Engine, f *Frame) {
	e.DenseGrad(f.DX[0], f.DW[0], f.DW[1], f.DY, f.Y, f.X[0], f.W[0], l.Activation)
}
