package host

import (
	"math"

	"sluice/net"
)

// block is how many pixels a task works through between looking at the context,
// small enough that their activations stay in a core's cache while all panels
// of weights pass by.
const block = 128

// window is how a convolution's window lies in an image: count runs of length
// floats each, the panel rows of one after those of another.
type window struct{ runs, length int }

func windowOf(w *weight) window {
	if w.groups == 1 { // the pixels of a window's row are neighbours
		return window{w.height, w.width * w.c}
	}
	return window{w.height * w.width, w.c}
}

// run is where run r of the window begins, from the window's first pixel.
func (v *window) run(r int, w *weight, row, pixel int) int {
	if w.groups == 1 {
		return r * row
	}
	return r/w.width*row + r%w.width*pixel
}

// convGeometry is what the three passes of a convolution share.
type convGeometry struct {
	x, y        view
	w           weight
	win         window
	stride, pad int
	// The images that windows are read from: x itself, or copies of it with
	// pad zeros around where its halo is too narrow.
	copied        bool
	row, c, image int
	origin        int // of the first window
}

func (g *convGeometry) open(x, y, w *net.Tensor, c net.Conv) {
	g.x, g.y, g.w = open(x), open(y), openWeight(w)
	g.win, g.stride, g.pad, g.c = windowOf(&g.w), c.Stride, c.Pad, g.x.c
	g.copied = g.x.halo < c.Pad
	if g.copied {
		g.row = (g.x.w + 2*c.Pad) * g.c
		g.image, g.origin = (g.x.h+2*c.Pad)*g.row, 0
		return
	}
	g.row, g.image = g.x.row, g.x.image
	g.origin = (g.x.halo - c.Pad) * (g.row + g.c)
}

// padding is the floats of a padded copy.
func (g *convGeometry) padding() int {
	if g.copied {
		return g.image
	}
	return 0
}

// padded is image n with at least pad zeros around.
func (g *convGeometry) padded(n int, buf *[]float32) []float32 {
	if !g.copied {
		return g.x.f[n*g.image:][:g.image]
	}
	dst := need(buf, g.image)
	clear(dst)
	for h := range g.x.h {
		copy(dst[(h+g.pad)*g.row+g.pad*g.c:], g.x.line(n, h))
	}
	return dst
}

// start is where the window of output pixel p (row by row) begins.
func (g *convGeometry) start(p int) int {
	return g.origin + p/g.y.w*g.stride*g.row + p%g.y.w*g.stride*g.c
}

// parts says into how many tasks an image is cut so that few images are enough
// for many threads. It depends on nothing but the shapes.
func parts(images, panels int) int {
	return min(panels, (15+images)/images)
}

// convJob is the forward pass. A task is a part of the output panels of an image.
type convJob struct {
	convGeometry
	b     []float32
	act   net.Activation
	parts int
}

// Conv computes y = act(x * w + b).
func (e *Engine) Conv(y, x, w, b *net.Tensor, g net.Conv) {
	if !e.ready("Conv", y, x, w, b) || !e.convFits("Conv", y, x, w, b, g) {
		return
	}
	j := &e.jobs.conv
	j.open(x, y, w, g)
	j.b, j.act, j.parts = b.Mem.(*memory).f, g.Act, parts(j.x.n, j.w.total)
	e.reserve(j.padding(), 0)
	e.run("Conv", j.x.n*j.parts, j)
}

func (j *convJob) do(w *worker, task int) {
	n, part := task/j.parts, task%j.parts
	x := j.padded(n, &w.buf)
	if part == 0 {
		j.y.borders(n)
	}
	from, to := part*j.w.total/j.parts, (part+1)*j.w.total/j.parts
	pixels := j.y.h * j.y.w
	for first := 0; first < pixels; first += block {
		last := min(first+block, pixels)
		for panel := from; panel < to; panel++ {
			if w.e.halted() {
				return
			}
			for p := first; p < last; p += rows {
				j.tile(x, n, p, min(p+1, last-1), panel)
			}
		}
	}
}

// tile computes pixels p and q of one panel of outputs.
func (j *convJob) tile(x []float32, n, p, q, panel int) {
	group := panel / j.w.panels
	o := group*j.w.o + panel%j.w.panels*lanes
	live := min(lanes, (group+1)*j.w.o-o)
	var c acc
	for l := range live {
		c[l], c[lanes+l] = j.b[o+l], j.b[o+l]
	}
	size := j.win.length
	x0, x1 := x[j.start(p)+group*j.w.c:], x[j.start(q)+group*j.w.c:]
	b := j.w.f[panel*j.w.k*lanes:][:j.w.k*lanes]
	for r := range j.win.runs {
		at := j.win.run(r, &j.w, j.row, j.c)
		tile(&c, x0[at:at+size], x1[at:at+size], b[r*size*lanes:(r+1)*size*lanes])
	}
	activate(&c, j.act)
	for r, pixel := range [rows]int{p, q} {
		y := j.y.line(n, pixel/j.y.w)[pixel%j.y.w*j.y.c+o:]
		copy(y[:live], c[r*lanes:])
	}
}

// activate applies the function fused into conv and dense. A NaN stays one.
func activate(c *acc, act net.Activation) {
	switch act {
	case net.ReLU:
		for i, v := range c {
			if v < 0 {
				c[i] = 0
			}
		}
	case net.Tanh:
		for i, v := range c {
			c[i] = float32(math.Tanh(float64(v)))
		}
	}
}

// convFits checks shapes.
func (e *Engine) convFits(op string, y, x, w, b *net.Tensor, g net.Conv) bool {
	groups := max(g.Groups, 1)
	if g.Size < 1 || g.Stride < 1 || g.Pad < 0 || g.Groups < 0 || g.Act < net.None || g.Act > net.Tanh {
		e.fail("%s: the geometry %+v makes no sense", op, g)
		return false
	}
	s, o := x.Shape, w.Shape.N
	if s.C%groups != 0 || o%groups != 0 {
		e.fail("%s: %d channels of %q and %d of %q do not divide into %d groups", op, s.C, x.Name, o, w.Name, groups)
		return false
	}
	if s.H+2*g.Pad < g.Size || s.W+2*g.Pad < g.Size {
		e.fail("%s: a window of %d with padding %d is larger than %q of %v", op, g.Size, g.Pad, x.Name, s)
		return false
	}
	if filterGroups(w.Spec) != groups {
		e.fail("%s: %q was made for %d groups, not %d", op, w.Name, filterGroups(w.Spec), groups)
		return false
	}
	out := net.Shape{N: s.N, C: o, H: (s.H+2*g.Pad-g.Size)/g.Stride + 1, W: (s.W+2*g.Pad-g.Size)/g.Stride + 1}
	return e.expect(op, "x", x, net.Map, s) &&
		e.expect(op, "w", w, net.Filter, net.Shape{N: o, C: s.C / groups, H: g.Size, W: g.Size}) &&
		e.expect(op, "b", b, net.Vector, net.Shape{N: 1, C: o, H: 1, W: 1}) &&
		e.expect(op, "y", y, net.Map, out)
}
