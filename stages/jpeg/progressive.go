package jpeg

import mathbits "math/bits"

// progressive decodes a scan into the coefficients of the whole picture (G.1.2).
// Each block has a word of which coefficients are not zero, by zigzag position, so that a
// refinement goes from one to the next without a look at the zeros between.
func (d *Decoder) progressive() error {
	s := &d.scan
	for from, to := d.firstRun(); from < s.mcus; from, to = d.nextRun(to) {
		for _, c := range s.comps {
			c.pred = 0
		}
		decode := d.band
		if s.interleaved {
			decode = d.interleavedDC
		}
		bad := decode(from, to)
		if bad < to {
			d.fail(bad, to)
		}
		d.endRun()
		if d.giveUp() {
			return d.damage
		}
	}
	if d.giveUp() {
		return d.damage
	}
	return nil
}

// interleavedDC decodes MCUs from..to-1 of a scan of several components, which can only be of DC.
// It gives the MCU that is damaged, or to.
func (d *Decoder) interleavedDC(from, to int) int {
	s, b := &d.scan, &d.bits
	y, x := from/s.cols, from%s.cols
	for mcu := from; mcu < to; mcu++ {
		for _, c := range s.comps {
			t := &d.dc[c.td]
			for v := range c.v {
				first := (y*c.v+v)*c.blockCols + x*c.h
				for at := first; at < first+c.h; at++ {
					if !b.dcBlock(t, &c.pred, &c.coefs[64*at], s.ah, s.al) {
						return mcu
					}
				}
			}
		}
		if b.over() {
			return mcu
		}
		if x++; x == s.cols {
			x = 0
			y++
		}
	}
	return to
}

// band decodes blocks from..to-1 of a scan of one component.
func (d *Decoder) band(from, to int) int {
	s, b := &d.scan, &d.bits
	c := s.comps[0]
	dc, ac := &d.dc[c.td], &d.ac[c.ta]
	y, x := from/s.cols, from%s.cols
	eobRun := 0 // blocks to come whose band has ended
	band := ^uint64(0) << s.ss & (^uint64(0) >> (63 - s.se))
	for mcu := from; mcu < to; mcu++ {
		at := y*c.blockCols + x
		coefs := (*[64]int16)(c.coefs[64*at:])
		ok := true
		switch {
		case s.ss == 0:
			ok = b.dcBlock(dc, &c.pred, &coefs[0], s.ah, s.al)
		case eobRun > 0 && c.nonzero[at]&band == 0:
			eobRun--
		case s.ah > 0:
			eobRun, ok = b.refine(ac, coefs, &c.nonzero[at], s, eobRun)
		case eobRun > 0: // a hostile file brings a band twice
			eobRun--
		default:
			eobRun, ok = b.acBlock(ac, coefs, &c.nonzero[at], s)
		}
		if !ok || b.over() {
			return mcu
		}
		if x++; x == s.cols {
			x = 0
			y++
		}
	}
	return to
}

// dcBlock decodes the DC coefficient of a block, or refines it by a bit. It gives false if the bits are no
// code or the coefficient does not fit 16 bits.
func (b *bits) dcBlock(t *table, pred *int32, coef *int16, ah, al uint) bool {
	if ah > 0 {
		if b.bit() {
			*coef |= 1 << al
		}
		return true
	}
	b.refill()
	s := t.next(b.buf)
	*pred += extend(b.buf<<s.code(), s.size())
	*coef = int16(*pred << al)
	b.skip(s.length())
	return s.advance() != badCode && int32(*coef) == *pred<<al
}

// acBlock decodes a band of a block for the first time. It gives the number of blocks
// behind whose band has ended too.
func (b *bits) acBlock(t *table, coefs *[64]int16, nonzero *uint64, sc *scan) (eobRun int, ok bool) {
	mask := *nonzero
	for k := sc.ss; k <= sc.se; k++ {
		b.refill()
		s := t.next(b.buf)
		if s.advance() == badCode {
			return 0, false
		}
		if s.advance() >= endOfBlock {
			b.skip(s.length())
			run := uint(s.advance() - endOfBlock)
			eobRun = 1<<run + int(b.take(run)) - 1
			break
		}
		v := extend(b.buf<<s.code(), s.size())
		b.skip(s.length())
		k += int(s.advance()) - 1
		if k > sc.se {
			return 0, false
		}
		coefs[zigzag[k]&63] = int16(v << sc.al)
		if int32(coefs[zigzag[k]&63]) != v<<sc.al {
			return 0, false
		}
		if s.size() > 0 {
			mask |= 1 << k
		}
	}
	*nonzero = mask
	return eobRun, true
}

// refine adds a bit to the coefficients of a band that are not zero and
// brings those that become so (G.1.2.3). eobRun is how many blocks, this one included, bring none.
func (b *bits) refine(t *table, coefs *[64]int16, nonzero *uint64, sc *scan, eobRun int) (int, bool) {
	known := *nonzero
	// The positions that are still to be passed.
	rest := ^uint64(0) << sc.ss & (^uint64(0) >> (63 - sc.se))
	for eobRun == 0 && rest != 0 {
		b.refill()
		s := t.next(b.buf)
		if s.advance() == badCode || s.size() > 1 {
			return 0, false
		}
		v := extend(b.buf<<s.code(), s.size())
		b.skip(s.length())
		if s.advance() >= endOfBlock {
			run := uint(s.advance() - endOfBlock)
			eobRun = 1<<run + int(b.take(run))
			break
		}
		// Over as many zeros as the run says, to the zero behind them.
		zeros := rest &^ known
		for range s.advance() - 1 {
			zeros &= zeros - 1
		}
		if zeros == 0 {
			return 0, false
		}
		here := zeros & -zeros
		b.correct(coefs, rest&known&(here-1), sc.al)
		if v != 0 {
			coefs[zigzag[mathbits.TrailingZeros64(here)&63]&63] = int16(v << sc.al)
			*nonzero |= here
		}
		rest &= -here << 1
	}
	if eobRun > 0 {
		b.correct(coefs, rest&known, sc.al)
		eobRun--
	}
	return eobRun, true
}

// correct reads a correction bit for each coefficient of the mask: ones go away from zero.
func (b *bits) correct(coefs *[64]int16, mask uint64, al uint) {
	buf, n := b.buf, b.n
	for ; mask != 0; mask &= mask - 1 {
		if n == 0 {
			b.buf, b.n = buf, n
			b.refill()
			buf, n = b.buf, b.n
		}
		c := &coefs[zigzag[mathbits.TrailingZeros64(mask)&63]&63]
		*c += int16(buf>>63) << al * (*c>>15 | 1)
		buf <<= 1
		n--
	}
	b.buf, b.n = buf, n
}

// transformAll makes the samples of a progressive picture.
func (d *Decoder) transformAll() {
	for i := range d.frame.comps {
		c := &d.frame.comps[i]
		n := c.blockCols + c.blockCols%2
		d.flags = resize(d.flags, n)
		for y := range c.blockRows {
			for x, mask := range c.nonzero[y*c.blockCols:][:c.blockCols] {
				d.flags[x] = 0
				if mask != 0 {
					d.flags[x] = 1
				}
			}
			if n > c.blockCols {
				// Beside the last block of an odd row lies the first of the next, or the spare one. It is
				// transformed into the padding of the plane.
				d.flags[n-1] = 1
			}
			d.transform(c, y, 0, c.coefs[64*y*c.blockCols:][:64*n], d.flags)
		}
	}
}
