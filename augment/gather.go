package augment

import (
	"encoding/binary"
	"math/bits"
)

// gather copies pixels of 3 bytes that lie step bytes apart.
func gather(dst, pix []byte, at, step int) {
	if step == 3 {
		copy(dst, pix[at:])
		return
	}
	for ; len(dst) > 0; dst = dst[3:] {
		p, d := pix[at:][:3], dst[:3]
		d[0], d[1], d[2] = p[0], p[1], p[2]
		at += step
	}
}

// turned is how many rows are fetched together of a plane that lies on its side.
const turned = 8

// turn fetches the block of rows that begins at p.next, a multiple of turned. They are columns
// of the stored plane, so that eight of them have a word in each of its rows.
func (p *plane) turn() {
	width, g := p.x.hi-p.x.lo, p.grid
	block := p.ring[p.next%p.depth*width:][:turned*width]
	rows := min(turned, p.y.hi-p.next)
	at := g.at + p.x.lo*g.dx + p.next*g.dy
	x := 0
	if rows == turned {
		if g.dy < 0 {
			at += (turned - 1) * g.dy
		}
		for ; x+8 <= width; x += 8 {
			var w [8]uint64
			for i := range w {
				w[i] = binary.LittleEndian.Uint64(p.pix[at+(x+i)*g.dx:])
				if g.dy < 0 {
					w[i] = bits.ReverseBytes64(w[i])
				}
			}
			transpose(&w)
			for i, v := range w {
				binary.LittleEndian.PutUint64(block[i*width+x:], v)
			}
		}
		if g.dy < 0 {
			at -= (turned - 1) * g.dy
		}
	}
	for ; x < width; x++ {
		for i := range rows {
			block[i*width+x] = p.pix[at+x*g.dx+i*g.dy]
		}
	}
	p.next += turned
}

// transpose exchanges byte j of word i and byte i of word j.
func transpose(w *[8]uint64) {
	const (
		bytes = 0x00FF00FF_00FF00FF
		pairs = 0x0000FFFF_0000FFFF
		fours = 0x00000000_FFFFFFFF
	)
	for i := 0; i < 8; i += 2 {
		a, b := w[i], w[i+1]
		w[i], w[i+1] = a&bytes|b&bytes<<8, a>>8&bytes|b&^bytes
	}
	for _, i := range [4]int{0, 1, 4, 5} {
		a, b := w[i], w[i+2]
		w[i], w[i+2] = a&pairs|b&pairs<<16, a>>16&pairs|b&^pairs
	}
	for i := range 4 {
		a, b := w[i], w[i+4]
		w[i], w[i+4] = a&fours|b<<32, a>>32|b&^fours
	}
}
