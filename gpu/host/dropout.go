package host

import (
	"sluice/gpu/host/simd"
	"sluice/net"
)

// dropoutBlock is the elements of a task, a multiple of four.
const dropoutBlock = 1 << 12

// dropoutJob multiplies by the mask. Elements are taken in NCHW order, four to a
// block of random bits. A task is dropoutBlock of them.
type dropoutJob struct {
	points *simd.Points
	x, y   view
	flat   bool // NCHW is the order in memory
	scale  float32
	limit  uint32
	key    net.RandomKey
}

// Dropout is y = x * mask / keep.
func (e *Engine) Dropout(y, x *net.Tensor, keep float32, key net.RandomKey) {
	if !e.ready("Dropout", y, x) || !e.expect("Dropout", "x", x, net.Map, x.Shape) || !e.expect("Dropout", "y", y, net.Map, x.Shape) {
		return
	}
	if !(keep > 0 && keep <= 1) {
		e.fail("Dropout: a fraction of %v cannot be kept of %q", keep, x.Name)
		return
	}
	if keep == 1 {
		e.Copy(y, x)
		return
	}
	j := &e.jobs.dropout
	j.points = simd.PointsOf(e.level)
	j.x, j.y, j.scale, j.key = open(x), open(y), 1/keep, key
	j.limit = uint32(net.KeepLimit(keep)) // keep < 1, so that it fits
	j.flat = j.x.h*j.x.w == 1 && j.x.halo+j.y.halo == 0
	if !j.flat {
		e.reserve(dropoutBlock, 0)
	}
	e.run("Dropout", (x.Shape.Len()+dropoutBlock-1)/dropoutBlock, j)
}

func (j *dropoutJob) do(worker *worker, task int) {
	s := &j.x
	from, to := task*dropoutBlock, min((task+1)*dropoutBlock, s.n*s.c*s.h*s.w)
	block := uint32(from / 4)
	if j.flat {
		j.points.Dropout(j.y.f[from:to], s.f[from:], j.key, block, j.limit, j.scale)
		return
	}
	mask := need(&worker.buf, dropoutBlock)[:to-from]
	for i := range mask {
		mask[i] = 1
	}
	j.points.Dropout(mask, mask, j.key, block, j.limit, j.scale)
	// Where element from is; the loop steps it along.
	plane := s.h * s.w
	w, h, c, n := from%s.w, from/s.w%s.h, from/plane%s.c, from/plane/s.c
	for _, m := range mask {
		x := float32(0)
		if m != 0 {
			x = m * s.f[s.origin+n*s.image+h*s.row+w*s.c+c]
		}
		j.y.f[j.y.origin+n*j.y.image+h*j.y.row+w*s.c+c] = x
		if w++; w < s.w {
			continue
		}
		w = 0
		if h++; h < s.h {
			continue
		}
		j.finish(n, c)
		h = 0
		if c++; c < s.c {
			continue
		}
		c, n = 0, n+1
	}
}

// finish is for the halo of y, at the last pixel of an image's last channel.
func (j *dropoutJob) finish(n, c int) {
	if c == j.y.c-1 {
		j.y.borders(n)
	}
}
