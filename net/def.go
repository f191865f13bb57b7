package net

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"go.yaml.in/yaml/v3"

	"sluice/pipeline/config"
)

// Presets is the registry of whole networks that a YAML can name.
var Presets = config.NewRegistry[Graph]("network preset")

// RegisterPreset makes a network known to the YAML, see pipeline.RegisterSource.
func RegisterPreset[C any](name, doc string, defaults C, build func(C) (Graph, error)) {
	config.Add(Presets, name, doc, defaults, build)
}

// Def is a network as the YAML says it: a preset by name, a preset with
// options, an input with a list of layers, or only the layers:
//
//	net: alexnet
//	net: {alexnet_small: {dropout: 0.3}}
//	net: {input: {mean: [123, 117, 104]}, layers: [{conv: {name: c1, out: 16, size: 5}}, max_pool, dense, softmax]}
//	net: [{conv: {out: 16, size: 5}}, max_pool, dense, softmax]
//
// Every layer may have, beside its own options, a name (left out: conv1, pool1,
// ...) and from: the name of the layer it reads, or a list of them ("input" is the
// batch; left out, it is the layer before).
type Def struct{ def }

type def struct {
	graph  Graph
	preset *config.Item[Graph]  // nil for a list
	layers []config.Item[Layer] // of a list that a YAML has
	place  *config.Decoder      // says where a mistake is; nil outside a YAML
	node   *yaml.Node           // of the whole, for mistakes in no layer
}

// Preset is the Def of a registered preset with its default options; it panics
// if there is none of that name. For tests and programs.
func Preset(name string) Def {
	item, err := Presets.New(name)
	if err != nil {
		panic(err)
	}
	return Def{def{graph: item.Value, preset: &item}}
}

// Def is the Def of a graph that Go code makes. It has a YAML form if a YAML can
// name all of its layers and it has no Fit.
func (g Graph) Def() Def { return Def{def{graph: g}} }

// Mean is what the network subtracts from its images.
func (d Def) Mean() Mean { return d.graph.Input.Mean }

// Plan lays the network out for batches of n images of h x w pixels. classes is
// the default width of the last dense layer; 0 leaves the preset's own (1000).
// It allocates nothing. Mistakes in a layer that a YAML has are a config.Errors
// with its line.
func (d Def) Plan(n, h, w, classes int) (*NetPlan, error) {
	if d.preset == nil && len(d.graph.Layers) == 0 {
		return nil, config.Fieldf("net", "is missing: name a preset, or list layers")
	}
	p, err := d.graph.plan(n, h, w, classes)
	if err != nil {
		return nil, d.placed(err)
	}
	return p, nil
}

// placed gives mistakes the lines that they are about.
func (d Def) placed(err error) error {
	if d.place == nil {
		return err
	}
	// A copy, since the decoder's own errors are those of reading the file.
	decoder := *d.place
	before, _ := decoder.Err().(config.Errors)
	d.report(&decoder, err)
	all, _ := decoder.Err().(config.Errors)
	return slices.DeleteFunc(all, func(e *config.Error) bool { return slices.Contains(before, e) })
}

func (d Def) report(to *config.Decoder, err error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range joined.Unwrap() {
			d.report(to, err)
		}
		return
	}
	ne, ok := errors.AsType[*nodeError](err)
	switch {
	case ok && ne.at < len(d.layers):
		item := d.layers[ne.at]
		item.Name = "layer " + ne.name
		item.Report(to, ne.err)
	case d.preset != nil:
		d.preset.Report(to, err)
	default:
		to.Report(d.node, err)
	}
}

// nodeOptions are the fields that every layer has in a YAML.
type nodeOptions struct {
	Name string `yaml:"name,omitempty" doc:"the layer's name; left out, its type and a number: conv1"`
	From names  `yaml:"from,omitempty" doc:"the layer it reads, or a list of them; input is the batch; left out, the layer before"`
}

// names is one name, or a list of them.
type names []string

func (s *names) UnmarshalConfig(d *config.Decoder, n *yaml.Node) {
	if n.Kind == yaml.SequenceNode {
		d.Decode(n, (*[]string)(s))
		return
	}
	var one string
	if d.Decode(n, &one) {
		*s = names{one}
	}
}

