package host

import "sluice/net"

// ConvGrad computes the gradients of Conv, after turning dy into the gradient of
// what went into the activation.
func (e *Engine) ConvGrad(dx, dw, db, dy, y, x, w *net.Tensor, g net.Conv) {
	if !e.ready("ConvGrad", dw, db, dy, y, x, w) || !e.convFits("ConvGrad", y, x, w, db, g) ||
		!e.expect("ConvGrad", "dy", dy, net.Map, y.Shape) || !e.expect("ConvGrad", "dw", dw, net.Filter, w.Shape) {
		return
	}
	if filterGroups(dw.Spec) != filterGroups(w.Spec) {
		e.fail("ConvGrad: %q was made for %d groups, not %d", dw.Name, filterGroups(dw.Spec), filterGroups(w.Spec))
		return
	}
	if dx != nil && (!e.ready("ConvGrad", dx) || !e.expect("ConvGrad", "dx", dx, net.Map, x.Shape)) {
		return
	}
	e.actGrad("ConvGrad", dy, y, g.Act)
	e.sumPixels("ConvGrad", db, dy)
	e.convWeightGrad(dw, dy, x, g)
	if dx != nil {
		e.convDataGrad(dx, dy, w, g)
	}
}

// actGradJob multiplies dy by the activation's derivative, told by y. A task is
// a row of an image.
type actGradJob struct {
	dy, y view
	act   net.Activation
}

func (e *Engine) actGrad(op string, dy, y *net.Tensor, act net.Activation) {
	if act == net.None {
		return
	}
	j := &e.jobs.actGrad
	j.dy, j.y, j.act = open(dy), open(y), act
	e.run(op, j.y.n*j.y.h, j)
}

func (j *actGradJob) do(_ *worker, task int) {
	dy, y := j.dy.line(task/j.y.h, task%j.y.h), j.y.line(task/j.y.h, task%j.y.h)
	dy = dy[:len(y)]
	if j.act == net.ReLU {
		for i, v := range y {
			if v <= 0 {
				dy[i] = 0
			}
		}
		return
	}
	for i, v := range y { // 1 - v*v would cancel near 1
		dy[i] *= (1 - v) * (1 + v)
	}
}

// sumsJob sums dy over images and pixels into a bias's gradient: rows of pixels
// first, then rows, which keeps the sums short. A task is some channels.
type sumsJob struct {
	dy view
	db []float32
}

const sumChannels = 32

func (e *Engine) sumPixels(op string, db, dy *net.Tensor) {
	j := &e.jobs.sums
	j.dy, j.db = open(dy), db.Mem.(*memory).f
	e.run(op, (j.dy.c+sumChannels-1)/sumChannels, j)
}

func (j *sumsJob) do(w *worker, task int) {
	from := task * sumChannels
	db := j.db[from:min(from+sumChannels, j.dy.c)]
	clear(db)
	var buf [sumChannels]float32
	for n := range j.dy.n {
		if w.e.halted() {
			return
		}
		for h := range j.dy.h {
			line := j.dy.line(n, h)
			clear(buf[:])
			for p := from; p < len(line); p += j.dy.c {
				for i, v := range line[p : p+len(db)] {
					buf[i] += v
				}
			}
			for i := range db {
				db[i] += buf[i]
			}
		}
	}
}

// wgradJob sums x * dy over images and pixels. A task is a stretch of one run of
// the window (some input channels of one row or place of it) for all outputs of
// its group, over all images. Pixels are packed, chunk by chunk, as panels of
// two inputs and of four outputs.
type wgradJob struct {
	convGeometry
	dy         view
	dw         []float32
	perRun     int // tasks
	chunk      int // pixels
	perProduct int // tasks of a group
}

const (
	wgradInputs = 96
	wgradPixels = 256
)

func (e *Engine) convWeightGrad(dw, dy, x *net.Tensor, g net.Conv) {
	j := &e.jobs.wgrad
	j.open(x, dy, dw, g)
	j.dy, j.dw = j.y, j.w.f
	j.perRun = (j.win.length + wgradInputs - 1) / wgradInputs
	j.perProduct = j.perRun * j.win.runs
	inputs := (j.win.length + j.perRun - 1) / j.perRun
	j.chunk = min(j.dy.h*j.dy.w, wgradPixels)
	e.reserve(j.chunk*(inputs+rows+j.w.panels*lanes), j.padding())
	e.run("ConvGrad", j.w.groups*j.perProduct, j)
}

