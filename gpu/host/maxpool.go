package host

import (
	"sluice/gpu/host/simd"
	"sluice/net"
)

// maxWindow bounds a pooling window, whose places are kept in 16 bits.
const maxWindow = 256

// poolJob is the forward pass. A task is a row of outputs of an image.
type poolJob struct {
	points *simd.Points
	x, y   view
	arg    []uint16 // places within the window, row*Size+column; nil if not wanted
	g      net.Pool
}

// MaxPool takes the greatest element of each window.
func (e *Engine) MaxPool(y, arg, x *net.Tensor, g net.Pool) {
	if !e.ready("MaxPool", y, x) || !e.poolFits("MaxPool", y, x, g, maxWindow) {
		return
	}
	j := &e.jobs.pool
	j.points = simd.PointsOf(e.level)
	j.x, j.y, j.g, j.arg = open(x), open(y), g, nil
	if arg != nil {
		if !e.ready("MaxPool", arg) || !e.expect("MaxPool", "arg", arg, net.Index, y.Shape) {
			return
		}
		j.arg = arg.Mem.(*memory).idx
	}
	e.run("MaxPool", j.y.n*j.y.h, j)
}

func (e *Engine) poolFits(op string, y, x *net.Tensor, g net.Pool, widest int) bool {
	return e.fits(op, net.PoolFits(y, x, g, widest))
}

// span is the part of a window that lies inside n, and its first place.
func span(at, n int, g *net.Pool) (first, from, to int) {
	first = at*g.Stride - g.Pad
	return first, max(0, first), min(n, first+g.Size)
}

func (j *poolJob) do(_ *worker, task int) {
	n, oh := task/j.y.h, task%j.y.h
	c := j.y.c
	out := j.y.line(n, oh)
	var arg []uint16
	if j.arg != nil {
		arg = j.arg[task*len(out):][:len(out)]
	}
	h0, top, bottom := span(oh, j.x.h, &j.g)
	x := j.x.f[j.x.origin+n*j.x.image+top*j.x.row:]
	w := simd.Windows{C: c, Pixel: c, Rows: bottom - top, Row: j.x.row, Step: j.g.Stride * c, Size: j.g.Size}
	for ow := 0; ow < j.y.w; ow += w.N {
		w0, left, right := span(ow, j.x.w, &j.g)
		w.Cols, w.Place = right-left, (top-h0)*j.g.Size+left-w0
		// Those after it that the border cuts no more and no less.
		for w.N = 1; ow+w.N < j.y.w; w.N++ {
			if from, l, r := span(ow+w.N, j.x.w, &j.g); l-from != left-w0 || r-l != w.Cols {
				break
			}
		}
		at := ow * c
		j.points.Pool(out[at:], arg[min(at, len(arg)):], x[left*c:], w)
	}
	j.y.border(n, oh)
}

// poolGradJob is the backward pass. A task is a row of dx: each of its pixels is
// the sum over the windows that hold it, so that windows may overlap.
type poolGradJob struct {
	points *simd.Points
	dx, dy view
	arg    []uint16
	g      net.Pool
}

// MaxPoolGrad adds each dy to the place that arg names.
func (e *Engine) MaxPoolGrad(dx, dy, arg *net.Tensor, g net.Pool) {
	if dx == nil {
		return
	}
	if !e.ready("MaxPoolGrad", dx, dy, arg) || !e.poolFits("MaxPoolGrad", dy, dx, g, maxWindow) ||
		!e.expect("MaxPoolGrad", "arg", arg, net.Index, dy.Shape) {
		return
	}
	j := &e.jobs.poolGrad
	j.points = simd.PointsOf(e.level)
	j.dx, j.dy, j.g, j.arg = open(dx), open(dy), g, arg.Mem.(*memory).idx
	e.run("MaxPoolGrad", j.dx.n*j.dx.h, j)
}

// holders is the windows that hold place i of what has out of them: count from
// first on, and where i is in the first.
func holders(i, out int, g *net.Pool) (first, count, place int) {
	i += g.Pad
	if i >= g.Size {
		first = (i-g.Size)/g.Stride + 1
	}
	count = max(0, min(out-1, i/g.Stride)-first+1)
	return first, count, i - first*g.Stride
}

// alike is how many of n pixels, a stride apart from the one at on, are held as it
// is, by windows one further each.
func alike(at, n, out int, g *net.Pool) int {
	_, count, place := holders(at, out, g)
	same := 1
	for at += g.Stride; at < n; at += g.Stride {
		if _, c, p := holders(at, out, g); c != count || p != place {
			break
		}
		same++
	}
	return same
}

func (j *poolGradJob) do(_ *worker, task int) {
	n, h := task/j.dx.h, task%j.dx.h
	c := j.dx.c
	out := j.dx.line(n, h)
	j.dx.border(n, h)
	oh, rows, top := holders(h, j.dy.h, &j.g)
	if rows == 0 {
		clear(out)
		return
	}
	line := j.dy.w * c
	dy, arg := j.dy.f[j.dy.origin+n*j.dy.image+oh*j.dy.row:], j.arg[(n*j.dy.h+oh)*line:]
	w := simd.Windows{C: c, Pixel: c, Rows: rows, Row: j.dy.row, RowArg: line, Step: j.g.Stride * c, Stride: j.g.Stride, Size: j.g.Size}
	// Pixels a stride apart are held alike, by windows one further.
	for phase := range min(j.g.Stride, j.dx.w) {
		for at := phase; at < j.dx.w; at += w.N * j.g.Stride {
			ow, cols, left := holders(at, j.dy.w, &j.g)
			w.N = alike(at, j.dx.w, j.dy.w, &j.g)
			if cols == 0 {
				for i := range w.N {
					clear(out[(at+i*j.g.Stride)*c:][:c])
				}
				continue
			}
			w.Cols, w.Place = cols, top*j.g.Size+left
			j.points.PoolGrad(out[at*c:], dy[ow*c:], arg[ow*c:], w)
		}
	}
}
