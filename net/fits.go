package net

import "fmt"

// This file is what engines ask before an op: whether its tensors fit each other. An
// error names the tensor, not the op. Tensors must not be nil, but where it says so.

// Expect says whether t, which is what of an op, has this kind and shape.
func (t *Tensor) Expect(what string, kind Kind, shape Shape) error {
	if t.Shape == shape && t.Kind == kind {
		return nil
	}
	return fmt.Errorf("%s %q is a %v of %v, but must be a %v of %v", what, t.Name, t.Kind, t.Shape, kind, shape)
}

// String is the kind's name.
func (k Kind) String() string {
	if k >= Map && k <= Index {
		return [...]string{"map", "filter", "matrix", "vector", "index"}[k]
	}
	return "tensor of unknown kind"
}

// FilterGroups is how many groups a filter's outputs are cut into, 1 for all else.
func (s Spec) FilterGroups() int {
	if s.Kind == Filter && s.Groups != 0 {
		return s.Groups
	}
	return 1
}

// first is the first error.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// ConvFits is for Conv, and for ConvGrad with db for b. b may be nil.
func ConvFits(y, x, w, b *Tensor, g Conv) error {
	groups := max(g.Groups, 1)
	s, o := x.Shape, w.Shape.N
	switch {
	case g.Size < 1 || g.Stride < 1 || g.Pad < 0 || g.Groups < 0 || g.Act < None || g.Act > Tanh:
		return fmt.Errorf("the geometry %+v makes no sense", g)
	case s.C%groups != 0 || o%groups != 0:
		return fmt.Errorf("%d channels of %q and %d of %q do not divide into %d groups", s.C, x.Name, o, w.Name, groups)
	case s.H+2*g.Pad < g.Size || s.W+2*g.Pad < g.Size:
		return fmt.Errorf("a window of %d with padding %d is larger than %q of %v", g.Size, g.Pad, x.Name, s)
	case w.FilterGroups() != groups:
		return fmt.Errorf("%q was made for %d groups, not %d", w.Name, w.FilterGroups(), groups)
	}
	out := Shape{s.N, o, (s.H+2*g.Pad-g.Size)/g.Stride + 1, (s.W+2*g.Pad-g.Size)/g.Stride + 1}
	err := first(x.Expect("x", Map, s), w.Expect("w", Filter, Shape{o, s.C / groups, g.Size, g.Size}), y.Expect("y", Map, out))
	if err == nil && b != nil {
		err = b.Expect("b", Vector, Shape{1, o, 1, 1})
	}
	return err
}

// DenseFits is for Dense, and for DenseGrad with db for b. b may be nil.
func DenseFits(y, x, w, b *Tensor, act Activation) error {
	if act < None || act > Tanh {
		return fmt.Errorf("there is no activation %d", act)
	}
	s, o := x.Shape, w.Shape.N
	err := first(x.Expect("x", Map, s), w.Expect("w", Matrix, Shape{o, s.C, s.H, s.W}), y.Expect("y", Map, Shape{s.N, o, 1, 1}))
	if err == nil && b != nil {
		err = b.Expect("b", Vector, Shape{1, o, 1, 1})
	}
	return err
}

// Pooled is the size that pooling makes of n along one side.
func (g Pool) Pooled(n int) int {
	out := (n+2*g.Pad-g.Size)/g.Stride + 1
	if g.Ceil {
		out = (n+2*g.Pad-g.Size+g.Stride-1)/g.Stride + 1
		if (out-1)*g.Stride >= n+g.Pad {
			out--
		}
	}
	return out
}

// PoolFits is for all pooling, of windows of at most so many places a side: y and x are
// outputs and inputs, or their gradients.
func PoolFits(y, x *Tensor, g Pool, widest int) error {
	s := x.Shape
	switch {
	case g.Size < 1 || g.Stride < 1 || g.Pad < 0 || g.Pad >= g.Size || g.Size > widest:
		return fmt.Errorf("the geometry %+v makes no sense (windows of 1 to %d, padding less than the window)", g, widest)
	case !g.Ceil && (s.H+2*g.Pad < g.Size || s.W+2*g.Pad < g.Size):
		return fmt.Errorf("a window of %d with padding %d is larger than %q of %v", g.Size, g.Pad, x.Name, s)
	}
	return first(x.Expect("x", Map, s), y.Expect("y", Map, Shape{s.N, s.C, max(1, g.Pooled(s.H)), max(1, g.Pooled(s.W))}))
}

// LRNFits is for LRN and LRNGrad; others are as large as x.
func LRNFits(g LRN, x *Tensor, others ...*Tensor) error {
	if g.Size < 1 || g.Groups < 0 || x.Shape.C%max(g.Groups, 1) != 0 {
		return fmt.Errorf("the geometry %+v makes no sense for the %d channels of %q", g, x.Shape.C, x.Name)
	}
	return MapsFit(x, others...)
}

