package net

import (
	"errors"

	"sluice/pipeline/config"
)

func init() {
	RegisterLayer("conv", "Convolution with a bias and an activation (paper section 3.5). Output: out x ((size of the input + 2 padding - size) / stride + 1, rounded down).",
		NewConv(0, 0), func(l ConvLayer) (Layer, error) { return l, l.check() })
}

// ConvLayer is y = activation(x * w + b), N x C x H x W to N x Out x H' x W'.
type ConvLayer struct {
	Out        int        `yaml:"out" config:"required" doc:"output channels (kernels)"`
	Size       int        `yaml:"size" config:"required" doc:"side of a kernel, in pixels"`
	Stride     int        `yaml:"stride" doc:"pixels from one window to the next"`
	Padding    int        `yaml:"padding" doc:"zeros around the input, in pixels"`
	Groups     int        `yaml:"groups" doc:"cuts the channels into groups that see only the same group of the input; 2 is the paper's two GPUs"`
	Activation Activation `yaml:"activation" doc:"relu, tanh or none"`
	Parameters `yaml:",inline"`
}

// NewConv is a convolution of out kernels of size x size with defaults: stride 1,
// no padding, one group, ReLU, He's initialisation.
func NewConv(out, size int) ConvLayer {
	return ConvLayer{Out: out, Size: size, Stride: 1, Groups: 1, Activation: ReLU, Parameters: plainParameters()}
}

func (l ConvLayer) check() error {
	errs := append(l.Parameters.check(),
		atLeast("out", l.Out, 1), atLeast("size", l.Size, 1), atLeast("stride", l.Stride, 1),
		atLeast("padding", l.Padding, 0), atLeast("groups", l.Groups, 1))
	switch {
	case l.Groups > 0 && l.Out%l.Groups != 0:
		errs = append(errs, config.Fieldf("groups", "must divide the %d output channels, is %d", l.Out, l.Groups))
	case l.Padding > l.Size && l.Size > 0: // windows of zeros alone give the bias: SqueezeNet 1.0 ends so
		errs = append(errs, config.Fieldf("padding", "must be at most the kernel's size %d, is %d", l.Size, l.Padding))
	}
	return errors.Join(errs...)
}

func (l ConvLayer) geometry() Conv {
	return Conv{Size: l.Size, Stride: l.Stride, Pad: l.Padding, Groups: l.Groups, Act: l.Activation}
}

// Plan says what the convolution makes of one input.
func (l ConvLayer) Plan(in []Shape) (Plan, error) {
	x, err := single(in)
	if err != nil {
		return Plan{}, err
	}
	if err := l.check(); err != nil { // for layers that Go code makes
		return Plan{}, err
	}
	if x.C%l.Groups != 0 {
		return Plan{}, config.Fieldf("groups", "must divide the %d channels of the input, is %d", x.C, l.Groups)
	}
	if min(x.H, x.W)+2*l.Padding < l.Size {
		return Plan{}, config.Fieldf("size", "must fit into the input of %d x %d with padding %d, is %d", x.H, x.W, l.Padding, l.Size)
	}
	y := Shape{x.N, l.Out, (x.H+2*l.Padding-l.Size)/l.Stride + 1, (x.W+2*l.Padding-l.Size)/l.Stride + 1}
	w := Shape{l.Out, x.C / l.Groups, l.Size, l.Size}
	return Plan{
		Out:    y,
		Params: l.specs(w, Filter, l.Groups, l.Activation),
		Halo:   l.Padding,
		KeepX:  true, KeepY: l.Activation != None,
		MACs: int64(y.Len()) * int64(w.Image()),
	}, nil
}

// Rectifies reports whether the layer ends in a ReLU.
func (l ConvLayer) Rectifies() bool { return l.Activation == ReLU }

// Forward computes Y.
func (l ConvLayer) Forward(e Engine, f *Frame) { e.Conv(f.Y, f.X[0], f.W[0], f.W[1], l.geometry()) }

// Backward computes the gradients of input, weight and bias.
func (l ConvLayer) Backward(e Engine, f *Frame) {
	e.ConvGrad(f.DX[0], f.DW[0], f.DW[1], f.DY, f.Y, f.X[0], f.W[0], l.geometry())
}
