package host

import (
	"sluice/gpu/host/simd"
	"sluice/net"
)

// Blocks of a dense layer's product, so that what is used again stays in a core's
// second cache: inputs at a time and outputs of a task going forward, places of
// the matrix of a task and outputs at a time going backward.
const (
	denseInputs  = 512
	denseOutputs = 64
	densePlaces  = 112
	denseDeltas  = 1024
)

// flattenJob copies images without their halo. A task is an image.
type flattenJob struct {
	x      view
	dst    []float32
	stride int
}

// flat gives the images of v as rows without halo, stride floats apart: not a
// multiple of 4 KiB, for then the rows of a tile would compete for few places of
// the cache.
func (e *Engine) flat(op string, v view) (rows []float32, stride int) {
	stride = (v.h*v.w*v.c + align - 1) / align * align
	if stride%256 == 0 {
		stride += align
	}
	j := &e.jobs.flatten
	*j = flattenJob{v, need(&e.flatX, v.n*stride), stride}
	e.run(op, v.n, j)
	return j.dst, stride
}

func (j *flattenJob) do(_ *worker, n int) {
	size := j.x.w * j.x.c
	for h := range j.x.h {
		copy(j.dst[n*j.stride+h*size:][:size], j.x.line(n, h))
	}
}

// denseJob is the forward pass: rows of x times panels of w. A task is
// denseOutputs outputs of all images.
type denseJob struct {
	x, b   []float32
	stride int
	y      view
	w      weight
	act    net.Activation
	panels int // of a task
}

// Dense computes y = act(w x + b).
func (e *Engine) Dense(y, x, w, b *net.Tensor, act net.Activation) {
	if !e.ready("Dense", y, x, w, b) || !e.denseFits("Dense", y, x, w, b, act) {
		return
	}
	j := &e.jobs.dense
	j.x, j.stride = e.flat("Dense", open(x))
	j.y, j.w, j.act = open(y), openWeight(w), act
	j.b = e.biased(b, &j.w)
	j.panels = max(1, denseOutputs/j.w.tiles.Lanes)
	e.run("Dense", (j.w.panels+j.panels-1)/j.panels, j)
}

func (j *denseJob) do(w *worker, task int) {
	k, n, lanes := j.w.k, j.y.n, j.w.tiles.Lanes
	from, to := task*j.panels, min((task+1)*j.panels, j.w.panels)
	for k0 := 0; k0 < k; k0 += denseInputs {
		size := min(denseInputs, k-k0)
		for panel := from; panel < to; panel++ {
			if w.e.halted() {
				return
			}
			o := panel * lanes
			live := min(lanes, j.w.o-o)
			y := j.y.f[j.y.origin+o:]
			p := &w.product
			*p = simd.Product{Stride: 4 * j.stride, Offsets: &w.none, Segments: 1, K: size, B: &j.w.f[(panel*k+k0)*lanes]}
			if k0 == 0 {
				p.Bias = &j.b[o]
			} else {
				p.Flags = simd.Add
			}
			if k0+size == k && j.act == net.ReLU {
				p.Flags |= simd.ReLU
			}
			tiles := (n + j.w.tiles.Rows - 1) / j.w.tiles.Rows
			for i := range tiles {
				first, last := i*n/tiles, (i+1)*n/tiles
				p.A = &j.x[first*j.stride+k0]
				w.store(j.w.tiles, last-first, y[first*j.y.image:], j.y.image, live)
			}
			if k0+size == k && j.act == net.Tanh {
				for i := range n {
					w.points.Tanh(y[i*j.y.image:][:live])
				}
			}
		}
	}
	if from == 0 {
		for i := range n {
			j.y.borders(i)
		}
	}
}

func (e *Engine) denseFits(op string, y, x, w, b *net.Tensor, act net.Activation) bool {
	return e.fits(op, net.DenseFits(y, x, w, b, act))
}

