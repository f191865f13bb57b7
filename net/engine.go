package net

import (
	"context"
	"slices"

	"go.yaml.in/yaml/v3"

	"sluice/pipeline/config"
)

// An Engine is memory and arithmetic on one device. Its layout is private; at
// the border (Upload, Download, Host) activations are NCHW and weights OIHW.
//
// Ops are named (outputs, inputs, geometry). They are issued in order and may
// run later; the first error sticks, makes what follows a no-op, and is returned
// by Sync. An Engine is used from one goroutine, but for Input.Load.
type Engine interface {
	// Name says what it is, e.g. "cpu (generic, 2 threads)".
	Name() string
	// Size is how many bytes Alloc would take for specs. It allocates nothing.
	Size(specs []Spec) int64
	// Alloc makes tensors, filled with zeros. Called once for all tensors of a
	// network, so that those whose lifetimes do not meet can share memory.
	Alloc(specs []Spec) ([]*Tensor, error)
	// Upload copies src (NCHW or OIHW, dst.Shape.Len() floats) to dst.
	Upload(dst *Tensor, src []float32)
	// Download copies src to dst (NCHW or OIHW) and waits for it.
	Download(dst []float32, src *Tensor)
	// NewInput makes one of the two places that a batch is loaded into while the
	// other computes.
	NewInput(spec InputSpec) (Input, error)
	// Host runs f over copies of the inputs and outputs in host memory (NCHW or
	// OIHW), and uploads the outputs after it: for layers made of Go functions.
	Host(outs, ins []*Tensor, f func(outs, ins [][]float32))
	// Begin starts a step: ops issued after it stop soon after ctx is done, and
	// Sync then returns its cause. It clears a cancellation of a step before, and
	// nothing else.
	Begin(ctx context.Context)
	// Sync waits for all ops and returns the first error.
	Sync() error
	Close() error
	Ops
}

// Ops is the closed set of operations that an engine computes. Every output is
// overwritten, never added to (but see CopyChannels). A nil dx means that it is not wanted,
// nil dw and db that neither is. Gradients
// are of the mean loss of the batch: the 1/N is in SoftmaxLossGrad.
type Ops interface {
	// Conv is y = act(x * w + b), cross-correlation with zero padding; w is
	// O x I/groups x size x size.
	Conv(y, x, w, b *Tensor, g Conv)
	// ConvGrad is the backward pass of Conv. It may change dy.
	ConvGrad(dx, dw, db, dy, y, x, w *Tensor, g Conv)
	// Dense is y = act(w x + b) with x flattened in C, H, W order; w is
	// O x C x H x W of its input.
	Dense(y, x, w, b *Tensor, act Activation)
	// DenseGrad is the backward pass of Dense. It may change dy.
	DenseGrad(dx, dw, db, dy, y, x, w *Tensor, act Activation)
	// MaxPool takes the greatest element of each window (padding never wins; the
	// first in row order among equals; NaN wins) and leaves in arg (Kind Index,
	// y's shape; nil outside training) where it was.
	MaxPool(y, arg, x *Tensor, g Pool)
	// MaxPoolGrad adds each dy to the place that arg names.
	MaxPoolGrad(dx, dy, arg *Tensor, g Pool)
	// AvgPool is the mean of each window, see Pool.
	AvgPool(y, x *Tensor, g Pool)
	// AvgPoolGrad adds to each place of dx its share of the dy of every window that
	// holds it. It may change dy.
	AvgPoolGrad(dx, dy *Tensor, g Pool)
	// LRN is local response normalisation across channels, see LRN. Its backward
	// pass makes the denominators anew from x: they are as large as an activation,
	// and take about a hundredth of a training step of alexnet to compute.
	LRN(y, x *Tensor, g LRN)
	LRNGrad(dx, dy, x *Tensor, g LRN)
	// Activate is y = act(x), for an activation that does not follow a convolution or
	// a dense layer at once. y may be x.
	Activate(y, x *Tensor, act Activation)
	// ActivateGrad is dx = dy times the slope of the activation that gave y. dx may
	// be dy.
	ActivateGrad(dx, dy, y *Tensor, act Activation)
	// Dropout is y = x * mask, the mask (0 or 1/keep) a pure function of key and
	// the element's place in NCHW order, see DropoutMask. It is its own backward
	// pass. y and x may be the same tensor.
	Dropout(y, x *Tensor, keep float32, key RandomKey)
	// Copy is y = x.
	Copy(y, x *Tensor)
	// CopyChannels is y's channels to..to+n-1 = x's channels from..from+n-1, for
	// maps alike in all but their channels. The other channels of y stay.
	CopyChannels(y, x *Tensor, to, from, n int)
	// Add is y = a + b, of maps or of parameters. y may be a or b.
	Add(y, a, b *Tensor)
	// SoftmaxLoss gives prob = softmax(x) over channels, and a row (1 x N each)
	// of loss = -sum_c q[c] log prob[c] and rank = how many classes come before the label
	// (greater logit, or equal with a lower index; a NaN logit comes before all).
	// A label below zero is no label: loss 0, rank the number of classes. q is 1 at
	// the label and 0 elsewhere, and a smoothing of s (0 <= s < 1) makes of it
	// (1-s) q + s/classes.
	SoftmaxLoss(prob, loss, rank, x, labels *Tensor, smoothing float32)
	// SoftmaxLossGrad is dx = (prob - q) / N, zero for rows without label; N is the
	// batch size of the tensor, and q that of SoftmaxLoss.
	SoftmaxLossGrad(dx, prob, labels *Tensor, smoothing float32)
	// Norm is out[at] = |x|, the square root of the sum of squares of a parameter or
	// a gradient, summed in float64 in an order that its shape decides. out is a
	// Vector, and keeps its other elements.
	Norm(out *Tensor, at int, x *Tensor)
	// Scale is y = x * by, of parameters or gradients, held within -limit and limit;
	// limit 0 is none. y may be x.
	Scale(y, x *Tensor, by, limit float32)
	// Peaks is out[at+c] = the greatest x of channel c over all images and places;
	// out is a Vector, and keeps its other elements. A ReLU whose peak is 0 is dead.
	Peaks(out *Tensor, at int, x *Tensor)
	// SGD is one step of gradient descent with momentum, see SGD.Factors.
	SGD(w, v, dw *Tensor, s SGD)
}

