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
		for mcu := from; mcu < to; {
			y, x := mcu/s.cols, mcu%s.cols
			for ; row < y; row++ {
				d.endRow(row)
			}
			end := min(s.cols, x+to-mcu)
			at := d.mcus(x, end)
			mcu += at - x
			if at < end {
				d.clearMCU(at)
				d.fail(mcu, to)
				break
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
// each with a whole number of pairs of blocks a row of blocks, and lists the blocks of an MCU.
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
	d.mcu = d.mcu[:0]
	for _, c := range d.scan.comps {
		h := c.h
		if !d.scan.interleaved {
			h = 1
		}
		for i := range c.rowLines * h {
			at := c.rowAt + i/h*c.rowBlocks + i%h
			d.mcu = append(d.mcu, mcuBlock{&d.dc[c.td], &d.ac[c.ta], &c.pred, &d.row[64*at], &d.flags[at], h, at})
		}
	}
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

// mcuBlock is one block of an MCU, and where what it needs is.
type mcuBlock struct {
	dc, ac *table
	pred   *int32
	coefs  *int16 // of the block in column 0
	flag   *uint8
	step   int // blocks to the same one of the next MCU
	at     int // coefs and flag by their place in Decoder.row and Decoder.flags
}

// stop is where the decoding of a row of MCUs stopped: the column, the block of the MCU, and the last position
// in the block, or beforeDC.
type stop struct {
	x, block int
	k        uint64
}

const beforeDC = 0xFFFF

// mcus decodes MCUs of a row from column x to column to. It gives the column of one that is damaged, or to.
func (d *Decoder) mcus(x, to int) int {
	if d.level < levelAVX2 {
		return d.mcusGo(x, to)
	}
	s := stop{x: x}
	for {
		if mcusFast(&d.bits, d.mcu, to, &s); s.x == to {
			return to
		}
		// A long code, or damage.
		if s.k-badCode < endOfBlock-badCode || !d.block(s) {
			return s.x
		}
		if s.block++; s.block == len(d.mcu) {
			if d.bits.over() {
				return s.x
			}
			s.block = 0
			if s.x++; s.x == to {
				return to
			}
		}
	}
}

// mcusGo is mcus block by block.
func (d *Decoder) mcusGo(x, to int) int {
	for ; x < to; x++ {
		for i := range d.mcu {
			if !d.block(stop{x, i, beforeDC}) {
				return x
			}
		}
		if d.bits.over() {
			return x
		}
	}
	return to
}

// block decodes a block, or the rest of it. It gives false if it is damaged.
func (d *Decoder) block(s stop) bool {
	m := &d.mcu[s.block]
	at := m.at + m.step*s.x
	coefs := (*[64]int16)(d.row[64*at:])
	if s.k == beforeDC {
		if !d.bits.dcBlock(m.dc, m.pred, &coefs[0], 0, 0) {
			return false
		}
		s.k = 0
	}
	k := d.bits.sequentialBand(m.ac, coefs, uint32(s.k))
	if k-badCode < endOfBlock-badCode {
		return false
	}
	d.flags[at] = uint8(k) & 127 // not 0: there is more than DC
	return true
}

// clearMCU takes back what a damaged MCU left.
func (d *Decoder) clearMCU(x int) {
	for i := range d.mcu {
		at := d.mcu[i].at + d.mcu[i].step*x
		clear(d.row[64*at:][:64])
		d.flags[at] = 0
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

// sequentialBand decodes the coefficients of a block (F.2.2.2) behind position k. It gives the
// last position: 63, endOfBlock or more after an end of block (endOfBlock itself if there is nothing but
// DC), and 64..127 if the bits are no code or the block overflows.
//
// In this loop or its twin in assembly goes the time of a decoder. The bits live in registers, one refill
// serves three symbols, and a value is worked out beside the path from one symbol to the next.
func (b *bits) sequentialBand(t *table, coefs *[64]int16, k uint32) uint32 {
	data, buf, n, p := b.data, b.buf, b.n, b.p
	for k < 63 {
		buf |= binary.BigEndian.Uint64(data[p:]) >> (n & 63)
		p += int((63 - n) >> 3)
		n |= 56
		for range 3 {
			s := t.lookup[buf>>(64-lookupBits)]
			long := s == 0
			if long {
				if n < 32 {
					break // for more bits
				}
				s = t.long(buf)
			}
			k += s.advance()
			coefs[order[uint8(k)]&63] = int16(extend(buf<<(s.code()&63), s.size()))
			buf <<= s.length() & 63
			n -= s.length()
			if k >= 63 || long {
				break
			}
		}
	}
	b.buf, b.n, b.p = buf, n, p
	return k
}
