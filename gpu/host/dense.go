package host

import "sluice/net"

// Blocks of a dense layer's product: inputs at a time, outputs a task, and places
// of the matrix a task of the backward passes.
const (
	denseInputs  = 512
	denseOutputs = 64
	densePlaces  = 64
	denseImages  = 256
	denseDeltas  = 256 // outputs at a time going backward
)

// flattenJob copies images without their halo. A task is an image.
type flattenJob struct {
	x   view
	dst []float32
}

// flat gives the images of v one after another in one slice, v's own where it
// has no halo.
func (e *Engine) flat(op string, v view, buf *[]float32) []float32 {
	if v.halo == 0 {
		return v.f
	}
	j := &e.jobs.flatten
	j.x, j.dst = v, need(buf, v.n*v.h*v.w*v.c)
	e.run(op, v.n, j)
	return j.dst
}

func (j *flattenJob) do(_ *worker, n int) {
	size := j.x.w * j.x.c
	for h := range j.x.h {
		copy(j.dst[(n*j.x.h+h)*size:][:size], j.x.line(n, h))
	}
}

// denseJob is the forward pass. A task is denseOutputs outputs of all images.
type denseJob struct {
	x, b []float32
	y    view
	w    weight
	act  net.Activation
}

// Dense computes y = act(w x + b).
func (e *Engine) Dense(y, x, w, b *net.Tensor, act net.Activation) {
	if !e.ready("Dense", y, x, w, b) || !e.denseFits("Dense", y, x, w, b, act) {
		return
	}
	j := &e.jobs.dense
	j.x, j.y, j.w, j.b, j.act = e.flat("Dense", open(x), &e.flatX), open(y), openWeight(w), b.Mem.(*memory).f, act
	e.reserve((j.y.n+1)*denseOutputs, 0)
	e.run("Dense", (j.w.o+denseOutputs-1)/denseOutputs, j)
}

