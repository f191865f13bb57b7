package host

import (
	"sluice/gpu/host/simd"
	"sluice/net"
)

// pointsJob is y = a, or y = a + b. A task is a row of an image.
type pointsJob struct {
	points  *simd.Points
	y, a, b view
	add     bool
}

// Copy is y = x.
func (e *Engine) Copy(y, x *net.Tensor) {
	if !e.ready("Copy", y, x) || !e.expect("Copy", "y", y, x.Kind, x.Shape) {
		return
	}
	if x.Kind != net.Map {
		if x.FilterGroups() != y.FilterGroups() {
			e.fail("Copy: %q has %d groups, %q %d", x.Name, x.FilterGroups(), y.Name, y.FilterGroups())
			return
		}
		copy(y.Mem.(*memory).f, x.Mem.(*memory).f)
		copy(y.Mem.(*memory).idx, x.Mem.(*memory).idx)
		return
	}
	j := &e.jobs.points
	j.y, j.a, j.add = open(y), open(x), false
	e.run("Copy", j.y.n*j.y.h, j)
}

// Add is y = a + b.
func (e *Engine) Add(y, a, b *net.Tensor) {
	if y != nil && y.Kind != net.Map {
		e.addParameters(y, a, b)
		return
	}
	if !e.ready("Add", y, a, b) || !e.expect("Add", "a", a, net.Map, a.Shape) ||
		!e.expect("Add", "b", b, net.Map, a.Shape) || !e.expect("Add", "y", y, net.Map, a.Shape) {
		return
	}
	j := &e.jobs.points
	j.points = simd.PointsOf(e.level)
	j.y, j.a, j.b, j.add = open(y), open(a), open(b), true
	e.run("Add", j.y.n*j.y.h, j)
}

func (j *pointsJob) do(_ *worker, task int) {
	n, h := task/j.y.h, task%j.y.h
	y, a := j.y.line(n, h), j.a.line(n, h)
	if !j.add {
		copy(y, a)
	} else {
		j.points.Add(y, a, j.b.line(n, h))
	}
	j.y.border(n, h)
}
