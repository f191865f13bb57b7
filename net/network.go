package net

import "context"

// NetPlan is a network whose shapes, parameters and memory are known; nothing
// is allocated yet.
type NetPlan struct {
	Input   InputSpec
	Classes []string // may be nil
	Layers  []LayerPlan
	Params  int   // trained numbers
	MACs    int64 // multiply-adds of one Forward of one image
}

// LayerPlan is one layer of a NetPlan.
type LayerPlan struct {
	Name, Type string
	From       []string // names of its inputs; "input" is the batch
	In         []Shape
	Layer      Layer
	Plan       Plan
}

// NamedTensor is a parameter on the host: name "conv1.weight", role "weight" or
// "momentum", data in OIHW; Dims are those of the file: (out, in) for a dense
// weight, (n) for a bias.
type NamedTensor struct {
	Name, Role string
	Dims       []int
	Data       []float32
}

// Stats sums a batch's results over its rows that have a label.
type Stats struct {
	Rows       int
	Loss       float64 // sum
	Top1, Top5 int
}

// Network is a NetPlan on an engine.
type Network struct{ impl }

// Specs lists every tensor that the network would allocate on an engine, in
// training or only for inference.
func (p *NetPlan) Specs(train bool) []Spec { panic("skeleton") }

// New allocates a network on an engine and initialises its parameters from seed.
func New(e Engine, p *NetPlan, seed uint64, train bool) (*Network, error) { panic("skeleton") }

// NewInput makes one of the two places for batches.
func (n *Network) NewInput() (Input, error) { panic("skeleton") }

// Forward computes the net on a loaded input. step keys dropout. Errors surface
// at Sync of the engine; an error here is the Input's.
func (n *Network) Forward(ctx context.Context, in Input, step int, train bool) error {
	panic("skeleton")
}

// Backward computes every gradient of the mean loss of the Forward before it.
func (n *Network) Backward(ctx context.Context) { panic("skeleton") }

// Update applies the paper's SGD rule to every parameter.
func (n *Network) Update(s SGD) { panic("skeleton") }

// Stats waits for the last Forward and sums its losses and hits over the rows loaded.
func (n *Network) Stats() (Stats, error) { panic("skeleton") }

// Probabilities appends the first rows rows of the last Forward's softmax to dst.
func (n *Network) Probabilities(dst []float32, rows int) []float32 { panic("skeleton") }

// Snapshot copies every weight (and momentum, if asked) to the host, reusing dst.
func (n *Network) Snapshot(dst []NamedTensor, momentum bool) ([]NamedTensor, error) {
	panic("skeleton")
}

// Load sets parameters by name and role; it says what is missing, unknown or of
// another shape.
func (n *Network) Load(tensors []NamedTensor) error { panic("skeleton") }

// Plan is what the network was made from.
func (n *Network) Plan() *NetPlan { panic("skeleton") }

type impl struct{}
