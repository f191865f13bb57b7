package host

import (
	"sluice/gpu/host/simd"
	"sluice/net"
)

// ConvGrad computes the gradients of Conv, after turning dy into the gradient of
// what went into the activation.
func (e *Engine) ConvGrad(dx, dw, db, dy, y, x, w *net.Tensor, g net.Conv) {
	if !e.ready("ConvGrad", dy, y, x, w) || !e.wanted("ConvGrad", dw, db) || !e.convFits("ConvGrad", y, x, w, db, g) ||
		!e.expect("ConvGrad", "dy", dy, net.Map, y.Shape) || dw != nil && !e.expect("ConvGrad", "dw", dw, net.Filter, w.Shape) {
		return
	}
	if dw != nil && dw.FilterGroups() != w.FilterGroups() {
		e.fail("ConvGrad: %q was made for %d groups, not %d", dw.Name, dw.FilterGroups(), w.FilterGroups())
		return
	}
	if dx != nil && (!e.ready("ConvGrad", dx) || !e.expect("ConvGrad", "dx", dx, net.Map, x.Shape)) {
		return
	}
	e.delta("ConvGrad", db, dy, y, g.Act)
	if dw != nil {
		e.convWeightGrad(dw, dy, x, g)
	}
	if dx != nil {
		e.convDataGrad(dx, dy, w, g)
	}
}

// wanted says whether the gradients of weight and bias are both wanted and ready, or
// neither is wanted.
func (e *Engine) wanted(op string, dw, db *net.Tensor) bool {
	return dw == nil && db == nil || e.ready(op, dw, db)
}

// deltaJob multiplies dy by the activation's derivative, told by y, and sums it
// over images and pixels into a bias's gradient while it is in the cache. A task
// is a part of the images, which has its own sums. Without a bias there are none.
type deltaJob struct {
	dy, y  view
	act    net.Activation
	points *simd.Points
	tiles  *simd.Tiles
	parts  int
	width  int       // of the sums of a part
	sums   []float32 // whole panels a part
	bias   bool
}

const deltaParts = 16

func (e *Engine) delta(op string, db, dy, y *net.Tensor, act net.Activation) {
	if db == nil && act == net.None {
		return
	}
	j := &e.jobs.delta
	*j = deltaJob{bias: db != nil, dy: open(dy), y: open(y), act: act, points: simd.PointsOf(e.level), tiles: simd.TilesFor(e.level, dy.Shape.C)}
	j.parts = min(j.dy.n, deltaParts)
	j.width = panels(j.dy.c, j.tiles) * j.tiles.Lanes
	j.sums = need(&e.scratch, j.parts*j.width)
	e.run(op, j.parts, j)
	if db == nil {
		return
	}
	sum := db.Mem.(*memory).f
	copy(sum, j.sums)
	for part := 1; part < j.parts; part++ {
		for i, v := range j.sums[part*j.width:][:len(sum)] {
			sum[i] += v
		}
	}
}

func (j *deltaJob) do(w *worker, part int) {
	from, to := part*j.dy.n/j.parts, (part+1)*j.dy.n/j.parts
	sums := j.sums[part*j.width:][:j.width]
	clear(sums)
	for n := from; n < to; n++ {
		if w.e.halted() {
			return
		}
		for h := range j.dy.h {
			j.slope(j.dy.line(n, h), j.y.line(n, h))
			if j.bias && j.dy.h*j.dy.w > 1 { // a line's sum first, which keeps the sums short
				j.sum(w, sums, j.dy.line(n, h), j.dy.c, j.dy.w)
			}
		}
	}
	if j.bias && j.dy.h*j.dy.w == 1 {
		j.sum(w, sums, j.dy.line(from, 0), j.dy.image, to-from)
	}
}

func (j *deltaJob) slope(dy, y []float32) {
	switch j.act {
	case net.ReLU:
		j.points.ReLUGrad(dy, y)
	case net.Tanh:
		for i, v := range y { // 1 - v*v would cancel near 1
			dy[i] *= (1 - v) * (1 + v)
		}
	}
}

