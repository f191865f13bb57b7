package net

import (
	"errors"
	"iter"
	"math"
)

// What happens to gradients between Backward and Update, and what can be seen of
// a network that learns.

// trained gives the parameters that learn.
func (n *Network) trained() iter.Seq[*param] {
	return func(yield func(*param) bool) {
		for i := range n.params {
			if q := &n.params[i]; q.v != nil && !yield(q) {
				return
			}
		}
	}
}

// SmoothLabels makes training of the Forwards to come learn from labels that are
// smoothed by s, 0 <= s < 1, see Ops.SoftmaxLoss. The losses of those Forwards are
// of smoothed labels too; those of Forwards that do not train are plain.
func (n *Network) SmoothLabels(s float32) { n.smoothing = s }

// Accumulate adds the gradients of the last Backward to those of the Backwards
// before it since the last Average. The plan must have room (NetPlan.Accumulate).
func (n *Network) Accumulate() {
	if !n.plan.Accumulate {
		panic("net: Accumulate of a network planned without")
	}
	for q := range n.trained() {
		if n.summed == 0 {
			n.engine.Copy(q.sum, q.dw)
		} else {
			n.engine.Add(q.sum, q.sum, q.dw)
		}
	}
	n.summed++
}

// Average makes the gradients the mean of those that were added up, and forgets
// them. Each of the batches counts the same, also one with fewer labelled rows.
func (n *Network) Average() {
	for q := range n.trained() {
		n.engine.Scale(q.dw, q.sum, float32(1/float64(n.summed)), 0)
	}
	n.summed = 0
}

// GradientNorm is the Euclidean norm of all gradients together, as they are before
// the update. Where it is not finite, bad names the first parameter that it comes
// from. It does not depend on the number of threads.
func (n *Network) GradientNorm() (norm float64, bad string, err error) {
	if !n.train {
		return 0, "", errors.New("a network made for inference has no gradients")
	}
	i := 0
	for q := range n.trained() {
		n.engine.Norm(n.norms, i, q.dw)
		i++
	}
	all, err := n.vector(n.norms)
	if err != nil {
		return 0, "", err
	}
	i = 0
	sum := 0.
	for q := range n.trained() {
		v := float64(all[i])
		if bad == "" && (math.IsNaN(v) || math.IsInf(v, 0)) {
			bad = q.name
		}
		sum += v * v
		i++
	}
	return math.Sqrt(sum), bad, nil
}

// ScaleGradients multiplies every gradient, and then holds each number of it
// within -limit and limit; limit 0 is none.
func (n *Network) ScaleGradients(by, limit float32) {
	for q := range n.trained() {
		n.engine.Scale(q.dw, q.dw, by, limit)
	}
}

// LayerState is how a layer that learns fares. What a layer has not is NaN.
type LayerState struct {
	Layer string
	// Dead is the fraction of a ReLU's units (channels, in a convolution) that were 0
	// at every place of every image of the last Forward.
	Dead float64
	// Update is the norm of the last update over that of the weights (in Nesterov's
	// form without the part of the weight decay in it, which is small), and Gradient
	// the norm of the gradient.
	Update, Gradient float64
}

// Peaks looks at the activations of the last Forward that trained: between it and
// its Backward, as their memory is another's later. Layers reads what it saw.
func (n *Network) Peaks() {
	for i := range n.layers {
		if l := &n.layers[i]; l.peaks >= 0 {
			n.engine.Peaks(n.peaks, l.peaks, l.frame.Y)
		}
	}
}

// Layers gives the state of every layer that learns or is watched, in their order:
// after Peaks, GradientNorm and Update of one step. It may overwrite the gradients.
func (n *Network) Layers() ([]LayerState, error) {
	count := 0
	for range n.trained() {
		count++
	}
	i := count
	for q := range n.trained() {
		if m := n.last.Momentum; n.last.Form == NesterovMomentum && m > 0 {
			n.engine.Scale(q.dw, q.dw, -1/m, 0) // the step is lr*(m*v - dw)
			n.engine.Add(q.dw, q.dw, q.v)
			n.engine.Norm(n.norms, i, q.dw)
		} else {
			n.engine.Norm(n.norms, i, q.v)
		}
		n.engine.Norm(n.norms, i+count, q.w)
		i++
	}
	norms, err := n.vector(n.norms)
	if err != nil {
		return nil, err
	}
	type squares struct{ gradient, update, weight float64 }
	sums := make([]squares, len(n.layers))
	square := func(i int) float64 { return float64(norms[i]) * float64(norms[i]) }
	i = 0
	for q := range n.trained() {
		s := &sums[q.layer]
		s.gradient += square(i)
		s.update += square(i+count) * q.reach(n.last)
		s.weight += square(i + 2*count)
		i++
	}
	var peaks []float32
	if n.peaks != nil {
		if peaks, err = n.vector(n.peaks); err != nil {
			return nil, err
		}
	}
	var states []LayerState
	for i := range n.layers {
		l := &n.layers[i]
		if l.peaks < 0 && !l.trains() {
			continue
		}
		state := LayerState{Layer: l.Name, Dead: math.NaN(), Update: math.NaN(), Gradient: math.NaN()}
		if l.peaks >= 0 {
			dead := 0
			for _, v := range peaks[l.peaks:][:l.Plan.Out.C] {
				if v <= 0 {
					dead++
				}
			}
			state.Dead = float64(dead) / float64(l.Plan.Out.C)
		}
		if l.trains() {
			state.Gradient = math.Sqrt(sums[i].gradient)
			if sums[i].weight > 0 {
				state.Update = math.Sqrt(sums[i].update / sums[i].weight)
			}
		}
		states = append(states, state)
	}
	return states, nil
}

// reach is the square of what the momentum (or Nesterov's v - dw/momentum) is
// multiplied by to become the update.
func (q *param) reach(s SGD) float64 {
	s = q.rule(s)
	_, _, _, by, _ := s.Factors()
	if s.Form == NesterovMomentum && s.Momentum > 0 {
		by = s.LR * s.Momentum
	}
	return float64(by) * float64(by)
}

// vector downloads a vector, and is valid until the next.
func (n *Network) vector(t *Tensor) ([]float32, error) {
	n.host = resized(n.host, t.Shape.Len())
	n.engine.Download(n.host, t)
	return n.host, n.engine.Sync()
}
