package host

import "sluice/net"

// maxWindow bounds a pooling window, whose places are kept in 16 bits.
const maxWindow = 256

// poolJob is the forward pass. A task is a row of outputs of an image.
type poolJob struct {
	x, y view
	arg  []uint16 // places within the window, row*Size+column; nil if not wanted
	g    net.Pool
}

// MaxPool takes the greatest element of each window.
func (e *Engine) MaxPool(y, arg, x *net.Tensor, g net.Pool) {
	if !e.ready("MaxPool", y, x) || !e.poolFits("MaxPool", y, x, g) {
		return
	}
	j := &e.jobs.pool
	j.x, j.y, j.g, j.arg = open(x), open(y), g, nil
	if arg != nil {
		if !e.ready("MaxPool", arg) || !e.expect("MaxPool", "arg", arg, net.Index, y.Shape) {
			return
		}
		j.arg = arg.Mem.(*memory).idx
	}
	e.run("MaxPool", j.y.n*j.y.h, j)
}

// pooled is the size that pooling makes of n.
func pooled(n int, g net.Pool) int {
	out := (n+2*g.Pad-g.Size)/g.Stride + 1
	if g.Ceil {
		out = (n+2*g.Pad-g.Size+g.Stride-1)/g.Stride + 1
		if (out-1)*g.Stride >= n+g.Pad {
			out--
		}
	}
	return out
}

func (e *Engine) poolFits(op string, y, x *net.Tensor, g net.Pool) bool {
	if g.Size < 1 || g.Stride < 1 || g.Pad < 0 || g.Pad >= g.Size || g.Size > maxWindow {
		e.fail("%s: the geometry %+v makes no sense (windows of 1 to %d, padding less than the window)", op, g, maxWindow)
		return false
	}
	s := x.Shape
	if !g.Ceil && (s.H+2*g.Pad < g.Size || s.W+2*g.Pad < g.Size) {
		e.fail("%s: a window of %d with padding %d is larger than %q of %v", op, g.Size, g.Pad, x.Name, s)
		return false
	}
	return e.expect(op, "x", x, net.Map, s) &&
		e.expect(op, "y", y, net.Map, net.Shape{N: s.N, C: s.C, H: max(1, pooled(s.H, g)), W: max(1, pooled(s.W, g))})
}

// span is the part of a window that lies inside n, and its first place.
func span(at, n int, g *net.Pool) (first, from, to int) {
	first = at*g.Stride - g.Pad
	return first, max(0, first), min(n, first+g.Size)
}

func (j *poolJob) do(_ *worker, task int) {
	n, oh := task/j.y.h, task%j.y.h
	out := j.y.line(n, oh)
	c := j.y.c
	h0, top, bottom := span(oh, j.x.h, &j.g)
	for ow := range j.y.w {
		w0, left, right := span(ow, j.x.w, &j.g)
		y := out[ow*c:][:c]
		copy(y, j.x.line(n, top)[left*c:])
		var arg []uint16
		if j.arg != nil {
			arg = j.arg[(task*j.y.w+ow)*c:][:c]
			place := uint16((top-h0)*j.g.Size + left - w0)
			for i := range arg {
				arg[i] = place
			}
		}
		for h := top; h < bottom; h++ {
			line := j.x.line(n, h)
			for w := left; w < right; w++ {
				x := line[w*c:][:c]
				if arg == nil {
					for i, v := range x {
						if best := y[i]; v > best || v != v && best == best {
							y[i] = v
						}
					}
					continue
				}
				place := uint16((h-h0)*j.g.Size + w - w0)
				arg := arg[:len(x)]
				for i, v := range x {
					if best := y[i]; v > best || v != v && best == best {
						y[i], arg[i] = v, place
					}
				}
			}
		}
	}
	j.y.border(n, oh)
}

// poolGradJob is the backward pass. A task is an image, since windows overlap.
type poolGradJob struct {
	dx, dy view
	arg    []uint16
	g      net.Pool
}

// MaxPoolGrad adds each dy to the place that arg names.
func (e *Engine) MaxPoolGrad(dx, dy, arg *net.Tensor, g net.Pool) {
	if dx == nil {
		return
	}
	if !e.ready("MaxPoolGrad", dx, dy, arg) || !e.poolFits("MaxPoolGrad", dy, dx, g) ||
		!e.expect("MaxPoolGrad", "arg", arg, net.Index, dy.Shape) {
		return
	}
	j := &e.jobs.poolGrad
	j.dx, j.dy, j.g, j.arg = open(dx), open(dy), g, arg.Mem.(*memory).idx
	e.run("MaxPoolGrad", j.dx.n, j)
}

func (j *poolGradJob) do(_ *worker, n int) {
	c := j.dx.c
	for h := range j.dx.h {
		clear(j.dx.line(n, h))
	}
	j.dx.borders(n)
	arg := j.arg[n*j.dy.h*j.dy.w*c:]
	image := j.dx.f[n*j.dx.image:]
	for oh := range j.dy.h {
		dy := j.dy.line(n, oh)
		h0, _, _ := span(oh, j.dx.h, &j.g)
		for ow := range j.dy.w {
			w0, _, _ := span(ow, j.dx.w, &j.g)
			places := arg[(oh*j.dy.w+ow)*c:][:c]
			for i, v := range dy[ow*c:][:c] {
				p := int(places[i])
				image[j.dx.origin+(h0+p/j.g.Size)*j.dx.row+(w0+p%j.g.Size)*c+i] += v
			}
		}
	}
}
