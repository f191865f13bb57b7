package jpeg

import "encoding/binary"

// stripCols is how many MCUs are decoded before their blocks are transformed: few, so that the
// coefficients stay in the first cache; even, because blocks are transformed in pairs.
const stripCols = 32

// sequential decodes a scan of a baseline or extended file: a strip of an MCU row
// at a time, which is transformed before the next.
func (d *Decoder) sequential() error {
	s := &d.scan
	d.startStrips()
	perRow := ceilDiv(s.cols, stripCols)
	strip := 0
	for from, to := d.firstRun(); from < s.mcus; from, to = d.nextRun(to) {
		for _, c := range s.comps {
			c.pred = 0
		}
		for mcu := from; mcu < to; {
			y, x := mcu/s.cols, mcu%s.cols
			for now := y*perRow + x/stripCols; strip < now; strip++ {
				d.endStrip(strip/perRow, strip%perRow)
			}
			x0 := x / stripCols * stripCols
			end := min(s.cols, x0+stripCols, x+to-mcu)
			at := x0 + d.mcus(x-x0, end-x0)
			mcu += at - x
			if at < end {
				d.clearMCU(at - x0)
				d.fail(mcu, to)
				break
			}
		}
		d.endRun()
		if d.giveUp() {
			return d.damage
		}
	}
	for ; strip < perRow*s.rows; strip++ {
		d.endStrip(strip/perRow, strip%perRow)
	}
	for _, c := range s.comps {
		c.bitsLeft = [64]int8{}
	}
	if d.giveUp() {
		return d.damage
	}
	return nil
}

// startStrips lays out the coefficients of a strip, component after component, row of blocks after row, and
// lists the blocks of an MCU.
func (d *Decoder) startStrips() {
	blocks := 0
	for _, c := range d.scan.comps {
		c.mcuCols, c.mcuRows = c.h, c.v
		if !d.scan.interleaved {
			c.mcuCols, c.mcuRows = 1, 1
		}
		c.stripAt = blocks
		blocks += stripCols * c.mcuCols * c.mcuRows
	}
	d.strip, d.flags = resize(d.strip, 64*blocks), resize(d.flags, blocks)
	clear(d.strip)
	clear(d.flags)
	d.mcu = d.mcu[:0]
	for _, c := range d.scan.comps {
		for i := range c.mcuRows * c.mcuCols {
			at := c.stripAt + i/c.mcuCols*stripCols*c.mcuCols + i%c.mcuCols
			d.mcu = append(d.mcu, mcuBlock{&d.dc[c.td], &d.ac[c.ta], &c.pred, &d.strip[64*at], &d.flags[at], c.mcuCols, at})
		}
	}
}

// endStrip transforms a strip of MCU row y and clears its coefficients.
func (d *Decoder) endStrip(y, strip int) {
	for _, c := range d.scan.comps {
		n := stripCols * c.mcuCols
		for v := range c.mcuRows {
			at := c.stripAt + v*n
			d.transform(c, y*c.mcuRows+v, strip*n, d.strip[64*at:][:64*n], d.flags[at:][:n])
		}
	}
	clear(d.strip)
	clear(d.flags)
}

// mcuBlock is one block of an MCU, and where what it needs is.
type mcuBlock struct {
	dc, ac *table
	pred   *int32
	coefs  *int16 // of the block in column 0
	flag   *uint8
	step   int // blocks to the same one of the next MCU
	at     int // coefs and flag by their place in Decoder.strip and Decoder.flags
}

// stop is where the decoding of a strip of MCUs stopped: the column, the block of the MCU, and the last position
// in the block, or beforeDC.
type stop struct {
	x, block int
	k        uint64
}

const beforeDC = 0xFFFF

// mcus decodes MCUs of a strip from column x to column to. It gives the column of one that is damaged, or to.
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
	}
	return to
}

// block decodes a block, or the rest of it. It gives false if it is damaged, or if the data end in it: behind
// them is padding for one block only.
func (d *Decoder) block(s stop) bool {
	m := &d.mcu[s.block]
	at := m.at + m.step*s.x
	coefs := (*[64]int16)(d.strip[64*at:])
	if s.k == beforeDC {
		if !d.bits.dcBlock(m.dc, m.pred, &coefs[0], 0, 0) {
			return false
		}
		s.k = 0
	}
	k := d.bits.sequentialBand(m.ac, coefs, uint32(s.k))
	if k-badCode < endOfBlock-badCode || d.bits.over() {
		return false
	}
	d.flags[at] = uint8(k) & 127 // not 0: there is more than DC
	return true
}

// clearMCU takes back what a damaged MCU left.
func (d *Decoder) clearMCU(x int) {
	for i := range d.mcu {
		at := d.mcu[i].at + d.mcu[i].step*x
		clear(d.strip[64*at:][:64])
		d.flags[at] = 0
	}
}

// order is where the coefficient at a position of advance lies; what is beyond the block (there
// is only the value 0 of an end of block, or damage) goes to the last.
var order = func() (o [320]uint8) {
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
			long := s == missing
			if long {
				if n < 32 {
					break // for more bits
				}
				s = t.long(buf)
			}
			k += s.advance()
			coefs[order[k]&63] = int16(extend(buf<<(s.code()&63), s.size()))
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