// Kind says how a tensor is used, which decides its layout.
type Kind int

// The kinds of tensor.
const (
	Map    Kind = iota // N x C x H x W, also its gradient
	Filter             // OIHW weights of a convolution, gradient, momentum
	Matrix             // O x (C x H x W) weights of a dense layer, gradient, momentum
	Vector             // 1 x C x 1 x 1: a bias; 1 x N x 1 x 1: labels, losses, ranks
	Index              // the shape of a pooled activation; what it holds is private
)

// Spec says what a tensor is for, so that an engine can choose its layout and
// place before anything is allocated.
type Spec struct {
	Name  string
	Shape Shape
	Kind  Kind
	// Halo is the zero border around H and W that its widest consumer reads.
	Halo int
	// Groups of the convolution that a Filter belongs to (0 or 1: none).
	Groups int
	// From and To are the first and last op of a step between which its contents
	// matter, so that tensors can share memory. To < 0: for ever.
	From, To int
}

// Tensor is an allocated Spec. Mem is private to the engine that made it.
type Tensor struct {
	Spec
	Mem any
}

// Activation is a function fused into the end of conv and dense.
type Activation int

// The activations.
const (
	None Activation = iota
	ReLU
	Tanh
)

// Conv is the geometry of a convolution. Groups 0 means 1.
type Conv struct {
	Size, Stride, Pad, Groups int
	Act                       Activation
}

// Pool is the geometry of a pooling. Ceil keeps a last window that reaches over
// the border (it must begin inside the image or the padding before it).
// CountPad, of means alone: a mean counts the window's places in the padding (but
// not what reaches over that, too); without it, those in the image alone.
type Pool struct {
	Size, Stride, Pad int
	Ceil, CountPad    bool
}

// LRN is local response normalisation (paper section 3.3):
//
//	b_i = a_i / (K + Alpha * sum_{j in window of Size around i} a_j^2)^Beta
//
// Alpha is per term (Caffe's alpha divided by its size). With Groups > 1 a
// window does not reach over the border of its group of channels.
type LRN struct {
	Size           int
	K, Alpha, Beta float32
	Groups         int
}

// SGD holds the numbers of one update of one parameter.
type SGD struct {
	LR, Momentum, Decay float32
	Form                MomentumForm
}

