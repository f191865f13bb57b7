package net

import (
	"fmt"

	"sluice/pipeline/config"
)

// A Layer is one node of a network. It is a plain value: what it keeps between
// Forward and Backward lives in the Frame.
type Layer interface {
	// Plan says what the layer makes of its inputs. It allocates nothing.
	Plan(in []Shape) (Plan, error)
	Forward(e Engine, f *Frame)
	// Backward fills f.DX (but for nil ones) and f.DW from f.DY, which it may
	// change.
	Backward(e Engine, f *Frame)
}

// Layers is the registry of layers that a YAML can name.
var Layers = config.NewRegistry[Layer]("layer")

// RegisterLayer makes a layer known to the YAML, see pipeline.RegisterSource.
func RegisterLayer[C any](name, doc string, defaults C, build func(C) (Layer, error)) {
	config.Add(Layers, name, doc, defaults, build)
}

// DefineLayer is RegisterLayer for a layer that is its own options, see pipeline.DefineSource.
func DefineLayer[C any, P interface {
	*C
	Layer
}](name, doc string, defaults C) {
	RegisterLayer(name, doc, defaults, func(c C) (Layer, error) { return P(&c), config.Check(P(&c)) })
}

// Plan is what a layer will need, before anything is allocated.
type Plan struct {
	Out    Shape
	Params []ParamSpec
	// Saved is what Forward leaves for Backward beyond its inputs and output: a
	// name within the layer, shape and kind.
	Saved []Spec
	// Halo is the zero border that Forward wants around its inputs.
	Halo int
	// KeepX and KeepY say that Backward reads the inputs, the output.
	KeepX, KeepY bool
	// MACs is the number of multiply-adds of one Forward over the whole batch.
	MACs int64
}

// ParamSpec is one trained tensor of a layer.
type ParamSpec struct {
	Name   string // within its layer: "weight", "bias"
	Shape  Shape  // a bias is 1 x C x 1 x 1
	Kind   Kind
	Groups int
	Init   Init
	LR     float32 // multiplies the learning rate; 1 is plain
	Decay  float32 // multiplies the weight decay; 1 is plain
}

// Init is how a parameter starts: normal with mean Value and deviation Std, or, with
// a Range, even between Value - Range and Value + Range.
type Init struct{ Value, Std, Range float32 }

// Frame holds the tensors of one layer for one step.
type Frame struct {
	X, DX []*Tensor // one for each input; a nil DX is not wanted
	Y, DY *Tensor
	W, DW []*Tensor // one for each parameter; nil DW are not wanted, all of them or none
	// Saved is as planned; its tensors are nil outside training, but for a Loss.
	Saved []*Tensor
	// Labels, for the loss layer (1 x N).
	Labels *Tensor
	Train  bool
	// Smoothing of the labels, for the loss layer; 0 outside training.
	Smoothing float32
	Key       RandomKey
}

// A Widener is a layer whose number of outputs may be left out: it becomes the
// number of classes. Widen gives the layer with n outputs; ok is false if it has
// a number of its own.
type Widener interface {
	Layer
	Widen(n int) (l Layer, ok bool)
}

// A Rectifier is a layer whose output may be that of a ReLU, so that a unit of it
// dies when its output is 0 for every image. Its Plan has KeepY.
type Rectifier interface {
	Layer
	Rectifies() bool
}

// A Loss is a layer that ends a network: Y holds probabilities, and Forward
// leaves in Saved[0] the loss and in Saved[1] the rank of each row (1 x N), see
// Ops.SoftmaxLoss. Its Backward needs no DY.
type Loss interface {
	Layer
	IsLoss()
}

// single is the shape of the one input that most layers take.
func single(in []Shape) (Shape, error) {
	if len(in) != 1 {
		return Shape{}, fmt.Errorf("takes one input, and has %d", len(in))
	}
	return in[0], nil
}

// PlanLike is the Plan of a layer whose output is as large as its one input, and which
// needs nothing else.
func PlanLike(in []Shape) (Plan, error) {
	s, err := single(in)
	return Plan{Out: s}, err
}

// image writes a shape without its N.
func image(s Shape) string { return fmt.Sprintf("%d x %d x %d", s.C, s.H, s.W) }

func atLeast(field string, value, least int) error {
	if value < least {
		return config.Fieldf(field, "must be at least %d, is %d", least, value)
	}
	return nil
}