// DenseGrad computes the gradients of Dense, see ConvGrad.
func (e *Engine) DenseGrad(dx, dw, db, dy, y, x, w *net.Tensor, act net.Activation) {
	if !e.ready("DenseGrad", dy, y, x, w) || !e.wanted("DenseGrad", dw, db) || !e.denseFits("DenseGrad", y, x, w, db, act) ||
		!e.expect("DenseGrad", "dy", dy, net.Map, y.Shape) || dw != nil && !e.expect("DenseGrad", "dw", dw, net.Matrix, w.Shape) {
		return
	}
	if dx != nil && (!e.ready("DenseGrad", dx) || !e.expect("DenseGrad", "dx", dx, net.Map, x.Shape)) {
		return
	}
	e.delta("DenseGrad", db, dy, y, act)
	if dw != nil {
		e.denseWeightGrad(dw, dy, x)
	}
	if dx != nil {
		e.denseDataGrad(dx, dy, w)
	}
}

// dealJob cuts dy into panels of outputs, [o/lanes][n][lanes]. A task is one.
type dealJob struct {
	dy    view
	lanes int
	dst   []float32
}

func (j *dealJob) do(_ *worker, task int) {
	from, to := task*j.lanes, min((task+1)*j.lanes, j.dy.c)
	for n := range j.dy.n {
		dst := j.dst[(task*j.dy.n+n)*j.lanes:][:j.lanes]
		clear(dst[copy(dst, j.dy.line(n, 0)[from:to]):])
	}
}

// denseWeightJob sums x * dy over images. A task is some places of every panel.
type denseWeightJob struct {
	x, dy  []float32
	stride int
	w      weight
	n      int
}

func (e *Engine) denseWeightGrad(dw, dy, x *net.Tensor) {
	j, d := &e.jobs.denseW, &e.jobs.deal
	j.x, j.stride = e.flat("DenseGrad", open(x))
	j.w, j.n = openWeight(dw), x.Shape.N
	lanes := j.w.tiles.Lanes
	j.dy = need(&e.scratch, j.w.panels*j.n*lanes)
	*d = dealJob{open(dy), lanes, j.dy}
	e.run("DenseGrad", j.w.panels, d)
	e.reserve(j.n*densePlaces, 0)
	e.run("DenseGrad", (j.w.k+densePlaces-1)/densePlaces, j)
}

func (j *denseWeightJob) do(w *worker, task int) {
	lanes, n := j.w.tiles.Lanes, j.n
	from := task * densePlaces
	size := min(densePlaces, j.w.k-from)
	tiles := (size + j.w.tiles.Rows - 1) / j.w.tiles.Rows
	// The places of a tile side by side, image after image.
	xs := need(&w.buf, n*densePlaces)
	for i := range tiles {
		first, last := i*size/tiles, (i+1)*size/tiles
		dst := xs[first*n : last*n]
		for src := j.x[from+first:]; ; src = src[j.stride:] {
			dst = dst[copy(dst[:last-first], src):]
			if len(dst) == 0 {
				break
			}
		}
	}
	o := &w.outer
	for panel := range j.w.panels {
		if w.e.halted() {
			return
		}
		*o = simd.Outer{B: &j.dy[panel*n*lanes], BStep: 4 * lanes, N: n, Lines: 1, LDC: 4 * lanes}
		for i := range tiles {
			first, last := i*size/tiles, (i+1)*size/tiles
			o.A, o.AStep = &xs[first*n], 4*(last-first)
			o.C = &j.w.f[(panel*j.w.k+from+first)*lanes]
			j.w.tiles.Outer(last-first, o)
		}
	}
}

// turnJob turns dy into panels of images, [n/lanes][outputs][lanes], with zeros
// for images and outputs that are not there. A task is turnedOutputs of them.
type turnJob struct {
	dy      view
	lanes   int
	outputs int // with those of the last panel of weights that are not there
	dst     []float32
}

const turnedOutputs = 32

