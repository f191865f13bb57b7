package jpeg

import "encoding/binary"

// sequential decodes a scan of a baseline or extended file: an MCU row of coefficients
// at a time, which are transformed before the next.
func (d *Decoder) sequential() error {
	s := &d.scan
	d.startRows()
	row := 0
	for from, to := d.firstRun(); from < s.mcus; from, to = d.nextRun(to) {
		for _, c := range s.comps {
			c.pred = 0
		}
		y, x := from/s.cols, from%s.cols
		for mcu := from; mcu < to; mcu++ {
			for ; row < y; row++ {
				d.endRow(row)
			}
			if !d.mcu(x) || d.bits.over() {
				d.clearMCU(x)
				d.fail(mcu, to)
				break
			}
			if x++; x == s.cols {
				x = 0
				y++
			}
		}
		d.endRun()
		if d.giveUp() {
			return d.damage
		}
	}
	for ; row < s.rows; row++ {
		d.endRow(row)
	}
	for _, c := range s.comps {
		c.bitsLeft = [64]int8{}
	}
	if d.giveUp() {
		return d.damage
	}
	return nil
}

// startRows lays out the coefficients of an MCU row, component after component,
// each with a whole number of pairs of blocks a row of blocks.
func (d *Decoder) startRows() {
	blocks := 0
	for _, c := range d.scan.comps {
		c.rowBlocks, c.rowLines = c.blockCols, c.v
		if !d.scan.interleaved {
			c.rowBlocks, c.rowLines = c.cols, 1
		}
		c.rowBlocks += c.rowBlocks % 2
		c.rowAt = blocks
		blocks += c.rowBlocks * c.rowLines
	}
	d.row, d.flags = resize(d.row, 64*blocks), resize(d.flags, blocks)
	clear(d.row)
	clear(d.flags)
}

// endRow transforms the MCU row y and clears its coefficients.
func (d *Decoder) endRow(y int) {
	for _, c := range d.scan.comps {
		for v := range c.rowLines {
			at := c.rowAt + v*c.rowBlocks
			d.transform(c, y*c.rowLines+v, d.row[64*at:][:64*c.rowBlocks], d.flags[at:][:c.rowBlocks])
		}
	}
	clear(d.row)
	clear(d.flags)
}

// mcu decodes the MCU in column x. It gives false if a block is damaged.
func (d *Decoder) mcu(x int) bool {
	b := &d.bits
	for _, c := range d.scan.comps {
		dc, ac := &d.dc[c.td], &d.ac[c.ta]
		h := c.h
		if !d.scan.interleaved {
			h = 1
		}
		for v := range c.rowLines {
			first := c.rowAt + v*c.rowBlocks + x*h
			for at := first; at < first+h; at++ {
				k := b.block(dc, ac, &c.pred, (*[64]int16)(d.row[64*at:]))
				if k-64 < endOfBlock-64 {
					return false
				}
				d.flags[at] = uint8(k) & 127 // not 0: there is more than DC
			}
		}
	}
	return true
}

// clearMCU takes back what a damaged MCU left.
func (d *Decoder) clearMCU(x int) {
	for _, c := range d.scan.comps {
		h := c.h
		if !d.scan.interleaved {
			h = 1
		}
		for v := range c.rowLines {
			first := c.rowAt + v*c.rowBlocks + x*h
			clear(d.row[64*first:][:64*h])
			clear(d.flags[first:][:h])
		}
	}
}

// order is where the coefficient at a position of advance lies; what is beyond the block (there
// is only the value 0 of an end of block, or damage) goes to the last.
var order = func() (o [256]uint8) {
	for i := range o {
		o[i] = zigzag[min(i, 63)]
	}
	return o
}()

// block decodes the coefficients of one block (F.2.2) into a block of zeros, and pred.
// It gives the last position: 63, endOfBlock or more after an end of block (endOfBlock itself if
// there is nothing but DC), and 64..127 if the bits are no code or the block overflows.
//
// This loop is where the time of a decoder goes. The bits live in registers, one refill serves two
// symbols (56 bits: at most 25 by lookup and 31 by a long code), and the value is
// worked out beside the path from one symbol to the next.
func (b *bits) block(dc, ac *table, pred *int32, coefs *[64]int16) uint32 {
	data, buf, n, p := b.data, b.buf, b.n, b.p
	buf |= binary.BigEndian.Uint64(data[p:]) >> (n & 63)
	p += int((63 - n) >> 3)
	n |= 56
	s := dc.next(buf)
	*pred += extend(buf<<s.code(), s.size())
	coefs[0] = int16(*pred)
	buf <<= s.length()
	n -= s.length()
	k := uint32(0)
	if s.advance() == badCode {
		k = badCode
	}
	for k < 63 {
		buf |= binary.BigEndian.Uint64(data[p:]) >> (n & 63)
		p += int((63 - n) >> 3)
		n |= 56
		s := ac.lookup[buf>>(64-lookupBits)]
		if s == 0 {
			s = ac.long(buf)
		}
		k += uint32(s.advance())
		coefs[order[uint8(k)]&63] = int16(extend(buf<<s.code(), s.size()))
		buf <<= s.length()
		n -= s.length()
		if k >= 63 {
			break
		}
		s = ac.lookup[buf>>(64-lookupBits)]
		if s == 0 {
			buf |= binary.BigEndian.Uint64(data[p:]) >> (n & 63)
			p += int((63 - n) >> 3)
			n |= 56
			s = ac.long(buf)
		}
		k += uint32(s.advance())
		coefs[order[uint8(k)]&63] = int16(extend(buf<<s.code(), s.size()))
		buf <<= s.length()
		n -= s.length()
	}
	b.buf, b.n, b.p = buf, n, p
	return k
}
