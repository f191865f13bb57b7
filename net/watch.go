package net

import "slices"

// Pass is one of the things that a step does to a layer.
type Pass int

// The passes.
const (
	ForwardPass Pass = iota
	BackwardPass
	UpdatePass // of one parameter
)

// Watch has f called after each pass of each layer, by its place in the plan, when
// the engine has done all of it; nil is nobody. It is for measuring: engines that
// work ahead of their caller have to wait.
func (n *Network) Watch(f func(layer int, p Pass)) { n.watch = f }

func (n *Network) did(layer int, p Pass) {
	if n.watch == nil {
		return
	}
	if n.engine.Sync() == nil { // else the step's own Sync says it
		n.watch(layer, p)
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
