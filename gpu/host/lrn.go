package host

import (
	"sluice/gpu/host/simd"
	"sluice/net"
)

// lrnBlock is about how many floats of a row are normalised at a time, so that
// they stay in the fastest cache from one loop over them to the next.
const lrnBlock = 1024

// lrnJob is local response normalisation. A task is a row of an image, taken in
// blocks of pixels; with groups, each group of channels is a pixel of its own.
type lrnJob struct {
	lrnGeometry
	x, y, scale view
	keep        bool
}

// lrnGeometry is an LRN as the loops of simd take it: for each pixel, the terms
// of all channels with zeros around for the windows that reach over the border.
type lrnGeometry struct {
	points        *simd.Points
	norm          simd.Norm
	before, after int // channels of a window around its own
	block         int // pixels
}

func (e *Engine) openLRN(x *net.Tensor, g net.LRN) lrnGeometry {
	c := x.Shape.C / max(g.Groups, 1)
	// Windows wider than the channels are as wide as matters.
	before, after := min(g.Size/2, c-1), min(g.Size-1-g.Size/2, c-1)
	j := lrnGeometry{points: simd.PointsOf(e.level), before: before, after: after}
	j.norm = simd.Norm{C: c, Size: before + 1 + after, Stride: c + before + after, K: g.K, Alpha: g.Alpha, Beta: g.Beta}
	j.block = max(1, lrnBlock/j.norm.Stride)
	return j
}

// terms gives the buffer for a block's terms, full of zeros.
func (j *lrnGeometry) terms(w *worker) []float32 {
	terms := need(&w.buf, j.block*j.norm.Stride)
	clear(terms)
	return terms
}

// LRN normalises across channels.
func (e *Engine) LRN(y, scale, x *net.Tensor, g net.LRN) {
	if !e.ready("LRN", y, x) || !e.lrnFits("LRN", g, x, y) {
		return
	}
	j := &e.jobs.lrn
	j.lrnGeometry = e.openLRN(x, g)
	j.x, j.y, j.keep = open(x), open(y), scale != nil
	if j.keep {
		if !e.ready("LRN", scale) || !e.expect("LRN", "scale", scale, net.Map, x.Shape) {
			return
		}
		j.scale = open(scale)
	}
	e.reserve(j.block*j.norm.Stride, 0)
	e.run("LRN", j.x.n*j.x.h, j)
}

func (e *Engine) lrnFits(op string, g net.LRN, x *net.Tensor, others ...*net.Tensor) bool {
	if g.Size < 1 || g.Groups < 0 || x.Shape.C%max(g.Groups, 1) != 0 {
		e.fail("%s: the geometry %+v makes no sense for the %d channels of %q", op, g, x.Shape.C, x.Name)
		return false
	}
	for _, t := range others {
		if !e.expect(op, "a tensor beside x", t, net.Map, x.Shape) {
			return false
		}
	}
	return e.expect(op, "x", x, net.Map, x.Shape)
}

func (j *lrnJob) do(w *worker, task int) {
	n, h := task/j.x.h, task%j.x.h
	x, y := j.x.line(n, h), j.y.line(n, h)
	var scale []float32
	if j.keep {
		scale = j.scale.line(n, h)
		j.scale.border(n, h)
	}
	terms := j.terms(w)
	for step := j.block * j.norm.C; len(x) > 0; {
		step = min(step, len(x))
		j.points.Squares(terms[j.before:], x[:step], j.norm)
		j.points.Norm(y[:step], scale[:min(step, len(scale))], x[:step], terms, j.norm)
		x, y, scale = x[step:], y[step:], scale[min(step, len(scale)):]
	}
	j.y.border(n, h)
}

// lrnGradJob is the backward pass:
//
//	d_i = dy_i / s_i^beta
//	dx_i = d_i - 2 alpha beta x_i sum_{j: i in window of j} d_j x_j / s_j
type lrnGradJob struct {
	lrnGeometry
	dx, dy, x, scale view
}

// LRNGrad computes the gradient of LRN. It makes y anew from x and scale, which
// it reads in any case: less memory to pass over.
func (e *Engine) LRNGrad(dx, dy, y, x, scale *net.Tensor, g net.LRN) {
	if dx == nil {
		return
	}
	if !e.ready("LRNGrad", dx, dy, y, x, scale) || !e.lrnFits("LRNGrad", g, x, dx, dy, y, scale) {
		return
	}
	j := &e.jobs.lrnGrad
	j.lrnGeometry = e.openLRN(x, g)
	j.dx, j.dy, j.x, j.scale = open(dx), open(dy), open(x), open(scale)
	e.reserve(j.block*j.norm.Stride, j.block*j.norm.C)
	e.run("LRNGrad", j.x.n*j.x.h, j)
}

func (j *lrnGradJob) do(w *worker, task int) {
	n, h := task/j.x.h, task%j.x.h
	dx, dy, x, scale := j.dx.line(n, h), j.dy.line(n, h), j.x.line(n, h), j.scale.line(n, h)
	terms, d := j.terms(w), need(&w.alt, j.block*j.norm.C)
	for step := len(d); len(x) > 0; {
		step = min(step, len(x))
		// The channels whose windows hold i are those of a window turned around.
		j.points.Ratios(terms[j.after:], d[:step], dy[:step], x[:step], scale[:step], j.norm)
		j.points.NormGrad(dx[:step], d[:step], x[:step], terms, j.norm)
		dx, dy, x, scale = dx[step:], dy[step:], x[step:], scale[step:]
	}
	j.dx.border(n, h)
}
