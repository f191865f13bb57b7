package host

import (
	"math"

	"sluice/gpu/host/simd"
	"sluice/net"
)

// Winograd says which convolutions are computed by Winograd's algorithm, see
// simd.Winograd: it multiplies less and rounds more.
type Winograd int

// The convolutions that are.
const (
	WhereItPays Winograd = iota // told by the shape
	Nowhere
	Everywhere // with a window, in cells of stride x stride pixels, that there is a form for
)

// WithWinograd has an engine compute these convolutions by Winograd's algorithm.
// Without it they are those where it pays.
func WithWinograd(w Winograd) Option { return func(e *Engine) { e.winograd = w } }

// Passes tells how many passes of convolutions (forward, the gradient of the
// input or that of the weights) were computed directly, and how many by
// Winograd's algorithm.
func (e *Engine) Passes() (direct, winograd int) { return e.direct, e.transformed }

// What computing costs beside a multiply-add of a direct convolution: one of the
// planes, whose sums are shorter; a number that is transformed, in or out; and one of a
// filter, which goes to memory and comes back. They were measured.
const (
	planeCost            = 1.2
	transformCost        = 12
	filterCost           = 40
	genericTransformCost = 55 // of any number, in plain Go
)

// form gives the form of Winograd's algorithm that computes a convolution's pass
// with the least work; nil where that is the direct one. Out is the shape of what
// the pass has tiles of: y, or the input's gradient, which only the direct way
// computes of a convolution with a stride.
func (e *Engine) form(out net.Shape, g net.Conv, w net.Shape) *simd.Winograd {
	groups := max(1, g.Groups)
	if e.winograd == Nowhere || g.Stride > 1 && groups > 1 {
		return nil
	}
	in := g.Stride * g.Stride * w.C
	pairs, channels := float64(w.N/groups*in), float64(w.N/groups+in)
	least := math.Inf(1)
	if e.winograd == WhereItPays {
		least = float64(out.H*out.W*g.Size*g.Size) * float64(w.N/groups*w.C)
	}
	transform, filter := float64(transformCost), float64(filterCost)
	if e.level == simd.Generic {
		transform, filter = genericTransformCost, genericTransformCost
	}
	var best *simd.Winograd
	for _, f := range simd.Winograds(e.level) {
		if f.Size != cellsOf(g.Size, g.Stride) {
			continue
		}
		grid := newGrid(f, out)
		images, tiles := float64(out.N), float64(grid.tiles())
		cost := float64(grid.planes()) * (tiles*(planeCost*pairs+transform*channels) + filter*pairs) / images
		if cost < least {
			best, least = f, cost
		}
	}
	return best
}

// grid is how the outputs of a batch fall into tiles of a form, image after image
// and line after line.
type grid struct {
	form         *simd.Winograd
	down, across int
	images       int
}

func newGrid(f *simd.Winograd, outputs net.Shape) grid {
	return grid{f, (outputs.H + f.Out - 1) / f.Out, (outputs.W + f.Out - 1) / f.Out, outputs.N}
}

func (g *grid) tiles() int { return g.images * g.down * g.across }

// planes is how many there are.
func (g *grid) planes() int { return g.form.Side * g.form.Side }

// at gives the image of a tile, and where in it its outputs begin.
func (g *grid) at(tile int) (n, h, w int) {
	place := tile % (g.down * g.across)
	return tile / (g.down * g.across), place / g.across * g.form.Out, place % g.across * g.form.Out
}

// unaligned is the distance in floats, at least n, of rows or planes that are
// read side by side: not a multiple of 256 bytes, for then they would compete for
// few places of the cache.
func unaligned(n int) int {
	n = (n + align - 1) / align * align
	if n%64 == 0 {
		n += align
	}
	return n
}

// cut points p at side x side pixels of image n from h, w on, some of which may
// lie outside, and of those at channel c.
func (v *view) cut(p *simd.Patch, zeros []float32, n, h, w, side, c int) {
	p.Step = 4 * v.c
	p.From, p.To = max(0, -w), min(side, v.w-w)
	p.To = max(p.To, p.From)
	for i := range side {
		p.Rows[i] = &zeros[0]
		if h+i >= 0 && h+i < v.h && p.To > p.From {
			p.Rows[i] = &v.f[v.origin+n*v.image+(h+i)*v.row+(w+p.From)*v.c+c]
		}
	}
}

