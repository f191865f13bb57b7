package net

import (
	"slices"
	"time"
)

// Pass is one of the things that a step does to a layer.
type Pass int

// The passes.
const (
	ForwardPass Pass = iota
	BackwardPass
	UpdatePass // of one parameter
)

// String is forward, backward or update.
func (p Pass) String() string { return [...]string{"forward", "backward", "update"}[p] }

// Watch has f called after each pass of each layer, by its place in the plan, when
// the engine has done all of it, and told when it began; nil is nobody. It is for
// measuring: engines that work ahead of their caller have to wait.
func (n *Network) Watch(f func(layer int, p Pass, began time.Time)) { n.watch = f }

// begins is the time, if anybody watches.
func (n *Network) begins() (t time.Time) {
	if n.watch != nil {
		t = time.Now()
	}
	return t
}

func (n *Network) did(layer int, p Pass, began time.Time) {
	if n.watch == nil {
		return
	}
	if n.engine.Sync() == nil { // else the step's own Sync says it
		n.watch(layer, p, began)
	}
}

// Work is the multiply-adds that each pass of a layer takes for a whole batch.
// Backward is the gradients of the layer's input and of its weights, each as much
// as forward, as far as a network that trains computes them.
type Work struct{ Forward, Backward int64 }

// Work is that of every layer, in training or only for inference.
func (p *NetPlan) Work(train bool) []Work {
	t := p.tensors(train)
	work := make([]Work, len(p.Layers))
	for i, l := range p.Layers {
		has := func(at int) bool { return at >= 0 }
		work[i].Forward = l.Plan.MACs
		if slices.ContainsFunc(t.layers[i].dx, has) {
			work[i].Backward += l.Plan.MACs
		}
		if slices.ContainsFunc(t.layers[i].dw, has) {
			work[i].Backward += l.Plan.MACs
		}
	}
	return work
}
