package host

import (
	"sluice/gpu/host/simd"
	"sluice/net"
)

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

// parts says into how many tasks an image is cut so that few images are enough
// for many threads. It depends on nothing but the shapes.
func parts(images, panels int) int {
	return min(panels, (15+images)/images)
}

// sweep is a window that passes over images, with all that does not change from
// one image to the next: the forward pass, or one phase of the data gradient.
type sweep struct {
	tiles   *simd.Tiles
	panels  []float32 // [group][out/lanes][runs][length][lanes]
	count   int       // panels of a group
	in, out int       // channels of a group
	length  int       // of a run, in floats
	offsets []int     // of the runs, from the window's first pixel, in bytes
	bias    []float32 // [group][out/lanes][lanes]; nil: 0
	act     net.Activation
	// high x wide outputs of an image. Places are in floats, of the first window
	// and output, of the next line's and of the next one's in a line.
	high, wide         int
	from, line, step   int
	to, toLine, toStep int
}

// sweepFloats is about how much of an image is walked through for one panel
// after another, so that it stays in a core's second cache beside a panel.
const sweepFloats = 64 << 10

// image computes the outputs of panels first to last of one image.
func (s *sweep) image(w *worker, x, y []float32, first, last int) {
	block := max(1, sweepFloats/s.line)
	for h0 := 0; h0 < s.high; h0 += block {
		for panel := first; panel < last; panel++ {
			if w.e.halted() {
				return
			}
			for h := h0; h < min(h0+block, s.high); h++ {
				s.outputs(w, x, y, h, panel)
			}
		}
	}
}

// outputs computes line h of a panel, in tiles of about as many outputs each.
func (s *sweep) outputs(w *worker, x, y []float32, h, panel int) {
	lanes, taps := s.tiles.Lanes, len(s.offsets)*s.length
	group, o := panel/s.count, panel%s.count*s.tiles.Lanes
	live := min(lanes, s.out-o)
	if s.wide == 0 {
		return
	}
	y = y[s.to+h*s.toLine+group*s.out+o:]
	if taps == 0 { // pixels that no window sees
		for i := range s.wide {
			clear(y[i*s.toStep:][:live])
		}
		return
	}
	x = x[s.from+h*s.line+group*s.in:]
	// What the kernels read and write, checked here for they do not.
	_ = x[(s.wide-1)*s.step+s.offsets[len(s.offsets)-1]/4+s.length-1]
	_ = y[(s.wide-1)*s.toStep+live-1]

	p := &w.product
	*p = simd.Product{Stride: 4 * s.step, Offsets: &s.offsets[0], Segments: len(s.offsets), K: s.length, B: &s.panels[panel*taps*lanes]}
	if s.bias != nil {
		p.Bias = &s.bias[panel*lanes]
	}
	if s.act == net.ReLU {
		p.Flags = simd.ReLU
	}
	tiles := (s.wide + s.tiles.Rows - 1) / s.tiles.Rows
	for i := range tiles {
		first, last := i*s.wide/tiles, (i+1)*s.wide/tiles
		p.A = &x[first*s.step]
		w.store(s.tiles, last-first, y[first*s.toStep:], s.toStep, live)
	}
	if s.act == net.Tanh {
		for i := range s.wide {
			w.points.Tanh(y[i*s.toStep:][:live])
		}
	}
}

// store computes the worker's product into y, rows of live floats, step apart.
func (w *worker) store(t *simd.Tiles, rows int, y []float32, step, live int) {
	p := &w.product
	if live == t.Lanes {
		p.C, p.LDC = &y[0], 4*step
		t.Product(rows, p)
		return
	}
	p.C, p.LDC = &w.tile[0], 4*t.Lanes
	for r := range rows {
		if p.Flags&simd.Add != 0 {
			copy(w.tile[r*t.Lanes:], y[r*step:][:live])
		}
	}
	t.Product(rows, p)
	for r := range rows {
		copy(y[r*step:][:live], w.tile[r*t.Lanes:])
	}
}

// biased gives a bias in whole panels.
func (e *Engine) biased(b *net.Tensor, w *weight) []float32 {
	src, dst := b.Mem.(*memory).f, need(&e.bias, w.total*w.tiles.Lanes)
	clear(dst)
	size := w.panels * w.tiles.Lanes
	for g := range w.groups {
		copy(dst[g*size:][:w.o], src[g*w.o:])
	}
	return dst
}

// convJob is the forward pass. A task is a part of the output panels of an image.
type convJob struct {
	convGeometry
	sweep
	parts int
}

// Conv computes y = act(x * w + b).
func (e *Engine) Conv(y, x, w, b *net.Tensor, g net.Conv) {
	if !e.ready("Conv", y, x, w, b) || !e.convFits("Conv", y, x, w, b, g) {
		return
	}
	if f := e.form(y.Shape, g, w.Shape); f != nil {
		e.transformed++
		e.winoConv(f, y, x, w, b, g)
		return
	}
	e.direct++
	j := &e.jobs.conv
	j.open(x, y, w, g)
	j.parts = parts(j.x.n, j.w.total)
	j.sweep = sweep{
		tiles: j.w.tiles, panels: j.w.f, count: j.w.panels, in: j.w.c, out: j.w.o,
		length: j.win.length, offsets: j.sweep.offsets[:0], bias: e.biased(b, &j.w), act: g.Act,
		high: j.y.h, wide: j.y.w,
		from: j.origin, line: j.stride * j.row, step: j.stride * j.c,
		to: j.y.origin, toLine: j.y.row, toStep: j.y.c,
	}
	for r := range j.win.runs {
		j.offsets = append(j.offsets, 4*j.win.run(r, &j.w, j.row, j.c))
	}
	e.reserve(j.padding(), 0)
	e.run("Conv", j.x.n*j.parts, j)
}

func (j *convJob) do(w *worker, task int) {
	n, part := task/j.parts, task%j.parts
	if part == 0 {
		j.y.borders(n)
	}
	x, y := j.padded(n, &w.buf), j.y.f[n*j.y.image:][:j.y.image]
	j.sweep.image(w, x, y, part*j.w.total/j.parts, (part+1)*j.w.total/j.parts)
}

// convFits checks shapes.
func (e *Engine) convFits(op string, y, x, w, b *net.Tensor, g net.Conv) bool {
	return e.fits(op, net.ConvFits(y, x, w, b, g))
}
