package net

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"sluice/pipeline/config"
)

// InputName is what a layer's From calls the batch.
const InputName = "input"

// Graph is a network as a list of named layers.
type Graph struct {
	Input InputOptions
	// Fit says what to pad images of h x w with, or which sizes work; nil stands
	// for Input.Pad at every size.
	Fit    func(h, w int) (Padding, error)
	Layers []Node
	// Classes is the number of classes where nothing else says it; 0: none.
	Classes int
}

// Node is one layer of a Graph.
type Node struct {
	Name  string   // left out: the type and a number, "conv1"
	From  []string // left out: the node before, or the batch
	Type  string   // as registered; left out: found by the layer's Go type
	Layer Layer
}

// nodeError is a mistake in one layer of a graph.
type nodeError struct {
	at   int // in Graph.Layers
	name string
	err  error
}

func (e *nodeError) Error() string { return fmt.Sprintf("layer %s: %s", e.name, e.err) }
func (e *nodeError) Unwrap() error { return e.err }

// vertex is a Node whose name, type and inputs are known.
type vertex struct {
	at    int // in Graph.Layers
	name  string
	typ   string
	layer Layer
	from  []string
	in    []int // vertices in running order; -1 is the batch
}

func (v *vertex) errorf(format string, args ...any) error {
	return &nodeError{v.at, v.name, fmt.Errorf(format, args...)}
}

// order names the layers, joins them, and puts them into an order in which each
// comes after what it reads: the order of the list where that is one. The loss
// is last. Every mistake is found: the error is joined of nodeErrors.
func (g Graph) order() ([]*vertex, error) {
	if len(g.Layers) == 0 {
		return nil, errors.New("the network has no layers")
	}
	list := g.named()
	index := map[string]int{}
	var errs []error
	for i, v := range list {
		switch first, taken := index[v.name]; {
		case v.name == InputName:
			errs = append(errs, v.errorf("the name %q means the batch; choose another", InputName))
		case !plainName(v.name):
			errs = append(errs, v.errorf("the name %q may have only letters, digits, - and _", v.name))
		case taken:
			errs = append(errs, v.errorf("the name %q is taken by layer %d of the list", v.name, first+1))
		default:
			index[v.name] = i
		}
	}
	readers := make([]int, len(list))
	for i, v := range list {
		v.from = slices.Clone(g.Layers[i].From)
		if len(v.from) == 0 {
			v.from = []string{InputName}
			if i > 0 {
				v.from[0] = list[i-1].name
			}
		}
		for _, name := range v.from {
			at, ok := index[name]
			switch {
			case name == InputName:
				v.in = append(v.in, -1)
			case !ok:
				errs = append(errs, v.errorf("from: there is no layer %q%s", name, suggest(name, index)))
			default:
				readers[at]++
				v.in = append(v.in, at)
			}
		}
	}
	if len(errs) == 0 { // with a name missing, what reads what is not known
		errs = outputs(list, readers)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return sorted(list)
}

// named gives every layer a name: its own, or its type and the next free number.
func (g Graph) named() []*vertex {
	taken := map[string]bool{}
	for _, n := range g.Layers {
		taken[n.Name] = true
	}
	count := map[string]int{}
	list := make([]*vertex, len(g.Layers))
	for i, n := range g.Layers {
		v := &vertex{at: i, name: n.Name, typ: cmp.Or(n.Type, typeOf(n.Layer)), layer: n.Layer}
		base := v.typ[strings.LastIndex(v.typ, "_")+1:] // max_pool: pool1
		count[base]++
		if v.name == "" {
			for taken[fmt.Sprint(base, count[base])] {
				count[base]++
			}
			v.name = fmt.Sprint(base, count[base])
			taken[v.name] = true
		}
		list[i] = v
	}
	return list
}

// typeOf is the name that a layer is registered under, if its options are the
// layer itself; otherwise that of its Go type.
func typeOf(l Layer) string {
	t := reflect.TypeOf(l)
	for _, name := range Layers.Names() {
		if reflect.TypeOf(Layers.Choice(name)) == t {
			return name
		}
	}
	return strings.ToLower(strings.TrimSuffix(t.Name(), "Layer"))
}

func plainName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	})
}

func suggest(name string, index map[string]int) string {
	names := []string{InputName}
	for n := range index {
		names = append(names, n)
	}
	slices.Sort(names)
	if near, ok := config.Nearest(name, names); ok {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

// outputs holds a graph to one loss, at its end, that everything leads to.
func outputs(list []*vertex, readers []int) (errs []error) {
	loss := -1
	for i, v := range list {
		_, isLoss := v.layer.(Loss)
		switch {
		case isLoss && loss >= 0:
			errs = append(errs, v.errorf("is a second loss after %q; a network has one", list[loss].name))
		case isLoss && readers[i] > 0:
			errs = append(errs, v.errorf("is a loss, so no layer can read it"))
		case !isLoss && readers[i] == 0 && i < len(list)-1:
			errs = append(errs, v.errorf("no layer reads it; name it in a later layer's from, or take it out"))
		case !isLoss && readers[i] == 0:
			errs = append(errs, v.errorf("is the end of the network, and is no loss: put softmax after it"))
		}
		if isLoss && loss < 0 {
			loss = i
		}
	}
	return errs
}

// sorted puts vertices into running order, and turns their inputs into places in
// it.
func sorted(list []*vertex) ([]*vertex, error) {
	place := make([]int, len(list))
	for i := range place {
		place[i] = -1
	}
	ready := func(v *vertex) bool {
		return !slices.ContainsFunc(v.in, func(i int) bool { return i >= 0 && place[i] < 0 })
	}
	var run []*vertex
	for len(run) < len(list) {
		next := slices.IndexFunc(list, func(v *vertex) bool { return place[v.at] < 0 && ready(v) })
		if next < 0 {
			return nil, cycle(list, place)
		}
		place[next] = len(run)
		run = append(run, list[next])
	}
	for _, v := range run {
		for i, in := range v.in {
			if in >= 0 {
				v.in[i] = place[in]
			}
		}
	}
	return run, nil
}

// cycle names the layers that wait for each other.
func cycle(list []*vertex, place []int) error {
	at := slices.Index(place, -1)
	seen := map[int]int{}
	var path []int
	for {
		if from, ok := seen[at]; ok {
			path = path[from:]
			break
		}
		seen[at] = len(path)
		path = append(path, at)
		// Something it reads is not placed, or it would have been placed itself.
		at = list[at].in[slices.IndexFunc(list[at].in, func(i int) bool { return i >= 0 && place[i] < 0 })]
	}
	first := slices.Min(path)
	var names []string
	for range path {
		names = append(names, list[first].name)
		first = path[(slices.Index(path, first)+1)%len(path)]
	}
	return list[first].errorf("reads its own output: %s from %s", strings.Join(names, " from "), names[0])
}
