package host

import "sluice/net"

// dropoutBlock is the elements of a task, a multiple of four.
const dropoutBlock = 1 << 12

// dropoutJob multiplies by the mask. Elements are taken in NCHW order, four to a
// block of random bits. A task is dropoutBlock of them.
type dropoutJob struct {
	x, y  view
	scale float32
	limit uint64
	key   net.RandomKey
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
	j.x, j.y, j.scale, j.key = open(x), open(y), 1/keep, key
	j.limit = net.KeepLimit(keep)
	e.run("Dropout", (x.Shape.Len()+dropoutBlock-1)/dropoutBlock, j)
}

func (j *dropoutJob) do(_ *worker, task int) {
	s := &j.x
	from, to := task*dropoutBlock, min((task+1)*dropoutBlock, s.n*s.c*s.h*s.w)
	// Where element from is; the loop steps it along.
	plane := s.h * s.w
	w, h, c, n := from%s.w, from/s.w%s.h, from/plane%s.c, from/plane/s.c
	for i := from; i < to; i += 4 {
		random := j.key.Block(uint32(i / 4))
		for l := range min(4, to-i) {
			x := j.x.f[j.x.origin+n*j.x.image+h*j.x.row+w*s.c+c]
			if uint64(random[l]) < j.limit {
				x *= j.scale
			} else {
				x = 0
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
}

// finish is for the halo of y, at the last pixel of an image's last channel.
func (j *dropoutJob) finish(n, c int) {
	if c == j.y.c-1 {
		j.y.borders(n)
	}
}
