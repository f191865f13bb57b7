package host

import (
	"math"

	"sluice/net"
)

// lrnJob is local response normalisation. A task is a row of an image.
//
// The sum of each window is taken afresh: a running sum would cost less, but
// leaves the rounding of every channel that passed through in those after it.
type lrnJob struct {
	x, y, scale view
	keep        bool
	g           net.LRN
}

// LRN normalises across channels.
func (e *Engine) LRN(y, scale, x *net.Tensor, g net.LRN) {
	if !e.ready("LRN", y, x) || !e.lrnFits("LRN", g, x, y) {
		return
	}
	j := &e.jobs.lrn
	j.x, j.y, j.g, j.keep = open(x), open(y), g, scale != nil
	if j.keep {
		if !e.ready("LRN", scale) || !e.expect("LRN", "scale", scale, net.Map, x.Shape) {
			return
		}
		j.scale = open(scale)
	}
	e.reserve(j.x.c, 0)
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

// around is the window of channel i among n: Size wide, beginning Size/2 before
// it. mirrored is the channels whose windows hold i.
func around(i, n, size int) (from, to int) {
	return max(0, i-size/2), min(n, i-size/2+size)
}

func mirrored(i, n, size int) (from, to int) {
	return max(0, i+size/2-size+1), min(n, i+size/2+1)
}

// power is s^-beta; the paper's 3/4 goes through square roots.
func power(s, beta float32) float32 {
	if beta == 0.75 {
		root := math.Sqrt(float64(s))
		return float32(1 / (root * math.Sqrt(root)))
	}
	return float32(math.Pow(float64(s), -float64(beta)))
}

func (j *lrnJob) do(w *worker, task int) {
	n, h := task/j.x.h, task%j.x.h
	x, y := j.x.line(n, h), j.y.line(n, h)
	var scale []float32
	if j.keep {
		scale = j.scale.line(n, h)
		j.scale.border(n, h)
	}
	c := j.x.c / max(j.g.Groups, 1)
	squares := need(&w.buf, c)
	for at := 0; at < len(x); at += c {
		in, out := x[at:at+c], y[at:at+c]
		for i, v := range in {
			squares[i] = v * v
		}
		for i, v := range in {
			from, to := around(i, c, j.g.Size)
			var sum float32
			for _, q := range squares[from:to] {
				sum += q
			}
			s := j.g.K + float32(j.g.Alpha*sum)
			if scale != nil {
				scale[at+i] = s
			}
			out[i] = v * power(s, j.g.Beta)
		}
	}
	j.y.border(n, h)
}

// lrnGradJob is the backward pass:
//
//	dx_i = dy_i s_i^-beta - 2 alpha beta x_i sum_{j: i in window of j} dy_j y_j / s_j
type lrnGradJob struct {
	dx, dy, y, x, scale view
	g                   net.LRN
}

// LRNGrad computes the gradient of LRN.
func (e *Engine) LRNGrad(dx, dy, y, x, scale *net.Tensor, g net.LRN) {
	if dx == nil {
		return
	}
	if !e.ready("LRNGrad", dx, dy, y, x, scale) || !e.lrnFits("LRNGrad", g, x, dx, dy, y, scale) {
		return
	}
	j := &e.jobs.lrnGrad
	j.dx, j.dy, j.y, j.x, j.scale, j.g = open(dx), open(dy), open(y), open(x), open(scale), g
	e.reserve(j.x.c, 0)
	e.run("LRNGrad", j.x.n*j.x.h, j)
}

func (j *lrnGradJob) do(w *worker, task int) {
	n, h := task/j.x.h, task%j.x.h
	dx, dy, y, x, scale := j.dx.line(n, h), j.dy.line(n, h), j.y.line(n, h), j.x.line(n, h), j.scale.line(n, h)
	c := j.x.c / max(j.g.Groups, 1)
	ratio := need(&w.buf, c)
	factor := 2 * j.g.Alpha * j.g.Beta
	for at := 0; at < len(x); at += c {
		for i := range ratio {
			ratio[i] = dy[at+i] * y[at+i] / scale[at+i]
		}
		for i := range ratio {
			from, to := mirrored(i, c, j.g.Size)
			var sum float32
			for _, r := range ratio[from:to] {
				sum += r
			}
			dx[at+i] = float32(dy[at+i]*power(scale[at+i], j.g.Beta)) - float32(float32(factor*x[at+i])*sum)
		}
	}
	j.dx.border(n, h)
}