// zeroed has e.zeros be at least n zeros.
func (e *Engine) zeroed(n int) { need(&e.zeros, n) }

// winoJob is a convolution by Winograd's algorithm: the forward pass, or the
// gradient of the input, which is one of dy. A task is a block of tiles and a
// part of the panels of outputs: it transforms the tiles' pixels, multiplies one
// plane after another, and transforms the sums.
type winoJob struct {
	grid
	cells
	y             view
	window        int // in pixels
	groups        int
	in, out       int // channels of a group, of cells and of y
	tiles         *simd.Tiles
	panels        int       // of outputs, of a group
	u             []float32 // see filterJob
	uPlane        int
	bias          []float32 // [group][out/lanes][lanes]; nil: 0
	act           net.Activation
	blocks, parts int
	most          int // tiles of a block
	row           int // floats between tiles of a plane of pixels
	vPlane        int
	chunk         int // panels at a time
	mPlane        int
}

// Blocks of tiles are small enough to stay in a core's share of the caches:
// their pixels in the third, what becomes the outputs in the second. Sums are of
// so many products in one go, which keeps their errors small.
const (
	winoTiles = 56        // of a block, at most
	winoLeast = 14        // and at least, however many threads there are
	winoSums  = 400 << 10 // floats
	winoTerms = 128
)

// cut decides how the work falls into blocks for so many threads, and with that the
// layout of what is between: sizes of scratch memory that all share, and of each
// worker's buf and alt. How tiles fall into blocks is nothing to their sums.
func (j *winoJob) cut(threads int) (shared, buf, alt int) {
	total, lanes, n := j.groups*j.panels, j.tiles.Lanes, j.grid.tiles()
	j.uPlane = unaligned(total * j.in * lanes)
	j.blocks = (n + winoTiles - 1) / winoTiles
	j.blocks = min((j.blocks+threads-1)/threads*threads, (n+winoLeast-1)/winoLeast)
	j.parts = min((threads+j.blocks-1)/j.blocks, total)
	j.most = (n + j.blocks - 1) / j.blocks
	j.row = unaligned(j.groups * j.in)
	j.vPlane = j.most*j.row + align
	j.chunk = min(max(1, winoSums/(j.planes()*j.most*lanes)), j.panels)
	j.mPlane = j.most*j.chunk*lanes + align
	f := j.filter()
	return j.planes() * j.uPlane, max(j.planes()*j.vPlane, f.copied()), max(j.planes()*j.mPlane, j.patch(j.form.Side))
}

// filter is the job that makes the planes of weights, without memory.
func (j *winoJob) filter() filterJob {
	return filterJob{form: j.form, size: j.in * j.tiles.Lanes, plane: j.uPlane, window: j.window, stride: j.stride}
}

// filters makes the planes of weights in panels.
func (j *winoJob) filters(e *Engine, op string, panels, scratch []float32) {
	j.u = scratch
	f := &e.jobs.filter
	*f = j.filter()
	f.panels, f.u = panels, j.u
	e.run(op, j.groups*j.panels, f)
}

// run runs the job, which was cut and has its filters.
func (j *winoJob) run(e *Engine, op string) {
	e.zeroed(simd.MaxSide * j.x.c)
	e.run(op, j.blocks*j.parts, j)
}

func (j *winoJob) do(w *worker, task int) {
	block, part := task/j.parts, task%j.parts
	n := j.grid.tiles()
	from, to := block*n/j.blocks, (block+1)*n/j.blocks
	j.pixels(w, from, to)
	total := j.groups * j.panels
	first, last := part*total/j.parts, (part+1)*total/j.parts
	for first < last && !w.e.halted() {
		count := min(j.chunk, last-first, j.panels-first%j.panels)
		j.multiply(w, to-from, first, count)
		j.outputs(w, from, to, first, count)
		first += count
	}
}

