package host

import "sluice/net"

// dropoutBlock is the elements of a task, a multiple of four.
const dropoutBlock = 1 << 12

// dropoutJob multiplies by the mask. Elements are taken in NCHW order, four to a
// block of random bits. A task is dropoutBlock of them.
type dropoutJob struct {
	x, y  view
	scale float32
	limit uint32
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
	j.limit = uint32(float64(keep) * (1 << 32))
	e.run("Dropout", (x.Shape.Len()+dropoutBlock-1)/dropoutBlock, j)
}

func (j *dropoutJob) do(_ *worker, task int) {
	s := &j.x
	from, to := task*dropoutBlock, min((task+1)*dropoutBlock, s.n*s.c*s.h*s.w)
	// Where element from is; the loop steps it along.
	plane := s.h * s.w
	w, h, c, n := from%s.w, from/s.w%s.h, from/plane%s.c, from/plane/s.c
	for i := from; i < to; i += 4 {
		random := maskBits(j.key, uint64(i/4))
		for l := range min(4, to-i) {
			x := j.x.f[j.x.origin+n*j.x.image+h*j.x.row+w*s.c+c]
			if random[l] < j.limit {
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

// maskBits are the random numbers of elements 4*block to 4*block+3: Philox
// 4x32-10 with the seed as key and (block, layer, step) as counter.
func maskBits(key net.RandomKey, block uint64) [4]uint32 {
	c := [4]uint32{uint32(block), key.Layer, uint32(key.Step), uint32(key.Step >> 32)}
	k0, k1 := uint32(key.Seed), uint32(key.Seed>>32)
	for range 10 {
		p, q := uint64(c[0])*0xD2511F53, uint64(c[2])*0xCD9E8D57
		c = [4]uint32{uint32(q>>32) ^ c[1] ^ k0, uint32(q), uint32(p>>32) ^ c[3] ^ k1, uint32(p)}
		k0, k1 = k0+0x9E3779B9, k1+0xBB67AE85
	}
	return c
}