// sum adds pixels that lie step floats apart: their outer product with ones. A
// panel that is not full adds what lies behind the last channel too, to sums of no
// use; but behind the last pixel may lie what another task writes.
func (j *deltaJob) sum(w *worker, sums, dy []float32, step, pixels int) {
	o := &w.outer
	for at := 0; at < len(sums); at += j.tiles.Lanes {
		n := pixels
		if at+j.tiles.Lanes > j.dy.c {
			n--
			for i, v := range dy[n*step+at : n*step+j.dy.c] {
				sums[at+i] += v
			}
		}
		if n > 0 {
			*o = simd.Outer{A: &w.one, B: &dy[at], BStep: 4 * step, N: n, Lines: 1, C: &sums[at], Add: 1}
			j.tiles.Outer(1, o)
		}
	}
}

// wgradJob sums x * dy over images and pixels: x is read where it lies, some
// lines of dy are cut into panels that stay in a core's first cache. Its units are
// a row of the window for one panel of outputs. Of a small dw every part of the
// images makes a copy, which addPartsJob then adds up: a task is a part, and reads
// its images once. Otherwise a task is some units over all images; how many is
// nothing to a unit's sums, so that it may depend on the threads.
type wgradJob struct {
	convGeometry // y is dy, w is dw
	units, parts int
	perTask      int       // units
	copies       []float32 // of all parts but the first
	lines        int       // of dy at a time
}

const (
	wgradTasks  = 6 // a thread
	wgradParts  = 16
	wgradCopied = 64 << 10 // floats of dw, at most
	wgradPixels = 176      // at a time
)

func (e *Engine) convWeightGrad(dw, dy, x *net.Tensor, g net.Conv) {
	if f := e.form(dy.Shape, g, dw.Shape); f != nil {
		e.transformed++
		e.winoWeightGrad(f, dw, dy, x, g)
		return
	}
	e.direct++
	j := &e.jobs.wgrad
	j.open(x, dy, dw, g)
	size, tasks := j.w.total*j.w.k*j.w.tiles.Lanes, j.w.total*j.w.height
	j.units, j.parts = tasks, 1
	j.perTask = max(1, tasks/(wgradTasks*e.threads))
	if j.w.total%e.threads == 0 { // every panel is dealt once, and no thread has more of them
		j.perTask = max(1, j.w.total/(wgradTasks*e.threads)) * j.w.height
	}
	tasks = (j.units + j.perTask - 1) / j.perTask
	if size <= wgradCopied && j.y.n > 1 {
		j.parts = min(j.y.n, wgradParts)
		tasks = j.parts
	}
	j.lines = min(max(1, wgradPixels/j.y.w), j.y.h)
	j.copies = need(&e.scratch, (j.parts-1)*size)
	e.reserve(j.padding(), j.lines*j.y.w*j.w.tiles.Lanes)
	e.run("ConvGrad", tasks, j)
	if j.parts > 1 {
		a := &e.jobs.addParts
		*a = addPartsJob{sum: j.w.f[:size], rest: j.copies}
		e.run("ConvGrad", (size+addedFloats-1)/addedFloats, a)
	}
}

func (j *wgradJob) do(w *worker, task int) {
	part, first, last := 0, task*j.perTask, min((task+1)*j.perTask, j.units)
	dw := j.w.f
	if j.parts > 1 {
		part, first, last = task, 0, j.units
		if part > 0 {
			size := len(j.copies) / (j.parts - 1)
			dw = j.copies[(part-1)*size:][:size]
		}
	}
	from, to := part*j.y.n/j.parts, (part+1)*j.y.n/j.parts
	add := 0
	for n := from; n < to; n++ {
		x := j.padded(n, &w.buf)
		for h := 0; h < j.y.h; h += j.lines {
			for unit := first; unit < last; unit++ {
				if w.e.halted() {
					return
				}
				if unit == first || unit%j.w.height == 0 {
					j.deal(w.alt, n, h, unit/j.w.height)
				}
				j.unit(w, dw, x, h, unit, add)
			}
			add = 1
		}
	}
}