func (j *denseJob) do(w *worker, task int) {
	k, n := j.w.k, j.y.n
	from, to := task*denseOutputs/lanes, min((task+1)*denseOutputs/lanes, j.w.panels)
	// sums is [image pair][panel] register tiles.
	pairs := (n + rows - 1) / rows
	sums := need(&w.buf, pairs*(to-from)*rows*lanes)
	clear(sums)
	for k0 := 0; k0 < k; k0 += denseInputs {
		k1 := min(k0+denseInputs, k)
		for p := from; p < to; p++ {
			if w.e.halted() {
				return
			}
			b := j.w.f[(p*k+k0)*lanes : (p*k+k1)*lanes]
			for i := range pairs {
				c := (*acc)(sums[(i*(to-from)+p-from)*rows*lanes:])
				a0, a1 := i*rows*k, min(i*rows+1, n-1)*k
				tile(c, j.x[a0+k0:a0+k1], j.x[a1+k0:a1+k1], b)
			}
		}
	}
	for i := range pairs {
		for p := from; p < to; p++ {
			c := (*acc)(sums[(i*(to-from)+p-from)*rows*lanes:])
			o := p * lanes
			live := min(lanes, j.w.o-o)
			for l := range live {
				c[l] += j.b[o+l]
				c[lanes+l] += j.b[o+l]
			}
			activate(c, j.act)
			copy(j.y.line(i*rows, 0)[o:o+live], c[:])
			if i*rows+1 < n {
				copy(j.y.line(i*rows+1, 0)[o:o+live], c[lanes:])
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
	if act < net.None || act > net.Tanh {
		e.fail("%s: unknown activation %d", op, act)
		return false
	}
	s, o := x.Shape, w.Shape.N
	return e.expect(op, "x", x, net.Map, s) &&
		e.expect(op, "w", w, net.Matrix, net.Shape{N: o, C: s.C, H: s.H, W: s.W}) &&
		e.expect(op, "b", b, net.Vector, net.Shape{N: 1, C: o, H: 1, W: 1}) &&
		e.expect(op, "y", y, net.Map, net.Shape{N: s.N, C: o, H: 1, W: 1})
}

// DenseGrad computes the gradients of Dense, see ConvGrad.
func (e *Engine) DenseGrad(dx, dw, db, dy, y, x, w *net.Tensor, act net.Activation) {
	if !e.ready("DenseGrad", dw, db, dy, y, x, w) || !e.denseFits("DenseGrad", y, x, w, db, act) ||
		!e.expect("DenseGrad", "dy", dy, net.Map, y.Shape) || !e.expect("DenseGrad", "dw", dw, net.Matrix, w.Shape) {
		return
	}
	if dx != nil && (!e.ready("DenseGrad", dx) || !e.expect("DenseGrad", "dx", dx, net.Map, x.Shape)) {
		return
	}
	e.actGrad("DenseGrad", dy, y, act)
	e.sumPixels("DenseGrad", db, dy)
	flatDY := e.flat("DenseGrad", open(dy), &e.scratch)

	g := &e.jobs.denseW
	g.x, g.dy, g.w, g.n = e.flat("DenseGrad", open(x), &e.flatX), flatDY, openWeight(dw), x.Shape.N
	e.reserve(min(g.n, denseImages)*(densePlaces+denseDeltas), 0)
	e.run("DenseGrad", (g.w.k+densePlaces-1)/densePlaces, g)
	if dx == nil {
		return
	}
	d := &e.jobs.denseData
	d.dx, d.dy, d.w = open(dx), flatDY, openWeight(w)
	e.reserve((d.dx.n+1+denseDeltas)*densePlaces, 0)
	e.run("DenseGrad", (d.w.k+densePlaces-1)/densePlaces, d)
}

// denseWeightJob sums x * dy over images. A task is densePlaces places of every
// panel.
type denseWeightJob struct {
	x, dy []float32
	w     weight
	n     int
}

func (j *denseWeightJob) do(w *worker, task int) {
	k, o := j.w.k, j.w.o
	from, to := task*densePlaces, min((task+1)*densePlaces, k)
	pairs := (to - from + rows - 1) / rows
	chunk := min(j.n, denseImages)
	buf := need(&w.buf, chunk*(pairs*rows+denseDeltas))
	xs, ys := buf[:chunk*pairs*rows], buf[chunk*pairs*rows:]
	for n0 := 0; n0 < j.n; n0 += chunk {
		size := min(chunk, j.n-n0)
		for i := range size {
			packPixel(xs[i*rows:], size*rows, j.x[(n0+i)*k+from:(n0+i)*k+to], rows)
		}
		for o0 := 0; o0 < o; o0 += denseDeltas {
			if w.e.halted() {
				return
			}
			o1 := min(o0+denseDeltas, o)
			for i := range size {
				packPixel(ys[i*lanes:], size*lanes, j.dy[(n0+i)*o+o0:(n0+i)*o+o1], lanes)
			}
			for p := range panels(o1 - o0) {
				dw := j.w.f[((o0/lanes+p)*k+from)*lanes : ((o0/lanes+p)*k+to)*lanes]
				if n0 == 0 {
					clear(dw)
				}
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

// denseDataJob sums w * dy over outputs. A task is densePlaces places of dx.
type denseDataJob struct {
	dx view
	dy []float32
	w  weight
}

func (j *denseDataJob) do(w *worker, task int) {
	k, o, n := j.w.k, j.w.o, j.dx.n
	from, to := task*densePlaces, min((task+1)*densePlaces, k)
	quads := panels(to - from)
	pairs := (n + rows - 1) / rows
	buf := need(&w.buf, pairs*quads*rows*lanes+quads*denseDeltas*lanes)
	sums, turned := buf[:pairs*quads*rows*lanes], buf[pairs*quads*rows*lanes:]
	clear(sums)
	for o0 := 0; o0 < o; o0 += denseDeltas {
		if w.e.halted() {
			return
		}
		o1 := min(o0+denseDeltas, o)
		size := o1 - o0
		// turned is [quad of places][output][4].
		clear(turned)
		for i := range size {
			src := j.w.f[((o0+i)/lanes*k+from)*lanes+(o0+i)%lanes:]
			for p := range to - from {
				turned[(p/lanes*size+i)*lanes+p%lanes] = src[p*lanes]
			}
		}
		for q := range quads {
			b := turned[q*size*lanes:][:size*lanes]
			for i := range pairs {
				a0, a1 := i*rows*o, min(i*rows+1, n-1)*o
				tile((*acc)(sums[(i*quads+q)*rows*lanes:]), j.dy[a0+o0:a0+o1], j.dy[a1+o0:a1+o1], b)
			}
		}
	}
	width := j.dx.w * j.dx.c
	for i := range n {
		for p := from; p < to; p++ {
			q := p - from
			v := sums[((i/rows*quads+q/lanes)*rows+i%rows)*lanes+q%lanes]
			j.dx.f[j.dx.origin+i*j.dx.image+p/width*j.dx.row+p%width] = v
		}
		if from == 0 {
			j.dx.borders(i)
		}
	}
}
