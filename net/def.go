package net

// Def is a network as the YAML says it: a preset by name, a preset with
// options, or a list of layers:
//
//	net: alexnet
//	net: {alexnet_small: {}}
//	net: {input: {mean: [123, 117, 104]}, layers: [{conv: {name: conv1, out: 96, size: 11, stride: 4}}, relu, ...]}
type Def struct{ def }

type def struct{}

// Preset is the Def of a registered preset with its default options; it panics
// if there is none of that name. For tests and programs.
func Preset(name string) Def { panic("skeleton") }

// Plan lays the network out for batches of n images of h x w pixels. classes is
// the default width of the last dense layer; 0 leaves the preset's own (1000).
// It allocates nothing.
func (d Def) Plan(n, h, w, classes int) (*NetPlan, error) { panic("skeleton") }
