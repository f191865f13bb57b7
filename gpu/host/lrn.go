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
	x, y view
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

// terms gives n buffers for a block's terms, full of zeros.
func (j *lrnGeometry) terms(w *worker, n int) []float32 {
	terms := need(&w.buf, n*j.block*j.norm.Stride)
	clear(terms)
	return terms
}

// LRN normalises across channels.
func (e *Engine) LRN(y, x *net.Tensor, g net.LRN) {
	if !e.ready("LRN", y, x) || !e.lrnFits("LRN", g, x, y) {
		return
	}
	j := &e.jobs.lrn
	j.lrnGeometry = e.openLRN(x, g)
	j.x, j.y = open(x), open(y)
	e.reserve(j.block*j.norm.Stride, 0)
	e.run("LRN", j.x.n*j.x.h, j)
}

func (e *Engine) lrnFits(op string, g net.LRN, x *net.Tensor, others ...*net.Tensor) bool {
	return e.fits(op, net.LRNFits(g, x, others...))
}

func (j *lrnJob) do(w *worker, task int) {
	n, h := task/j.x.h, task%j.x.h
	x, y := j.x.line(n, h), j.y.line(n, h)
	terms := j.terms(w, 1)
	for step := j.block * j.norm.C; len(x) > 0; {
		step = min(step, len(x))
		j.points.Squares(terms[j.before:], x[:step], j.norm)
		j.points.Norm(y[:step], nil, x[:step], terms, j.norm)
		x, y = x[step:], y[step:]
	}
	j.y.border(n, h)
}

// lrnGradJob is the backward pass:
//
//	s_i = k + alpha sum_{j in window of i} x_j^2
//	d_i = dy_i / s_i^beta
//	dx_i = d_i - 2 alpha beta x_i sum_{j: i in window of j} d_j x_j / s_j
type lrnGradJob struct {
	lrnGeometry
	dx, dy, x view
}

// LRNGrad computes the gradient of LRN.
func (e *Engine) LRNGrad(dx, dy, x *net.Tensor, g net.LRN) {
	if dx == nil {
		return
	}
	if !e.ready("LRNGrad", dx, dy, x) || !e.lrnFits("LRNGrad", g, x, dx, dy) {
		return
	}
	j := &e.jobs.lrnGrad
	j.lrnGeometry = e.openLRN(x, g)
	j.dx, j.dy, j.x = open(dx), open(dy), open(x)
	e.reserve(2*j.block*j.norm.Stride, 2*j.block*j.norm.C)
	e.run("LRNGrad", j.x.n*j.x.h, j)
}

func (j *lrnGradJob) do(w *worker, task int) {
	n, h := task/j.x.h, task%j.x.h
	dx, dy, x := j.dx.line(n, h), j.dy.line(n, h), j.x.line(n, h)
	half := j.block * j.norm.Stride
	terms := j.terms(w, 2)
	squares, ratios := terms[:half], terms[half:]
	size := j.block * j.norm.C
	both := need(&w.alt, 2*size)
	d, scale := both[:size], both[size:]
	for step := size; len(x) > 0; {
		step = min(step, len(x))
		j.points.Squares(squares[j.before:], x[:step], j.norm)
		j.points.Norm(d[:step], scale[:step], x[:step], squares, j.norm) // for the scale
		// The channels whose windows hold i are those of a window turned around.
		j.points.Ratios(ratios[j.after:], d[:step], dy[:step], x[:step], scale[:step], j.norm)
		j.points.NormGrad(dx[:step], d[:step], x[:step], ratios, j.norm)
		dx, dy, x = dx[step:], dy[step:], x[step:]
	}
	j.dx.border(n, h)
}