// deal cuts lines of dy into one panel, [line][pixel][lanes].
func (j *wgradJob) deal(dst []float32, n, h, panel int) {
	lanes := j.w.tiles.Lanes
	first := panel % j.w.panels * lanes
	live := min(lanes, j.w.o-first)
	for i := range min(j.lines, j.y.h-h) {
		src := j.y.line(n, h+i)[panel/j.w.panels*j.w.o+first:]
		for p := 0; p < j.y.w; p, dst = p+1, dst[lanes:] {
			copy(dst[:live], src[p*j.y.c:])
			clear(dst[live:lanes])
		}
	}
}

// unit adds some lines of an image to a unit of dw; it is the first sum if add is 0.
func (j *wgradJob) unit(w *worker, dw, x []float32, h, unit, add int) {
	lanes := j.w.tiles.Lanes
	panel, kh := unit/j.w.height, unit%j.w.height
	length := j.win.length
	o := &w.outer
	*o = simd.Outer{
		AStep: 4 * j.stride * j.c, ALine: 4 * j.stride * j.row,
		B: &w.alt[0], BStep: 4 * lanes, BLine: 4 * lanes * j.y.w,
		N: j.y.w, Lines: min(j.lines, j.y.h-h),
		LDC: 4 * lanes, Add: add,
	}
	tiles := (length + j.w.tiles.Rows - 1) / j.w.tiles.Rows
	per := j.win.runs / j.w.height
	for run := kh * per; run < (kh+1)*per; run++ {
		a := x[j.origin+h*j.stride*j.row+panel/j.w.panels*j.w.c+j.win.run(run, &j.w, j.row, j.c):]
		_ = a[(o.Lines-1)*j.stride*j.row+(j.y.w-1)*j.stride*j.c+length-1] // what the kernel reads
		c := dw[(panel*j.w.k+run*length)*lanes:][:length*lanes]
		for i := range tiles {
			first, last := i*length/tiles, (i+1)*length/tiles
			o.A, o.C = &a[first], &c[first*lanes]
			j.w.tiles.Outer(last-first, o)
		}
	}
}

// addPartsJob adds to a sum the parts of it that lie one after another in rest.
// A task is some floats.
type addPartsJob struct{ sum, rest []float32 }

const addedFloats = 2048

func (j *addPartsJob) do(_ *worker, task int) {
	from, to := task*addedFloats, min((task+1)*addedFloats, len(j.sum))
	sum := j.sum[from:to]
	for at := 0; at < len(j.rest); at += len(j.sum) {
		for i, v := range j.rest[at+from : at+to] {
			sum[i] += v
		}
	}
}

// dgradJob is the gradient of a convolution's input. The pixels of dx fall into
// stride x stride phases; those of one phase see the same places of the window,
// one stride apart, so that each phase is a convolution of dy with stride 1. A
// task is a part of the input channels of an image.
type dgradJob struct {
	dx, dy view
	w      weight // of the forward pass
	tiles  *simd.Tiles
	stride int
	panels int // of input channels, of one group
	parts  int
	before int // zeros before dy's rows and columns
	row    int // of the padded image
	image  int
	phases []phase // the first stride x stride
}

// phase is the sweep of one phase, and how many places of the window it sees. Its
// panels are [group][I/lanes][kh backwards][kw backwards][O][lanes].
type phase struct {
	sweep
	ph, pw, kh, kw int
}

// taps is how many places of a window of size meet a phase.
func taps(size, phase, stride int) int {
	return max(0, (size-phase+stride-1)/stride)
}

func mod(a, m int) int { return (a%m + m) % m }

