package host

import (
	"math"

	"sluice/gpu/host/simd"
	"sluice/net"
)

// flatBlock is the numbers of a task of the ops that go over a parameter as one
// long row, whatever its layout: the lanes of a panel that are no output are zero.
const flatBlock = 1 << 16

func flatTasks(n int) int { return (n + flatBlock - 1) / flatBlock }

func flatPart(f []float32, task int) []float32 {
	return f[task*flatBlock : min((task+1)*flatBlock, len(f))]
}

// parameters says whether the tensors are parameters (or gradients of such) of one
// shape, kind and layout.
func (e *Engine) parameters(op string, first *net.Tensor, others ...*net.Tensor) bool {
	return e.ready(op, first) && e.ready(op, others...) && e.fits(op, net.ParametersFit(first, others...))
}

// into says whether n numbers fit into the vector out from place at on.
func (e *Engine) into(op string, out *net.Tensor, at, n int) bool {
	return e.ready(op, out) && e.fits(op, net.IntoFits(out, at, n))
}

// normJob sums squares in float64. A task is flatBlock numbers, whose sum it keeps
// apart.
type normJob struct {
	points *simd.Points
	x      []float32
	sums   []float64
}

// Norm is out[at] = |x|: the sum of each block by itself, then the blocks in order.
func (e *Engine) Norm(out *net.Tensor, at int, x *net.Tensor) {
	if !e.parameters("Norm", x) || !e.into("Norm", out, at, 1) {
		return
	}
	j := &e.jobs.norm
	j.points, j.x = simd.PointsOf(e.level), x.Mem.(*memory).f
	tasks := flatTasks(len(j.x))
	if len(j.sums) < tasks {
		j.sums = make([]float64, tasks)
	}
	e.run("Norm", tasks, j)
	sum := 0.
	for _, s := range j.sums[:tasks] {
		sum += s
	}
	out.Mem.(*memory).f[at] = float32(math.Sqrt(sum))
}

func (j *normJob) do(_ *worker, task int) {
	j.sums[task] = j.points.SquareSum(flatPart(j.x, task))
}

// scaleJob multiplies and bounds. A task is flatBlock numbers.
type scaleJob struct {
	y, x      []float32
	by, limit float32
}

// Scale is y = x * by within +-limit.
func (e *Engine) Scale(y, x *net.Tensor, by, limit float32) {
	if !e.parameters("Scale", y, x) {
		return
	}
	if !(limit >= 0) {
		e.fail("Scale: the limit of %q is %g, and must not be negative", y.Name, limit)
		return
	}
	j := &e.jobs.scale
	*j = scaleJob{y.Mem.(*memory).f, x.Mem.(*memory).f, by, limit}
	e.run("Scale", flatTasks(len(j.y)), j)
}

func (j *scaleJob) do(_ *worker, task int) {
	y, x := flatPart(j.y, task), flatPart(j.x, task)
	if j.limit == 0 {
		for i, v := range x[:len(y)] {
			y[i] = v * j.by
		}
		return
	}
	for i, v := range x[:len(y)] {
		y[i] = max(-j.limit, min(j.limit, v*j.by)) // NaN stays
	}
}

// addJob is y = a + b of parameters. A task is flatBlock numbers.
type addJob struct {
	points  *simd.Points
	y, a, b []float32
}

func (e *Engine) addParameters(y, a, b *net.Tensor) {
	if !e.parameters("Add", y, a, b) {
		return
	}
	j := &e.jobs.add
	*j = addJob{simd.PointsOf(e.level), y.Mem.(*memory).f, a.Mem.(*memory).f, b.Mem.(*memory).f}
	e.run("Add", flatTasks(len(j.y)), j)
}

func (j *addJob) do(_ *worker, task int) {
	j.points.Add(flatPart(j.y, task), flatPart(j.a, task), flatPart(j.b, task))
}

// peaksJob takes the largest number of every channel. A task is a part of the
// images, with maxima of its own: their order does not matter.
type peaksJob struct {
	x    view
	each []float32 // peaksParts x channels
}

const peaksParts = 16

// Peaks is out[at+c] = the largest x of channel c.
func (e *Engine) Peaks(out *net.Tensor, at int, x *net.Tensor) {
	if !e.ready("Peaks", x) || !e.expect("Peaks", "x", x, net.Map, x.Shape) || !e.into("Peaks", out, at, x.Shape.C) {
		return
	}
	j := &e.jobs.peaks
	j.x = open(x)
	parts := min(peaksParts, j.x.n)
	j.each = need(&e.scratch, parts*j.x.c)
	e.run("Peaks", parts, j)
	largest := out.Mem.(*memory).f[at:][:j.x.c]
	copy(largest, j.each)
	for part := 1; part < parts; part++ {
		for c, v := range j.each[part*j.x.c:][:j.x.c] {
			largest[c] = max(largest[c], v)
		}
	}
}

func (j *peaksJob) do(w *worker, part int) {
	parts := min(peaksParts, j.x.n)
	largest := j.each[part*j.x.c:][:j.x.c]
	for i := range largest {
		largest[i] = float32(math.Inf(-1))
	}
	for n := part * j.x.n / parts; n < (part+1)*j.x.n/parts; n++ {
		if w.e.halted() {
			return
		}
		for h := range j.x.h {
			for line := j.x.line(n, h); len(line) > 0; line = line[j.x.c:] {
				for c, v := range line[:len(largest)] {
					if v > largest[c] || v != v { // a NaN stays, and is no 0
						largest[c] = v
					}
				}
			}
		}
	}
}