// MomentumForm is what momentum remembers. The forms differ where the learning
// rate changes: what PaperMomentum remembers of steps at the old rate stays as
// large as it was.
type MomentumForm int

// The forms, with g = dw + decay*w:
const (
	PaperMomentum    MomentumForm = iota // v = momentum*v - lr*g, w = w + v (the paper, cuda-convnet, Caffe)
	TorchMomentum                        // v = momentum*v - g, w = w + lr*v (PyTorch, whose buffer is -v)
	NesterovMomentum                     // the same v, w = w + lr*(momentum*v - g) (PyTorch's nesterov)
)

var momentumForms = []string{PaperMomentum: "paper", TorchMomentum: "torch", NesterovMomentum: "nesterov"}

func (f MomentumForm) String() string { return momentumForms[f] }

// UnmarshalConfig reads paper, torch or nesterov.
func (f *MomentumForm) UnmarshalConfig(d *config.Decoder, n *yaml.Node) {
	if word, ok := d.Word(n, momentumForms...); ok {
		*f = MomentumForm(slices.Index(momentumForms, word))
	}
}

// MarshalYAML gives the word.
func (f MomentumForm) MarshalYAML() (any, error) { return f.String(), nil }

// ConfigType says what the YAML takes.
func (MomentumForm) ConfigType() string { return "paper, torch or nesterov" }

// Factors says what every form computes:
//
//	v' = momentum*v - decay*w - rate*dw
//	w' = w + (ahead*v' - back*v)
func (s SGD) Factors() (momentum, decay, rate, ahead, back float32) {
	switch s.Form {
	case TorchMomentum:
		return s.Momentum, s.Decay, 1, s.LR, 0
	case NesterovMomentum: // momentum*v' - g is (1+momentum)*v' - momentum*v
		return s.Momentum, s.Decay, 1, s.LR * (1 + s.Momentum), s.LR * s.Momentum
	}
	return s.Momentum, s.Decay * s.LR, s.LR, 1, 0
}

// InputSpec says how a batch of uint8 images becomes the first activation:
// x = (pixel - Mean + shift) * Scale a channel, with zeros around.
type InputSpec struct {
	N, H, W                  int // of the images in a batch (N at most)
	Top, Bottom, Left, Right int // padding, in pixels
	Mean, Scale              [3]float32
	// MeanImage, unless nil, takes the place of Mean: what is subtracted from a pixel
	// is the mean at its place on the canvas, see ImageBatch.
	MeanImage *MeanImage
	BGR       bool // channel order of the tensor; the batch is RGB
	Halo      int
}

// MeanImage is the mean of the images that a network is trained on. One of
// 1 x 1 is the mean of their channels.
type MeanImage struct {
	H, W   int
	Pixels []float32 // H x W x 3, RGB, in levels
}

// Shape is the shape of the tensor that an Input gives.
func (s InputSpec) Shape() Shape {
	return Shape{s.N, 3, s.H + s.Top + s.Bottom, s.W + s.Left + s.Right}
}

// ImageBatch is a batch on the host, ready to be loaded.
type ImageBatch struct {
	N      int       // rows; rows of the tensor beyond it become zero, with label -1
	Pixels []byte    // N x H x W x 3, RGB
	Shift  []float32 // N x 3, RGB, in pixel levels; nil for none
	Labels []int32   // N
	// Origin (N x 2: x, y) is where on its canvas an image was cut out, before it was
	// mirrored where Flip says so (N; nil for nowhere). With a mean image, whose size
	// is the canvas's, pixel (x, y) of an image of W is over the canvas's
	// (Origin x + x, Origin y + y), or (Origin x + W-1-x, Origin y + y) if mirrored.
	Origin []int32
	Flip   []bool
	// Release is called once when nothing above is needed any more, perhaps from
	// another goroutine; nil for nothing.
	Release func()
}

// Input is a place that a batch is loaded into while another computes.
type Input interface {
	// Load starts loading b. It must not be called while ops that read Tensors
	// are still to run. If it fails it has called b.Release.
	Load(b ImageBatch) error
	// Tensors waits for Load and gives the images and the labels (1 x N).
	Tensors() (x, labels *Tensor, err error)
	// N is how many rows were loaded.
	N() int
	Close() error
}