func (s names) MarshalYAML() (any, error) {
	if len(s) == 1 {
		return s[0], nil
	}
	return flow([]string(s))
}

// layerList is the value of layers.
type layerList []config.Item[Layer]

func (l *layerList) UnmarshalConfig(d *config.Decoder, n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		d.Errorf(n, "%s must be a list of layers, each a name or name: {options}", d.Subject())
		return
	}
	*l = nil
	for _, c := range n.Content {
		// A bad item keeps its place, so that the rest is understood as it stands.
		item, _ := Layers.DecodeWith(d, c, &nodeOptions{})
		*l = append(*l, item)
	}
}

func (l layerList) MarshalYAML() (any, error) { return []config.Item[Layer](l), nil }

// list is the form of a network that is no preset.
type list struct {
	Input  InputOptions `yaml:"input" doc:"how pixels become the first activation"`
	Layers layerList    `yaml:"layers" config:"required" doc:"the layers, in order"`
}

// UnmarshalConfig reads any of the forms.
func (d *Def) UnmarshalConfig(dec *config.Decoder, n *yaml.Node) {
	*d = Def{def{place: dec, node: n}}
	form := list{Input: defaultInput()}
	switch {
	case n.Kind == yaml.SequenceNode:
		if !dec.Decode(n, &form.Layers) {
			return
		}
	case has(n, "layers") || has(n, "input"):
		if !dec.Decode(n, &form) {
			return
		}
		if err := form.Input.check(); err != nil {
			dec.Report(value(n, "input"), err)
			return
		}
	default:
		if item, ok := Presets.Decode(dec, n); ok {
			d.preset, d.graph = &item, item.Value
		}
		return
	}
	d.layers = form.Layers
	d.graph.Input = form.Input
	for i, item := range d.layers {
		options := item.Common.(*nodeOptions)
		d.graph.Layers = append(d.graph.Layers, Node{Name: options.Name, From: options.From, Type: item.Name, Layer: item.Value})
		d.layers[i] = item
	}
	if _, err := d.graph.order(); err != nil {
		d.report(dec, err)
		return
	}
	// The names are those of the weights: say them in the resolved YAML.
	for _, v := range d.graph.named() {
		d.graph.Layers[v.at].Name = v.name
		d.layers[v.at].Common.(*nodeOptions).Name = v.name
	}
}

func has(n *yaml.Node, key string) bool { return value(n, key) != nil }

// value is what a mapping has under key, nil if nothing.
func value(n *yaml.Node, key string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// MarshalYAML gives the resolved form.
func (d Def) MarshalYAML() (any, error) {
	switch {
	case d.preset != nil:
		return *d.preset, nil
	case d.layers != nil:
		return list{Input: d.graph.Input, Layers: d.layers}, nil
	case len(d.graph.Layers) > 0:
		return d.graph.list()
	}
	return nil, nil
}

// list is the graph as a YAML says it.
func (g Graph) list() (list, error) {
	form := list{Input: g.Input}
	if g.Fit != nil {
		return form, errors.New("a network made by Go code that fits its padding to the images has no YAML form; register it as a preset")
	}
	for _, v := range g.named() {
		options := Layers.Choice(v.typ)
		switch t := reflect.TypeOf(options); {
		case t == reflect.TypeOf(v.layer):
			options = v.layer
		case t == nil || t.NumField() > 0:
			return form, fmt.Errorf("layer %s of type %T has no YAML form; register the network as a preset", v.name, v.layer)
		}
		form.Layers = append(form.Layers, config.Item[Layer]{
			Name: v.typ, Options: options, Common: &nodeOptions{Name: v.name, From: g.Layers[v.at].From}, Value: v.layer,
		})
	}
	return form, nil
}

// ConfigType says what the YAML takes.
func (Def) ConfigType() string { return "a preset, a preset with options, or {input, layers}" }

// Choice gives the options of a preset.
func (Def) Choice(name string) any { return Presets.Choice(name) }