// pixels transforms the pixels of tiles, into planes in the worker's buf.
func (j *winoJob) pixels(w *worker, from, to int) {
	w.patch = simd.Patch{Plane: 4 * j.vPlane}
	for t := from; t < to; t++ {
		n, h, v := j.at(t)
		j.image(w, j.form, w.buf[(t-from)*j.row:], n, h, v)
	}
}

// multiply makes the sums of some panels: in worker's alt, planes of
// [tile][panel][lanes].
func (j *winoJob) multiply(w *worker, rows, first, count int) {
	lanes := j.tiles.Lanes
	group := first / j.panels
	p := &w.product
	*p = simd.Product{Stride: 4 * j.row, Offsets: &w.none, Segments: 1, LDC: 4 * count * lanes}
	terms, tiles := (j.in+winoTerms-1)/winoTerms, (rows+j.tiles.Rows-1)/j.tiles.Rows
	for plane := range j.planes() {
		for panel := range count {
			u := j.u[plane*j.uPlane+(first+panel)*j.in*lanes:]
			p.Flags = 0
			for term := range terms {
				k, end := term*j.in/terms, (term+1)*j.in/terms
				p.K, p.B = end-k, &u[k*lanes]
				for i := range tiles {
					r, next := i*rows/tiles, (i+1)*rows/tiles
					p.A = &w.buf[plane*j.vPlane+r*j.row+group*j.in+k]
					p.C = &w.alt[plane*j.mPlane+(r*count+panel)*lanes]
					j.tiles.Product(next-r, p)
				}
				p.Flags = simd.Add
			}
		}
	}
}

// outputs transforms the sums of some panels, adds the bias and activates.
func (j *winoJob) outputs(w *worker, from, to, first, count int) {
	lanes := j.tiles.Lanes
	group, o := first/j.panels, first%j.panels*lanes
	live := min(count*lanes, j.out-o)
	p := &w.patch
	*p = simd.Patch{Step: 4 * j.y.c, Plane: 4 * j.mPlane, N: live, Low: float32(math.Inf(-1))}
	if j.act == net.ReLU {
		p.Low = 0
	}
	if j.bias != nil {
		p.Bias = &j.bias[first*lanes]
	}
	for t := from; t < to; t++ {
		n, h, v := j.at(t)
		if first == 0 && h == 0 && v == 0 {
			j.y.borders(n)
		}
		p.High, p.To = min(j.form.Out, j.y.h-h), min(j.form.Out, j.y.w-v)
		place := j.y.origin + n*j.y.image + h*j.y.row + v*j.y.c + group*j.out + o
		for i := range p.High {
			p.Rows[i] = &j.y.f[place+i*j.y.row]
		}
		p.Planes = &w.alt[(t-from)*count*lanes]
		j.form.Output(p)
		if j.act == net.Tanh {
			for i := range p.High {
				for k := range p.To {
					w.points.Tanh(j.y.f[place+i*j.y.row+k*j.y.c:][:live])
				}
			}
		}
	}
}

// winoConv is the forward pass.
func (e *Engine) winoConv(f *simd.Winograd, y, x, w, b *net.Tensor, g net.Conv) {
	j, weights := &e.jobs.wino, openWeight(w)
	*j = forwardOf(f, y.Shape, &weights, g.Stride)
	j.x, j.y, j.pad, j.bias, j.act = open(x), open(y), g.Pad, e.biased(b, &weights), g.Act
	shared, buf, alt := j.cut(e.threads)
	e.reserve(buf, alt)
	m := w.Mem.(*memory)
	switch {
	case len(m.scratch) < shared:
		j.filters(e, "Conv", weights.f, need(&e.scratch, shared))
	case m.planes == planesOf{f, g.Stride}: // of weights that have not changed
		j.u = m.scratch
	default:
		j.filters(e, "Conv", weights.f, m.scratch)
		if !e.stopped() {
			m.planes = planesOf{f, g.Stride}
		}
	}
	j.run(e, "Conv")
}

func forwardOf(f *simd.Winograd, y net.Shape, w *weight, stride int) winoJob {
	return winoJob{
		grid: newGrid(f, y), cells: cells{stride: stride, x: view{c: w.groups * w.c}}, window: w.height,
		groups: w.groups, in: stride * stride * w.c, out: w.o, tiles: w.tiles, panels: w.panels,
	}
}
