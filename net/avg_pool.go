package net

func init() {
	RegisterLayer("avg_pool", "The mean of each window, channel by channel; with global: true the mean of the whole image.",
		AvgPoolLayer{Size: 3, Stride: 2, CountPadding: true}, func(l AvgPoolLayer) (Layer, error) { return l, l.check() })
}

// AvgPoolLayer takes N x C x H x W to N x C x H' x W', or to N x C x 1 x 1.
type AvgPoolLayer struct {
	Size         int  `yaml:"size" doc:"side of a window, in pixels"`
	Stride       int  `yaml:"stride" doc:"pixels from one window to the next"`
	Padding      int  `yaml:"padding" doc:"border of zeros around the input, in pixels"`
	Ceil         bool `yaml:"ceil" doc:"keep a last window that reaches over the border (Caffe), instead of rounding down"`
	CountPadding bool `yaml:"count_padding" doc:"the padding counts as zeros in the mean (Caffe, and count_include_pad of PyTorch); without it, only pixels of the image count. What reaches over the padding too never counts"`
	Global       bool `yaml:"global" doc:"one window as large as the input, whatever the other options say"`
}

func (l AvgPoolLayer) check() error {
	if l.Global {
		return nil
	}
	return l.geometry(Shape{}).check(farthest)
}

// geometry is for an input of x. A square window as large as the longer side of x
// covers the whole of it, and what reaches over the shorter does not count.
func (l AvgPoolLayer) geometry(x Shape) Pool {
	if l.Global {
		side := max(x.H, x.W)
		return Pool{Size: side, Stride: side, Ceil: true}
	}
	return Pool{Size: l.Size, Stride: l.Stride, Pad: l.Padding, Ceil: l.Ceil, CountPad: l.CountPadding}
}

// Plan says what the pooling makes of one input.
func (l AvgPoolLayer) Plan(in []Shape) (Plan, error) {
	x, err := single(in)
	if err != nil {
		return Plan{}, err
	}
	if err := l.check(); err != nil {
		return Plan{}, err
	}
	if l.Global {
		return Plan{Out: Shape{x.N, x.C, 1, 1}}, nil
	}
	y, err := l.geometry(x).shape(x)
	return Plan{Out: y}, err
}

// Forward computes Y.
func (l AvgPoolLayer) Forward(e Engine, f *Frame) {
	e.AvgPool(f.Y, f.X[0], l.geometry(f.X[0].Shape))
}

// Backward shares each gradient out among the pixels of its window.
func (l AvgPoolLayer) Backward(e Engine, f *Frame) {
	if f.DX[0] != nil {
		e.AvgPoolGrad(f.DX[0], f.DY, l.geometry(f.X[0].Shape))
	}
}