func (e *Engine) convDataGrad(dx, dy, w *net.Tensor, g net.Conv) {
	j := &e.jobs.dgrad
	j.dx, j.dy, j.w = open(dx), open(dy), openWeight(w)
	j.stride = g.Stride
	j.tiles = simd.TilesFor(e.level, j.w.c)
	j.panels = panels(j.w.c, j.tiles)
	j.before = (g.Size - 1) / g.Stride
	height := j.before + max(j.dy.h, (j.dx.h-1+g.Pad)/g.Stride+1)
	width := j.before + max(j.dy.w, (j.dx.w-1+g.Pad)/g.Stride+1)
	j.row = width * j.dy.c
	j.image = height * j.row
	total := j.w.groups * j.panels
	j.parts = parts(j.dx.n, total)

	size := total * j.w.height * j.w.width * j.w.o * j.tiles.Lanes
	var shared, buf, alt int
	var f *simd.Winograd
	t := &e.jobs.wino
	if g.Stride == 1 {
		f = e.form(dx.Shape, g, w.Shape)
	}
	if f != nil {
		*t = dataGradOf(f, dx.Shape, &j.w, j.tiles)
		t.x, t.y, t.pad = j.dy, j.dx, g.Size-1-g.Pad
		shared, buf, alt = t.cut(e.threads)
	}
	scratch := need(&e.scratch, size+shared)
	flipped := scratch[:size]
	for len(j.phases) < g.Stride*g.Stride {
		j.phases = append(j.phases, phase{})
	}
	for i := range g.Stride * g.Stride {
		flipped = flipped[j.open(&j.phases[i], i/g.Stride, i%g.Stride, g.Pad, flipped):]
	}
	e.run("ConvGrad", total, (*flipJob)(j))
	if f != nil {
		e.transformed++
		e.reserve(buf, alt)
		t.filters(e, "ConvGrad", scratch[:size], scratch[size:])
		t.run(e, "ConvGrad")
		return
	}
	e.direct++
	e.reserve(j.image, 0)
	e.run("ConvGrad", j.dx.n*j.parts, j)
}

// open makes ready a phase, its panels at the beginning of some memory, of which
// it tells how much they take.
func (j *dgradJob) open(p *phase, ph, pw, pad int, memory []float32) int {
	p.ph, p.pw = ph, pw
	p.kh, p.kw = taps(j.w.height, ph, j.stride), taps(j.w.width, pw, j.stride)
	size := p.kh * p.kw * j.w.o * j.tiles.Lanes * j.panels * j.w.groups
	// The first pixel of the phase, and where the window that it meets begins:
	// the last tap comes first.
	h0, w0 := mod(ph-pad, j.stride), mod(pw-pad, j.stride)
	qh, qw := (h0+pad-ph)/j.stride-(p.kh-1)+j.before, (w0+pad-pw)/j.stride-(p.kw-1)+j.before
	s := &p.sweep
	*s = sweep{
		tiles: j.tiles, panels: memory[:size], count: j.panels, in: j.w.o, out: j.w.c,
		length: j.w.o, offsets: s.offsets[:0],
		high: max(0, (j.dx.h-h0+j.stride-1)/j.stride), wide: max(0, (j.dx.w-w0+j.stride-1)/j.stride),
		from: qh*j.row + qw*j.dy.c, line: j.row, step: j.dy.c,
		to: j.dx.origin + h0*j.dx.row + w0*j.dx.c, toLine: j.stride * j.dx.row, toStep: j.stride * j.dx.c,
	}
	across := p.kw
	if j.w.groups == 1 && p.kw > 0 { // neighbours are one run
		s.length, across = s.length*p.kw, 1
	}
	for h := range p.kh {
		for w := range across {
			s.offsets = append(s.offsets, 4*(h*j.row+w*j.dy.c))
		}
	}
	return size
}

// flipJob cuts the weights into panels of input channels. A task is one panel.
type flipJob dgradJob

func (j *flipJob) do(_ *worker, task int) {
	group, first := task/j.panels, task%j.panels*j.tiles.Lanes
	lanes, from := j.tiles.Lanes, j.w.tiles.Lanes
	live := min(lanes, j.w.c-first)
	for i := range j.stride * j.stride {
		p := &j.phases[i]
		size := p.kh * p.kw * j.w.o * lanes
		dst := p.panels[task*size:][:size]
		for th := range p.kh {
			for tw := range p.kw {
				kh, kw := p.ph+(p.kh-1-th)*j.stride, p.pw+(p.kw-1-tw)*j.stride
				for o := range j.w.o {
					src := j.w.f[((group*j.w.panels+o/from)*j.w.k+(kh*j.w.width+kw)*j.w.c+first)*from+o%from:]
					to := dst[((th*p.kw+tw)*j.w.o+o)*lanes:][:lanes]
					for l := range live {
						to[l] = src[l*from]
					}
					clear(to[live:])
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
	dx := j.dx.f[n*j.dx.image:][:j.dx.image]
	for i := range j.stride * j.stride {
		j.phases[i].sweep.image(w, dy, dx, part*total/j.parts, (part+1)*total/j.parts)
	}
}
