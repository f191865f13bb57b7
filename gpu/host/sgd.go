package host

import (
	"sluice/gpu/host/simd"
	"sluice/net"
)

// sgdBlock is the numbers of a task.
const sgdBlock = 1 << 16

// sgdJob is one update of one parameter. A task is sgdBlock numbers.
type sgdJob struct {
	points   *simd.Points
	w, v, dw []float32
	by       net.SGD
}

// SGD updates w and v. Products are rounded before they are summed.
func (e *Engine) SGD(w, v, dw *net.Tensor, s net.SGD) {
	if !e.ready("SGD", w, v, dw) || !e.expect("SGD", "v", v, w.Kind, w.Shape) || !e.expect("SGD", "dw", dw, w.Kind, w.Shape) {
		return
	}
	if w.Kind == net.Map || w.Kind == net.Index || w.FilterGroups() != v.FilterGroups() || w.FilterGroups() != dw.FilterGroups() {
		e.fail("SGD: %q (%s), %q and %q are not one parameter's weight, momentum and gradient", w.Name, w.Kind, v.Name, dw.Name)
		return
	}
	j := &e.jobs.sgd
	j.points = simd.PointsOf(e.level)
	j.w, j.v, j.dw = w.Mem.(*memory).f, v.Mem.(*memory).f, dw.Mem.(*memory).f
	j.by = s
	e.run("SGD", (len(j.w)+sgdBlock-1)/sgdBlock, j)
}

func (j *sgdJob) do(_ *worker, task int) {
	from := task * sgdBlock
	w := j.w[from:min(from+sgdBlock, len(j.w))]
	j.points.SGD(w, j.v[from:], j.dw[from:], j.by)
}
