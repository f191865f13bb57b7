package host

import "sluice/net"

// sgdBlock is the numbers of a task.
const sgdBlock = 1 << 16

// tiny is the smallest normal float32. Momentum that nothing feeds shrinks into
// the numbers below and, rounding up, stays there; some processors are a hundred
// times slower on those, so they become zero.
const tiny = 0x1p-126

// sgdJob is one update of one parameter. A task is sgdBlock numbers.
type sgdJob struct {
	w, v, dw            []float32
	momentum, decay, lr float32 // decay times lr
}

// SGD updates w and v. The three products are rounded before they are summed.
func (e *Engine) SGD(w, v, dw *net.Tensor, s net.SGD) {
	if !e.ready("SGD", w, v, dw) || !e.expect("SGD", "v", v, w.Kind, w.Shape) || !e.expect("SGD", "dw", dw, w.Kind, w.Shape) {
		return
	}
	if w.Kind == net.Map || w.Kind == net.Index || filterGroups(w.Spec) != filterGroups(v.Spec) || filterGroups(w.Spec) != filterGroups(dw.Spec) {
		e.fail("SGD: %q (%s), %q and %q are not one parameter's weight, momentum and gradient", w.Name, kindName(w.Kind), v.Name, dw.Name)
		return
	}
	j := &e.jobs.sgd
	j.w, j.v, j.dw = w.Mem.(*memory).f, v.Mem.(*memory).f, dw.Mem.(*memory).f
	j.momentum, j.decay, j.lr = s.Momentum, s.Decay*s.LR, s.LR
	e.run("SGD", (len(j.w)+sgdBlock-1)/sgdBlock, j)
}

func (j *sgdJob) do(_ *worker, task int) {
	from := task * sgdBlock
	w := j.w[from:min(from+sgdBlock, len(j.w))]
	vs, dw := j.v[from:][:len(w)], j.dw[from:][:len(w)]
	for i, x := range w {
		v := float32(float32(j.momentum*vs[i])-float32(j.decay*x)) - float32(j.lr*dw[i])
		if v < tiny && v > -tiny {
			v = 0
		}
		vs[i], w[i] = v, x+v
	}
}
