package host

import (
	"math"

	"sluice/gpu/host/simd"
	"sluice/net"
)

// avgPoolJob is the forward pass. A task is a row of outputs of an image.
type avgPoolJob struct {
	points *simd.Points
	x, y   view
	g      net.Pool
}

// AvgPool takes the mean of each window.
func (e *Engine) AvgPool(y, x *net.Tensor, g net.Pool) {
	if !e.ready("AvgPool", y, x) || !e.poolFits("AvgPool", y, x, g, math.MaxInt32) {
		return
	}
	j := &e.jobs.avgPool
	*j = avgPoolJob{simd.PointsOf(e.level), open(x), open(y), g}
	e.run("AvgPool", j.y.n*j.y.h, j)
}

// counted is how many of a window's places, along one side of n pixels, its mean
// counts.
func counted(at, n int, g *net.Pool) int {
	first, from, to := span(at, n, g)
	if g.CountPad {
		return min(n+g.Pad, first+g.Size) - first
	}
	return to - from
}

func (j *avgPoolJob) do(_ *worker, task int) {
	n, oh := task/j.y.h, task%j.y.h
	c := j.y.c
	y := j.y.line(n, oh)
	_, top, bottom := span(oh, j.x.h, &j.g)
	x := j.x.f[j.x.origin+n*j.x.image+top*j.x.row:]
	w := simd.Windows{C: c, Pixel: c, Rows: bottom - top, Row: j.x.row, Step: j.g.Stride * c, Next: c}
	rows := counted(oh, j.x.h, &j.g)
	for ow := 0; ow < j.y.w; ow += w.N {
		w0, left, right := span(ow, j.x.w, &j.g)
		cols := counted(ow, j.x.w, &j.g)
		w.Cols, w.Divisor = right-left, float32(rows*cols)
		// Those after it that the border cuts no more and no less.
		for w.N = 1; ow+w.N < j.y.w; w.N++ {
			from, l, r := span(ow+w.N, j.x.w, &j.g)
			if l-from != left-w0 || r-l != w.Cols || counted(ow+w.N, j.x.w, &j.g) != cols {
				break
			}
		}
		j.points.Mean(y[ow*c:], x[left*c:], w)
	}
	j.y.border(n, oh)
}

// sharesJob divides each dy by what its window counts. A task is a row of dy.
type sharesJob struct {
	points *simd.Points
	dy     view
	h, w   int // of dx
	g      net.Pool
}

// avgPoolGradJob sums the shares. A task is a row of dx: each of its pixels is the
// sum over the windows that hold it.
type avgPoolGradJob struct {
	points *simd.Points
	dx, dy view
	g      net.Pool
}

// AvgPoolGrad gives each pixel its share of the dy of the windows that hold it.
func (e *Engine) AvgPoolGrad(dx, dy *net.Tensor, g net.Pool) {
	if dx == nil {
		return
	}
	if !e.ready("AvgPoolGrad", dx, dy) || !e.poolFits("AvgPoolGrad", dy, dx, g, math.MaxInt32) {
		return
	}
	j, s := &e.jobs.avgPoolGrad, &e.jobs.shares
	*j = avgPoolGradJob{simd.PointsOf(e.level), open(dx), open(dy), g}
	*s = sharesJob{j.points, j.dy, j.dx.h, j.dx.w, g}
	e.run("AvgPoolGrad", j.dy.n*j.dy.h, s)
	e.run("AvgPoolGrad", j.dx.n*j.dx.h, j)
}

func (j *sharesJob) do(_ *worker, task int) {
	n, oh := task/j.dy.h, task%j.dy.h
	c := j.dy.c
	dy := j.dy.line(n, oh)
	rows := counted(oh, j.h, &j.g)
	w := simd.Windows{Pixel: c, N: 1, Rows: 1, Cols: 1}
	for ow, next := 0, 0; ow < j.dy.w; ow = next {
		cols := counted(ow, j.w, &j.g)
		for next = ow + 1; next < j.dy.w && counted(next, j.w, &j.g) == cols; next++ {
		}
		w.C, w.Divisor = (next-ow)*c, float32(rows*cols)
		j.points.Mean(dy[ow*c:], dy[ow*c:], w)
	}
}

func (j *avgPoolGradJob) do(_ *worker, task int) {
	n, h := task/j.dx.h, task%j.dx.h
	c := j.dx.c
	dx := j.dx.line(n, h)
	j.dx.border(n, h)
	oh, rows, _ := holders(h, j.dy.h, &j.g)
	if rows == 0 {
		clear(dx)
		return
	}
	dy := j.dy.f[j.dy.origin+n*j.dy.image+oh*j.dy.row:]
	w := simd.Windows{C: c, Pixel: c, Rows: rows, Row: j.dy.row, Step: c, Next: j.g.Stride * c, Divisor: 1}
	// Pixels a stride apart are held alike, by windows one further.
	for phase := range min(j.g.Stride, j.dx.w) {
		for at := phase; at < j.dx.w; at += w.N * j.g.Stride {
			ow, cols, _ := holders(at, j.dy.w, &j.g)
			w.N, w.Cols = alike(at, j.dx.w, j.dy.w, &j.g), cols
			if cols == 0 {
				for i := range w.N {
					clear(dx[(at+i*j.g.Stride)*c:][:c])
				}
				continue
			}
			j.points.Mean(dx[at*c:], dy[ow*c:], w)
		}
	}
}