// MapsFit says whether all are maps of one shape.
func MapsFit(x *Tensor, others ...*Tensor) error {
	err := x.Expect("x", Map, x.Shape)
	for _, t := range others {
		err = first(err, t.Expect("a tensor beside x", Map, x.Shape))
	}
	return err
}

// ChannelsFit is for CopyChannels.
func ChannelsFit(y, x *Tensor, to, from, n int) error {
	s := x.Shape
	s.C = y.Shape.C
	if err := first(x.Expect("x", Map, x.Shape), y.Expect("y", Map, s)); err != nil {
		return err
	}
	if n < 1 || min(to, from) < 0 || n > y.Shape.C-to || n > x.Shape.C-from {
		return fmt.Errorf("%d channels from %d on of %q of %v do not fit from %d on into %q of %v", n, from, x.Name, x.Shape, to, y.Name, y.Shape)
	}
	return nil
}

// ParametersFit says whether all are parameters, or gradients or momentum of such, of one
// shape, kind and grouping.
func ParametersFit(x *Tensor, others ...*Tensor) error {
	if x.Kind == Map || x.Kind == Index {
		return fmt.Errorf("%q is a %v, not a parameter's", x.Name, x.Kind)
	}
	for _, t := range others {
		if err := t.Expect("the other", x.Kind, x.Shape); err != nil {
			return err
		}
		if t.FilterGroups() != x.FilterGroups() {
			return fmt.Errorf("%q has %d groups, %q %d", x.Name, x.FilterGroups(), t.Name, t.FilterGroups())
		}
	}
	return nil
}

// IntoFits says whether n numbers fit into the vector out from place at on.
func IntoFits(out *Tensor, at, n int) error {
	if out.Kind != Vector || at < 0 || n > out.Shape.Len()-at {
		return fmt.Errorf("%d numbers do not fit into the %v %q of %d from place %d on", n, out.Kind, out.Name, out.Shape.Len(), at)
	}
	return nil
}

// SoftmaxFits is for SoftmaxLoss, and for SoftmaxLossGrad with prob for x and dx for prob.
func SoftmaxFits(x *Tensor, smoothing float32, prob *Tensor) error {
	flat := Shape{x.Shape.N, x.Shape.C, 1, 1}
	return first(SmoothingFits(smoothing), x.Expect("x", Map, flat), prob.Expect("a tensor beside x", Map, flat))
}

// SmoothingFits says whether labels can be smoothed so much.
func SmoothingFits(smoothing float32) error {
	if !(smoothing >= 0 && smoothing < 1) {
		return fmt.Errorf("a smoothing of %g is not from 0 to below 1", smoothing)
	}
	return nil
}

// RowFits says whether a row has a number for each image of x.
func RowFits(x, row *Tensor) error {
	return row.Expect("a row", Vector, Shape{1, x.Shape.N, 1, 1})
}

// Check says whether an input can be made.
func (s InputSpec) Check() error {
	if s.N < 1 || s.H < 1 || s.W < 1 || min(s.Top, s.Bottom, s.Left, s.Right, s.Halo) < 0 {
		return fmt.Errorf("the input %+v makes no sense", s)
	}
	if m := s.MeanImage; m != nil && (m.H < s.H || m.W < s.W || len(m.Pixels) != m.H*m.W*3) {
		return fmt.Errorf("a mean image of %dx%d with %d numbers is none of images of %dx%d", m.W, m.H, len(m.Pixels), s.W, s.H)
	}
	return nil
}

// Fits says whether a batch can be loaded.
func (s InputSpec) Fits(b ImageBatch) error {
	switch image := s.H * s.W * 3; {
	case b.N < 0 || b.N > s.N:
		return fmt.Errorf("a batch of %d images does not fit an input of %d", b.N, s.N)
	case len(b.Pixels) != b.N*image:
		return fmt.Errorf("%d images of %dx%d are %d bytes, the batch has %d", b.N, s.H, s.W, b.N*image, len(b.Pixels))
	case len(b.Labels) != b.N:
		return fmt.Errorf("a batch of %d images has %d labels", b.N, len(b.Labels))
	case b.Shift != nil && len(b.Shift) != 3*b.N:
		return fmt.Errorf("a batch of %d images has %d shifts, not three each", b.N, len(b.Shift))
	case s.MeanImage != nil && (len(b.Origin) != 2*b.N || b.Flip != nil && len(b.Flip) != b.N):
		return fmt.Errorf("a batch of %d images has %d numbers of origins and %d of mirroring, and a mean image needs them", b.N, len(b.Origin), len(b.Flip))
	}
	if m := s.MeanImage; m != nil {
		for i := range b.N {
			if x, y := int(b.Origin[2*i]), int(b.Origin[2*i+1]); x < 0 || y < 0 || x > m.W-s.W || y > m.H-s.H {
				return fmt.Errorf("the image of row %d was cut out at (%d, %d), which is not inside the mean image of %dx%d", i, x, y, m.W, m.H)
			}
		}
	}
	for i, l := range b.Labels {
		if l > 1<<24 {
			return fmt.Errorf("the label of row %d is %d", i, l)
		}
	}
	return nil
}