func (j *turnJob) do(_ *worker, task int) {
	from, to := task*turnedOutputs, min((task+1)*turnedOutputs, j.outputs)
	for first := 0; first < j.dy.n; first += j.lanes {
		dst := j.dst[(first/j.lanes*j.outputs+from)*j.lanes:][:(to-from)*j.lanes]
		clear(dst)
		for n := first; n < min(first+j.lanes, j.dy.n); n++ {
			for i, v := range j.dy.line(n, 0)[min(from, j.dy.c):min(to, j.dy.c)] {
				dst[i*j.lanes+n-first] = v
			}
		}
	}
}

// denseDataJob sums w * dy over outputs: places of the matrix, which are its
// panels' rows, times panels of images. A task is some places of dx.
type denseDataJob struct {
	dx      view
	dy      []float32
	w       weight
	tiles   *simd.Tiles // with images for lanes
	panels  int         // of images
	offsets []int       // of the panels of weights, and one behind them
}

func (e *Engine) denseDataGrad(dx, dy, w *net.Tensor) {
	j, t := &e.jobs.denseData, &e.jobs.turn
	j.dx, j.w = open(dx), openWeight(w)
	j.tiles = simd.TilesFor(e.level, j.dx.n)
	j.panels = panels(j.dx.n, j.tiles)
	j.offsets = j.offsets[:0]
	for p := range j.w.panels {
		j.offsets = append(j.offsets, 4*p*j.w.k*j.w.tiles.Lanes)
	}
	j.offsets = append(j.offsets, 0)
	outputs := j.w.panels * j.w.tiles.Lanes
	j.dy = need(&e.scratch, j.panels*j.tiles.Lanes*outputs)
	*t = turnJob{open(dy), j.tiles.Lanes, outputs, j.dy}
	e.run("DenseGrad", (outputs+turnedOutputs-1)/turnedOutputs, t)
	e.reserve(densePlaces*j.panels*j.tiles.Lanes, 0)
	e.run("DenseGrad", (j.w.k+densePlaces-1)/densePlaces, j)
}

func (j *denseDataJob) do(w *worker, task int) {
	from := task * densePlaces
	size := min(densePlaces, j.w.k-from)
	tiles := (size + j.tiles.Rows - 1) / j.tiles.Rows
	sums, width := need(&w.buf, densePlaces*j.panels*j.tiles.Lanes), j.panels*j.tiles.Lanes
	deltas := max(1, denseDeltas/j.w.tiles.Lanes) // panels of weights
	p := &w.product
	for first := 0; first < j.w.panels; first += deltas {
		*p = simd.Product{
			Stride: 4 * j.w.tiles.Lanes, Offsets: &j.offsets[first], Segments: min(deltas, j.w.panels-first), K: j.w.tiles.Lanes,
			LDC: 4 * width,
		}
		flags := 0
		if first > 0 {
			flags = simd.Add
		}
		for i := range tiles {
			if w.e.halted() {
				return
			}
			place, end := i*size/tiles, (i+1)*size/tiles
			p.A = &j.w.f[(from+place)*j.w.tiles.Lanes]
			for panel := range j.panels {
				p.Flags = flags
				if panel == 0 { // the others find the weights in the cache
					p.Flags |= simd.Ahead
				}
				p.B = &j.dy[(panel*j.w.panels+first)*j.w.tiles.Lanes*j.tiles.Lanes]
				p.C = &sums[place*width+panel*j.tiles.Lanes]
				j.tiles.Product(end-place, p)
			}
		}
	}
	line := j.dx.w * j.dx.c
	for n := range j.dx.n {
		for i := 0; i < size; {
			at := from + i
			dst := j.dx.line(n, at/line)[at%line:]
			dst = dst[:min(len(dst), size-i)]
			for k := range dst {
				dst[k] = sums[(i+k)*width+n]
			}
			i += len(dst)
		}
		if from == 0 {
			j.dx.borders(n)
		}
	}
}
