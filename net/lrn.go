package net

import (
	"errors"

	"sluice/pipeline/config"
)

func init() {
	RegisterLayer("lrn", "Local response normalisation across channels (paper section 3.3): y = x / (k + alpha * sum of x^2 over a window of size channels)^beta.",
		LRNLayer{Size: 5, K: 2, Alpha: 1e-4, Beta: 0.75, Groups: 1}, func(l LRNLayer) (Layer, error) { return l, l.check() })
}

// LRNLayer keeps the shape of its input.
type LRNLayer struct {
	Size   int     `yaml:"size" doc:"channels in a window (the paper's n); odd, so that it is centred"`
	K      float32 `yaml:"k" doc:"added to the sum (Caffe: 1)"`
	Alpha  float32 `yaml:"alpha" doc:"factor of each square, as in the paper"`
	Beta   float32 `yaml:"beta" doc:"exponent"`
	Groups int     `yaml:"groups" doc:"a window does not reach over the border of its group of channels"`
	// AlphaPerWindow is the form of cuda-convnet2, Caffe and PyTorch.
	AlphaPerWindow bool `yaml:"alpha_per_window" doc:"alpha is that of a whole window, and alpha / size the factor of each square: as cuda-convnet2, Caffe and PyTorch write it"`
}

func (l LRNLayer) check() error {
	errs := []error{atLeast("size", l.Size, 1), atLeast("groups", l.Groups, 1)}
	if l.Size%2 == 0 {
		errs = append(errs, config.Fieldf("size", "must be odd, is %d", l.Size))
	}
	if !(l.K > 0) {
		errs = append(errs, config.Fieldf("k", "must be greater than 0, is %g", l.K))
	}
	if !(l.Alpha >= 0) {
		errs = append(errs, config.Fieldf("alpha", "must not be negative, is %g", l.Alpha))
	}
	return errors.Join(errs...)
}

// Geometry is what the layer computes, with alpha as the factor of each square.
func (l LRNLayer) Geometry() LRN {
	g := LRN{Size: l.Size, K: l.K, Alpha: l.Alpha, Beta: l.Beta, Groups: l.Groups}
	if l.AlphaPerWindow {
		g.Alpha = float32(float64(l.Alpha) / float64(l.Size))
	}
	return g
}

// Plan says what the layer makes of one input.
func (l LRNLayer) Plan(in []Shape) (Plan, error) {
	x, err := single(in)
	if err != nil {
		return Plan{}, err
	}
	if err := l.check(); err != nil {
		return Plan{}, err
	}
	if x.C%l.Groups != 0 {
		return Plan{}, config.Fieldf("groups", "must divide the %d channels of the input, is %d", x.C, l.Groups)
	}
	return Plan{Out: x, KeepX: true}, nil
}

// Forward computes Y.
func (l LRNLayer) Forward(e Engine, f *Frame) { e.LRN(f.Y, f.X[0], l.Geometry()) }

// Backward computes the gradient of the input.
func (l LRNLayer) Backward(e Engine, f *Frame) {
	if f.DX[0] != nil {
		e.LRNGrad(f.DX[0], f.DY, f.X[0], l.Geometry())
	}
}
