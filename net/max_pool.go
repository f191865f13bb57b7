package net

import (
	"errors"

	"sluice/pipeline/config"
)

func init() {
	RegisterLayer("max_pool", "The greatest element of each window, channel by channel. With stride less than size the windows overlap (paper section 3.4).",
		MaxPoolLayer{Size: 3, Stride: 2}, func(l MaxPoolLayer) (Layer, error) { return l, l.check() })
}

// MaxPoolLayer takes N x C x H x W to N x C x H' x W'.
type MaxPoolLayer struct {
	Size    int  `yaml:"size" doc:"side of a window, in pixels"`
	Stride  int  `yaml:"stride" doc:"pixels from one window to the next"`
	Padding int  `yaml:"padding" doc:"border around the input, in pixels, that never wins"`
	Ceil    bool `yaml:"ceil" doc:"keep a last window that reaches over the border (Caffe), instead of rounding down"`
}

func (l MaxPoolLayer) check() error {
	errs := []error{atLeast("size", l.Size, 1), atLeast("stride", l.Stride, 1), atLeast("padding", l.Padding, 0)}
	if l.Size > 256 {
		errs = append(errs, config.Fieldf("size", "must be at most 256, is %d", l.Size))
	}
	if l.Padding >= l.Size && l.Size > 0 {
		errs = append(errs, config.Fieldf("padding", "must be less than the window's size %d, is %d", l.Size, l.Padding))
	}
	return errors.Join(errs...)
}

func (l MaxPoolLayer) geometry() Pool {
	return Pool{Size: l.Size, Stride: l.Stride, Pad: l.Padding, Ceil: l.Ceil}
}

// Out is the size that pooling makes of n pixels.
func (g Pool) Out(n int) int {
	if !g.Ceil {
		return (n+2*g.Pad-g.Size)/g.Stride + 1
	}
	out := max(0, n+2*g.Pad-g.Size+g.Stride-1)/g.Stride + 1
	if (out-1)*g.Stride >= n+g.Pad {
		out-- // it would begin in the padding after the image
	}
	return out
}

// Plan says what the pooling makes of one input.
func (l MaxPoolLayer) Plan(in []Shape) (Plan, error) {
	x, err := single(in)
	if err != nil {
		return Plan{}, err
	}
	if err := l.check(); err != nil {
		return Plan{}, err
	}
	if min(x.H, x.W)+2*l.Padding < l.Size {
		return Plan{}, config.Fieldf("size", "must fit into the input of %d x %d with padding %d, is %d", x.H, x.W, l.Padding, l.Size)
	}
	g := l.geometry()
	y := Shape{x.N, x.C, g.Out(x.H), g.Out(x.W)}
	return Plan{Out: y, Saved: []Spec{{Name: "arg", Shape: y, Kind: Index}}}, nil
}

// Forward computes Y and where each element came from.
func (l MaxPoolLayer) Forward(e Engine, f *Frame) {
	e.MaxPool(f.Y, f.Saved[0], f.X[0], l.geometry())
}

// Backward sends each gradient to where its element came from.
func (l MaxPoolLayer) Backward(e Engine, f *Frame) {
	if f.DX[0] != nil {
		e.MaxPoolGrad(f.DX[0], f.DY, f.Saved[0], l.geometry())
	}
}