func (j *wgradJob) do(w *worker, task int) {
	group, run, part := task/j.perProduct, task%j.perProduct/j.perRun, task%j.perRun
	from, to := part*j.win.length/j.perRun, (part+1)*j.win.length/j.perRun
	at := j.win.run(run, &j.w, j.row, j.c) + group*j.w.c + from
	k := run*j.win.length + from // the first row of each panel
	pairs := (to - from + rows - 1) / rows
	pixels := j.dy.h * j.dy.w
	xs := w.buf[:j.chunk*pairs*rows]
	ys := w.buf[len(xs):][:j.chunk*j.w.panels*lanes]

	for p := range j.w.panels {
		clear(j.panel(group, p)[k*lanes : (k+to-from)*lanes])
	}
	for n := range j.dy.n {
		x := j.padded(n, &w.alt)
		for first := 0; first < pixels; first += j.chunk {
			if w.e.halted() {
				return
			}
			last := min(first+j.chunk, pixels)
			size := last - first
			for p := first; p < last; p++ {
				packPixel(xs[(p-first)*rows:], size*rows, x[j.start(p)+at:][:to-from], rows)
				o := p%j.dy.w*j.dy.c + group*j.w.o
				packPixel(ys[(p-first)*lanes:], size*lanes, j.dy.line(n, p/j.dy.w)[o:o+j.w.o], lanes)
			}
			for p := range j.w.panels {
				dw := j.panel(group, p)[k*lanes : (k+to-from)*lanes]
				b := ys[p*size*lanes:][:size*lanes]
				for i := range pairs {
					var c acc
					outer(&c, xs[i*size*rows:][:size*rows], b)
					for l, v := range dw[i*rows*lanes : min((i+1)*rows*lanes, len(dw))] {
						dw[i*rows*lanes+l] = v + c[l]
					}
				}
			}
		}
	}
}

func (j *wgradJob) panel(group, p int) []float32 {
	return j.dw[(group*j.w.panels+p)*j.w.k*lanes:][:j.w.k*lanes]
}

// packPixel deals out one pixel's channels, width (rows or lanes) at a time, to
// panels that are step apart; the last is filled with zeros.
func packPixel(dst []float32, step int, src []float32, width int) {
	at := 0
	for ; len(src) >= width; src, at = src[width:], at+step {
		if width == lanes {
			*(*[lanes]float32)(dst[at:]) = *(*[lanes]float32)(src)
		} else {
			*(*[rows]float32)(dst[at:]) = *(*[rows]float32)(src)
		}
	}
	if len(src) > 0 {
		tail := dst[at : at+width]
		copy(tail, src)
		clear(tail[len(src):])
	}
}

// dgradJob is the gradient of a convolution's input. The pixels of dx fall into
// stride x stride phases; those of one phase see the same places of the window,
// one stride apart, so that each phase is a convolution of dy with stride 1. A
// task is a part of the input channels of an image.
type dgradJob struct {
	dx, dy      view
	w           weight // of the forward pass
	flipped     []float32
	stride, pad int
	panels      int // of input channels, of one group
	parts       int
	before      int // zeros before dy's rows and columns
	row         int // of the padded image
	image       int
}

// taps is how many places of a window of size meet a phase.
func taps(size, phase, stride int) int {
	return max(0, (size-phase+stride-1)/stride)
}

func (e *Engine) convDataGrad(dx, dy, w *net.Tensor, g net.Conv) {
	j := &e.jobs.dgrad
	j.dx, j.dy, j.w = open(dx), open(dy), openWeight(w)
	j.stride, j.pad = g.Stride, g.Pad
	j.panels = panels(j.w.c)
	j.before = (g.Size - 1) / g.Stride
	height := j.before + max(j.dy.h, (j.dx.h-1+g.Pad)/g.Stride+1)
	width := j.before + max(j.dy.w, (j.dx.w-1+g.Pad)/g.Stride+1)
	j.row = width * j.dy.c
	j.image = height * j.row
	total := j.w.groups * j.panels
	j.parts = parts(j.dx.n, total)

	f := &e.jobs.flip
	f.dgradJob = j
	j.flipped = need(&e.scratch, total*j.w.height*j.w.width*j.w.o*lanes)
	e.run("ConvGrad", total, f)
	e.reserve(j.image, 0)
	e.run("ConvGrad", j.dx.n*j.parts, j)
}

