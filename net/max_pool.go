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
	return l.geometry().check(256)
}

func (l MaxPoolLayer) geometry() Pool {
	return Pool{Size: l.Size, Stride: l.Stride, Pad: l.Padding, Ceil: l.Ceil}
}

// farthest bounds strides and windows, so that no place of one overflows.
const farthest = 1 << 20

// check holds a pooling to windows of at most widest.
func (g Pool) check(widest int) error {
	errs := []error{atLeast("size", g.Size, 1), atLeast("stride", g.Stride, 1), atLeast("padding", g.Pad, 0)}
	if g.Size > widest {
		errs = append(errs, config.Fieldf("size", "must be at most %d, is %d", widest, g.Size))
	}
	if g.Stride > farthest {
		errs = append(errs, config.Fieldf("stride", "must be at most %d, is %d", farthest, g.Stride))
	}
	if g.Pad >= g.Size && g.Size > 0 {
		errs = append(errs, config.Fieldf("padding", "must be less than the window's size %d, is %d", g.Size, g.Pad))
	}
	return errors.Join(errs...)
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

// shape is what pooling makes of x.
func (g Pool) shape(x Shape) (Shape, error) {
	if min(x.H, x.W)+2*g.Pad < g.Size {
		return Shape{}, config.Fieldf("size", "must fit into the input of %d x %d with padding %d, is %d", x.H, x.W, g.Pad, g.Size)
	}
	return Shape{x.N, x.C, g.Out(x.H), g.Out(x.W)}, nil
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
	y, err := l.geometry().shape(x)
	if err != nil {
		return Plan{}, err
	}
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
