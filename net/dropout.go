package net

import "sluice/pipeline/config"

func init() {
	RegisterLayer("dropout", "In training, zeroes each element with probability rate and divides the others by 1 - rate (paper section 4.2, scaled in training instead of in use).",
		DropoutLayer{Rate: 0.5}, func(l DropoutLayer) (Layer, error) { return l, l.check() })
}

// DropoutLayer keeps the shape of its input. What it drops is a function of the
// run's seed, the step, the layer's name and the element.
type DropoutLayer struct {
	Rate float32 `yaml:"rate" doc:"probability that an element is dropped"`
}

func (l DropoutLayer) check() error {
	if !(l.Rate >= 0 && l.Rate < 1) {
		return config.Fieldf("rate", "must be at least 0 and less than 1, is %g", l.Rate)
	}
	return nil
}

// Plan says what the layer makes of one input.
func (l DropoutLayer) Plan(in []Shape) (Plan, error) {
	x, err := single(in)
	if err != nil {
		return Plan{}, err
	}
	return Plan{Out: x}, l.check()
}

// Forward drops in training, and copies otherwise.
func (l DropoutLayer) Forward(e Engine, f *Frame) {
	if f.Train {
		e.Dropout(f.Y, f.X[0], 1-l.Rate, f.Key)
	} else {
		e.Copy(f.Y, f.X[0])
	}
}

// Backward drops the same elements of the gradient.
func (l DropoutLayer) Backward(e Engine, f *Frame) {
	if f.DX[0] != nil {
		e.Dropout(f.DX[0], f.DY, 1-l.Rate, f.Key)
	}
}
