package net

import (
	"fmt"
	"slices"
	"strings"

	"sluice/pipeline/config"
)

// Until is the part of the network that computes the layers of these names, for
// inference: what none of them needs is left out, the loss too if it is not
// named. Their activations stay until the next Forward, see Network.Activation.
// The plan itself is as it was.
func (p *NetPlan) Until(names ...string) (*NetPlan, error) {
	if len(names) == 0 {
		return nil, fmt.Errorf("no layer is named; the network has %s", strings.Join(p.names(), ", "))
	}
	needed, kept := make([]bool, len(p.Layers)), map[string]bool{}
	for _, name := range names {
		at := p.find(name)
		if at < 0 {
			return nil, p.unknown(name)
		}
		kept[name], needed[at] = true, true
	}
	// What a layer reads comes before it.
	for i := len(p.Layers) - 1; i >= 0; i-- {
		for _, in := range p.Layers[i].inputs {
			if needed[i] && in >= 0 {
				needed[in] = true
			}
		}
	}
	part := &NetPlan{Input: p.Input, MeanFrom: p.MeanFrom, meanGiven: p.meanGiven, Classes: p.Classes, kept: kept, left: map[string]bool{}}
	place := make([]int, len(p.Layers))
	for i, l := range p.Layers {
		if !needed[i] {
			for _, s := range l.Plan.Params {
				part.left[l.Name+"."+s.Name] = true
			}
			continue
		}
		place[i] = len(part.Layers)
		l.inputs = slices.Clone(l.inputs)
		for j, in := range l.inputs {
			if in >= 0 {
				l.inputs[j] = place[in]
			}
		}
		part.Layers = append(part.Layers, l)
		for _, s := range l.Plan.Params {
			part.Params += s.Shape.Len()
		}
		part.MACs += l.Plan.MACs / int64(p.Input.N)
	}
	part.Input.Halo = part.halo(-1)
	return part, nil
}

// Out is the shape of a layer's output, C x H x W an image.
func (p *NetPlan) Out(name string) (Shape, error) {
	at := p.find(name)
	if at < 0 {
		return Shape{}, p.unknown(name)
	}
	return p.Layers[at].Plan.Out, nil
}

// Logits names the layer that the loss reads: its outputs before the softmax. It
// is empty for a part without the loss.
func (p *NetPlan) Logits() (logits, loss string) {
	for _, l := range p.Layers {
		if _, ok := l.Layer.(Loss); ok && l.inputs[0] >= 0 {
			return p.Layers[l.inputs[0]].Name, l.Name
		}
	}
	return "", ""
}

func (p *NetPlan) find(name string) int {
	return slices.IndexFunc(p.Layers, func(l LayerPlan) bool { return l.Name == name })
}

func (p *NetPlan) unknown(name string) error {
	names := p.names()
	if near, ok := config.Nearest(name, names); ok {
		return fmt.Errorf("there is no layer %q; did you mean %q?", name, near)
	}
	return fmt.Errorf("there is no layer %q; the network has %s", name, strings.Join(names, ", "))
}

func (p *NetPlan) names() []string {
	names := make([]string, len(p.Layers))
	for i, l := range p.Layers {
		names[i] = l.Name
	}
	return names
}

// Activation appends the output of a layer for the first rows images of the last
// Forward to dst, C x H x W numbers each: after the activation, if one is fused
// into the layer. The network must be of a plan that keeps it, see
// NetPlan.Until. Errors of the engine surface at Sync.
func (n *Network) Activation(dst []float32, name string, rows int) ([]float32, error) {
	at := n.plan.find(name)
	if at < 0 {
		return dst, n.plan.unknown(name)
	}
	l := &n.layers[at]
	if !n.plan.kept[name] && !l.loss {
		return dst, fmt.Errorf("the output of layer %q is not kept: the memory may hold another's by now", name)
	}
	y := l.frame.Y
	if rows < 0 || rows > n.loaded {
		return dst, fmt.Errorf("%d rows of layer %q are wanted, and the last batch had %d", rows, name, n.loaded)
	}
	// Whole, as an engine gives it: a short batch is the last one only.
	from := len(dst)
	dst = slices.Grow(dst, y.Shape.Len())[:from+y.Shape.Len()]
	n.engine.Download(dst[from:], y)
	return dst[:from+rows*y.Shape.Image()], nil
}
