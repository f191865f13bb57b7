package host

import (
	"sluice/gpu/host/simd"
	"sluice/net"
)

// dataGradOf is a convolution of dy, which gives the gradient of the input.
func dataGradOf(f *simd.Winograd, dx net.Shape, w *weight, t *simd.Tiles) winoJob {
	return winoJob{
		grid: newGrid(f, dx), cells: cells{stride: 1, x: view{c: w.groups * w.o}}, window: w.height,
		groups: w.groups, in: w.o, out: w.c, tiles: t, panels: panels(w.c, t),
	}
}

// winoGradJob is the gradient of a convolution's weights by Winograd's algorithm:
// for each plane the sum over tiles of x * dy. It takes a block of tiles at a time,
// first its pixels (a task is a few tiles), then its sums (a task is a panel of a
// plane). Blocks are fixed by the shapes, for they decide the order of the sums.
type winoGradJob struct {
	grid
	cells
	dy       view
	w        weight // dw
	in       int    // channels of a group, of cells
	blocks   int
	from, to int // the block at hand
	v, d     []float32
	vRow     int // floats between tiles of a plane of x
	vPlane   int
	dRow     int // of dy: [group][out/lanes][lanes]
	dPlane   int
	sums     []float32 // see filterJob
	plane    int
}

// A block's pixels are what the third cache holds, but where the sums that each
// block adds to are more, it is better to come by less often.
const (
	winoGradLeast = 1 << 20 // floats
	winoGradMost  = 8 << 20
	winoGradCut   = 6 // tiles of a task
)

func weightGradOf(f *simd.Winograd, y net.Shape, w weight, stride int) winoGradJob {
	return winoGradJob{grid: newGrid(f, y), cells: cells{stride: stride, x: view{c: w.groups * w.c}}, w: w, in: stride * stride * w.c}
}

// cut decides about blocks and the layout of scratch memory, of which it tells the
// size: x, dy, sums.
func (j *winoGradJob) cut() (x, dy, sums int) {
	lanes, n := j.w.tiles.Lanes, j.grid.tiles()
	j.vRow, j.dRow, j.plane = unaligned(j.w.groups*j.in), unaligned(j.w.total*lanes), unaligned(j.w.total*j.in*lanes)
	sums = j.planes() * j.plane
	floats := min(max(2*sums, winoGradLeast), winoGradMost)
	block := min(n, max(winoTerms/2, floats/(j.planes()*(j.vRow+j.dRow))))
	j.blocks = (n + block - 1) / block
	block = (n + j.blocks - 1) / j.blocks
	j.vPlane, j.dPlane = block*j.vRow+align, block*j.dRow+align
	return j.planes() * j.vPlane, j.planes() * j.dPlane, sums
}

func (e *Engine) winoWeightGrad(f *simd.Winograd, dw, dy, x *net.Tensor, g net.Conv) {
	j := &e.jobs.winoGrad
	*j = weightGradOf(f, dy.Shape, openWeight(dw), g.Stride)
	j.x, j.dy, j.pad = open(x), open(dy), g.Pad
	v, d, sums := j.cut()
	scratch := dw.Mem.(*memory).scratch
	if len(scratch) < v+d+sums { // other tensors were planned for
		scratch = need(&e.scratch, v+d+sums)
	}
	j.v, j.d, j.sums = scratch[:v], scratch[v:v+d], scratch[v+d:]
	if j.w.o%j.w.tiles.Lanes != 0 { // lanes that no output has
		clear(j.d)
	}
	e.zeroed(simd.MaxSide * max(j.x.c, j.dy.c))
	back := &e.jobs.filter
	*back = j.filter()
	back.panels, back.u = j.w.f, j.sums
	e.reserve(back.copied(), j.patch(f.Side))
	n := j.grid.tiles()
	for b := range j.blocks {
		j.from, j.to = b*n/j.blocks, (b+1)*n/j.blocks
		e.run("ConvGrad", (j.to-j.from+winoGradCut-1)/winoGradCut, (*winoCutJob)(j))
		e.run("ConvGrad", j.planes()*j.w.total, j)
	}
	e.run("ConvGrad", j.w.total, back)
}

// filter is the job that makes weights of the sums, without memory.
func (j *winoGradJob) filter() filterJob {
	return filterJob{form: j.form, size: j.in * j.w.tiles.Lanes, plane: j.plane, back: true, window: j.w.height, stride: j.stride}
}

// winoCutJob transforms the pixels of a block.
type winoCutJob winoGradJob

func (j *winoCutJob) do(w *worker, task int) {
	p, lanes := &w.patch, j.w.tiles.Lanes
	from := j.from + task*winoGradCut
	for t := from; t < min(from+winoGradCut, j.to); t++ {
		n, h, v := j.at(t)
		*p = simd.Patch{Plane: 4 * j.vPlane}
		j.image(w, j.form, j.v[(t-j.from)*j.vRow:], n, h, v)
		p.Plane, p.N = 4*j.dPlane, j.w.o
		for g := range j.w.groups {
			p.Planes = &j.d[(t-j.from)*j.dRow+g*j.w.panels*lanes]
			j.dy.cut(p, w.e.zeros, n, h, v, j.form.Out, g*j.w.o)
			j.form.OutputGrad(p)
		}
	}
}

func (j *winoGradJob) do(w *worker, task int) {
	plane, panel := task/j.w.total, task%j.w.total
	lanes, n := j.w.tiles.Lanes, j.to-j.from
	o := &w.outer
	*o = simd.Outer{AStep: 4 * j.vRow, BStep: 4 * j.dRow, Lines: 1, LDC: 4 * lanes}
	if j.from > 0 {
		o.Add = 1
	}
	v, d := j.v[plane*j.vPlane+panel/j.w.panels*j.in:], j.d[plane*j.dPlane+panel*lanes:]
	sums := j.sums[plane*j.plane+panel*j.in*lanes:]
	tiles, terms := (j.in+j.w.tiles.Rows-1)/j.w.tiles.Rows, (n+winoTerms-1)/winoTerms
	for term := range terms {
		first, last := term*n/terms, (term+1)*n/terms
		o.B, o.N = &d[first*j.dRow], last-first
		for i := range tiles {
			r, next := i*j.in/tiles, (i+1)*j.in/tiles
			o.A, o.C = &v[first*j.vRow+r], &sums[r*lanes]
			j.w.tiles.Outer(next-r, o)
		}
		o.Add = 1
	}
}