// phase is the panels of one phase, [group][I/4][kh backwards][kw backwards][O][4].
func (j *dgradJob) phase(ph, pw int) (panels []float32, high, wide int) {
	size, at := j.w.height, 0
	for i := range ph*j.stride + pw {
		at += taps(size, i/j.stride, j.stride) * taps(size, i%j.stride, j.stride)
	}
	high, wide = taps(size, ph, j.stride), taps(size, pw, j.stride)
	unit := j.w.groups * j.panels * j.w.o * lanes
	return j.flipped[at*unit:][:high*wide*unit], high, wide
}

// flipJob cuts the weights into panels of input channels. A task is one panel.
type flipJob struct{ *dgradJob }

func (j *flipJob) do(_ *worker, task int) {
	group, first := task/j.panels, task%j.panels*lanes
	for ph := range j.stride {
		for pw := range j.stride {
			all, high, wide := j.phase(ph, pw)
			size := high * wide * j.w.o * lanes
			dst := all[task*size:][:size]
			clear(dst)
			for th := range high {
				for tw := range wide {
					kh, kw := ph+(high-1-th)*j.stride, pw+(wide-1-tw)*j.stride
					for o := range j.w.o {
						src := j.w.f[((group*j.w.panels+o/lanes)*j.w.k+(kh*j.w.width+kw)*j.w.c)*lanes+o%lanes:]
						for l := range min(lanes, j.w.c-first) {
							dst[((th*wide+tw)*j.w.o+o)*lanes+l] = src[(first+l)*lanes]
						}
					}
				}
			}
		}
	}
}

func (j *dgradJob) do(w *worker, task int) {
	n, part := task/j.parts, task%j.parts
	dy := need(&w.buf, j.image)
	clear(dy)
	for h := range j.dy.h {
		copy(dy[(h+j.before)*j.row+j.before*j.dy.c:], j.dy.line(n, h))
	}
	if part == 0 {
		j.dx.borders(n)
	}
	total := j.w.groups * j.panels
	for ph := range j.stride {
		for pw := range j.stride {
			j.phasePixels(w, dy, n, ph, pw, part*total/j.parts, (part+1)*total/j.parts)
		}
	}
}

// phasePixels computes the pixels of image n at phase (ph, pw) for some panels.
func (j *dgradJob) phasePixels(w *worker, dy []float32, n, ph, pw, from, to int) {
	all, high, wide := j.phase(ph, pw)
	size := high * wide * j.w.o * lanes
	// The first pixel of the phase, and how many there are.
	h0, w0 := mod(ph-j.pad, j.stride), mod(pw-j.pad, j.stride)
	across := (j.dx.w - w0 + j.stride - 1) / j.stride
	pixels := max(0, (j.dx.h-h0+j.stride-1)/j.stride) * max(0, across)
	// Where the places that a pixel meets begin: the last tap comes first.
	start := func(p int) (h, w, at int) {
		h, w = h0+p/across*j.stride, w0+p%across*j.stride
		qh, qw := (h+j.pad-ph)/j.stride, (w+j.pad-pw)/j.stride
		return h, w, (qh-(high-1)+j.before)*j.row + (qw-(wide-1)+j.before)*j.dy.c
	}
	run, per := j.w.o, wide
	if j.w.groups == 1 {
		run, per = j.w.o*wide, 1
	}
	for first := 0; first < pixels; first += block {
		last := min(first+block, pixels)
		for panel := from; panel < to; panel++ {
			if w.e.halted() {
				return
			}
			group := panel / j.panels
			c0 := group*j.w.c + panel%j.panels*lanes
			live := min(lanes, (group+1)*j.w.c-c0)
			b := all[panel*size:][:size]
			for p := first; p < last; p += rows {
				ha, wa, a := start(p)
				hb, wb, b1 := start(min(p+1, last-1))
				var c acc
				for r := range high * per * min(wide, 1) {
					at := r/per*j.row + r%per*j.dy.c + group*j.w.o
					tile(&c, dy[a+at:][:run], dy[b1+at:][:run], b[r*run*lanes:][:run*lanes])
				}
				copy(j.dx.line(n, ha)[wa*j.dx.c+c0:][:live], c[:])
				copy(j.dx.line(n, hb)[wb*j.dx.c+c0:][:live], c[lanes:])
			}
		}
	}
}

func mod(a, m int) int { return (a%m + m) % m }
