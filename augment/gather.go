package augment

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

// turn fetches the block of rows that begins at p.next, a multiple of turned. They are columns of
// the stored plane, or those backwards.
func (p *plane) turn(l level) {
	width, g := p.x.hi-p.x.lo, p.grid
	block := p.ring[p.next%p.depth*width:][:turned*width]
	at := g.at + p.x.lo*g.dx + p.next*g.dy
	if rows := p.y.hi - p.next; rows < turned {
		for x := range width {
			for i := range rows {
				block[i*width+x] = p.pix[at+x*g.dx+i*g.dy]
			}
		}
	} else if g.dy > 0 {
		l.turn(block, 0, width, p.pix, at, g.dx, width)
	} else {
		l.turn(block, (turned-1)*width, -width, p.pix, at-(turned-1), g.dx, width)
	}
	p.next += turned
}
