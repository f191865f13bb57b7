package jpeg

import "fmt"

// scan is what SOS says, and where its decoding is.
type scan struct {
	comps       []*component
	store       [4]*component
	cols, rows  int // MCUs
	mcus        int
	mcu         int // the next
	ss, se      int // spectral selection
	ah, al      uint
	interleaved bool
}

// startScan reads SOS.
func (d *Decoder) startScan() error {
	p, err := d.payload()
	if err != nil {
		return err
	}
	if !d.hasFrame {
		return formatError("a scan (SOS) comes before the frame header (SOF)")
	}
	if len(p) < 1 || p[0] < 1 || int(p[0]) > len(d.frame.comps) || len(p) != 4+2*int(p[0]) {
		return formatError("a scan header has %d bytes", len(p))
	}
	if d.scans == MaxScans {
		return unsupported("more than %d scans", MaxScans)
	}
	if all := int64(d.scans+1) * int64(d.frame.width) * int64(d.frame.height); all/MaxPasses > d.opt.MaxPixels {
		return fmt.Errorf("%w: %d scans of %d x %d", ErrTooLarge, d.scans+1, d.frame.width, d.frame.height)
	}
	share := int64(1)
	if d.opt.Keep {
		share = 16
	}
	if d.scans == 0 && !d.believable(share) {
		d.note(len(d.data), "the data end")
		return d.damage
	}
	s := &d.scan
	s.comps = s.store[:0]
	n := int(p[0])
	for i := range n {
		id := p[1+2*i]
		var c *component
		for j := range d.frame.comps {
			if d.frame.comps[j].id == id {
				c = &d.frame.comps[j]
			}
		}
		if c == nil {
			return formatError("a scan is of component %d, which the frame lacks", id)
		}
		for _, other := range s.comps {
			if other == c {
				return formatError("a scan has component %d twice", id)
			}
		}
		c.td, c.ta = int(p[2+2*i]>>4), int(p[2+2*i]&15)
		if c.td > 3 || c.ta > 3 {
			return formatError("component %d has Huffman tables %d and %d", id, c.td, c.ta)
		}
		s.comps = append(s.comps, c)
	}
	p = p[1+2*n:]
	s.ss, s.se, s.ah, s.al = int(p[0]), int(p[1]), uint(p[2]>>4), uint(p[2]&15)
	s.interleaved = n > 1
	s.cols, s.rows = d.frame.mcuCols, d.frame.mcuRows
	if !s.interleaved {
		s.cols, s.rows = s.comps[0].cols, s.comps[0].rows
	}
	s.mcus, s.mcu = s.cols*s.rows, 0
	if !d.frame.progressive {
		// Some writers leave spectral selection empty in a sequential file; it has no say there.
		s.ss, s.se, s.ah, s.al = 0, 63, 0, 0
	} else if err := d.checkProgression(); err != nil {
		return err
	}
	for _, c := range s.comps {
		if !c.begun && !d.quantSet[c.tq] {
			return formatError("quantisation table %d is missing", c.tq)
		}
		if s.ss == 0 && s.ah == 0 && !d.dc[c.td].set {
			return formatError("DC Huffman table %d is missing", c.td)
		}
		if s.se > 0 && !d.ac[c.ta].set {
			return formatError("AC Huffman table %d is missing", c.ta)
		}
	}
	for _, c := range s.comps {
		if !c.begun { // its table is the one of now, whatever follows
			c.quant, c.begun = d.quant[c.tq], true
		}
	}
	if d.scans == 0 {
		d.allocate()
	}
	d.scans++
	d.begun += s.mcus
	return nil
}

// checkProgression checks what a progressive scan brings (G.1.1.1) against what is
// there, and counts it as there.
func (d *Decoder) checkProgression() error {
	s := &d.scan
	if s.ss > s.se || s.se > 63 || s.ss == 0 && s.se != 0 || s.ss > 0 && s.interleaved {
		return formatError("a scan of %d components is of coefficients %d to %d", len(s.comps), s.ss, s.se)
	}
	if s.al > 13 || s.ah > 0 && s.ah != s.al+1 {
		return formatError("a scan refines from bit %d to bit %d", s.ah, s.al)
	}
	for _, c := range s.comps {
		if s.ss > 0 && c.bitsLeft[0] < 0 {
			d.note(d.pos, "a scan of AC coefficients comes before DC")
		}
		for k := s.ss; k <= s.se; k++ {
			if left := max(c.bitsLeft[k], 0); left != int8(s.ah) {
				d.note(d.pos, "a scan refines bits that are not there")
			}
			c.bitsLeft[k] = int8(s.al)
		}
	}
	return nil
}

// allocate makes the planes, once the headers are believed.
func (d *Decoder) allocate() {
	d.window()
	for i := range d.frame.comps {
		c := &d.frame.comps[i]
		c.pix = resize(c.pix, c.stride*c.lines)
		if d.frame.progressive {
			blocks := c.blockCols * c.blockRows
			// One block more, because blocks are transformed in pairs.
			c.coefs = resize(c.coefs, 64*(blocks+1))
			clear(c.coefs)
			c.nonzero = resize(c.nonzero, blocks)
			clear(c.nonzero)
		}
	}
}

// resize gives n elements in the memory of s, if it is large enough. What they are is undefined.
func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// slack is how many bytes may be left of an interval whose MCUs are all decoded. Some
// writers pad; more than this is a sign that the bits went astray.
const slack = 16

// firstRun begins the entropy-coded data of a scan; nextRun goes on to the next restart interval. Both
// give MCUs to decode, from..to-1. There are no more if from is the number of MCUs.
// Intervals that are missing are passed over.
func (d *Decoder) firstRun() (from, to int) {
	d.pos = d.bits.load(d.data, d.pos)
	return 0, d.intervalEnd(0)
}

func (d *Decoder) intervalEnd(from int) int {
	if d.restart == 0 {
		return d.scan.mcus
	}
	return min(from+d.restart, d.scan.mcus)
}

// nextRun needs end, the end of the last run.
func (d *Decoder) nextRun(end int) (from, to int) {
	s, b := &d.scan, &d.bits
	s.mcu = end
	if end == s.mcus {
		return end, end
	}
	for {
		if b.marker < markerRST0 || b.marker > markerRST7 {
			d.note(d.pos, "the data end")
			d.lost += s.mcus - end
			return s.mcus, s.mcus
		}
		for d.data[d.pos] == 0xFF {
			d.pos++
		}
		at := d.pos
		ahead := int(b.marker-markerRST0-byte(end/d.restart-1)) & 7
		d.pos = b.load(d.data, d.pos+1)
		switch {
		case ahead == 0:
			return end, d.intervalEnd(end)
		case ahead <= 2: // one or two markers are lost, and what lies between
			d.note(at, "a restart marker is missing")
			from = min(end+ahead*d.restart, s.mcus)
			d.lost += from - end
			return from, d.intervalEnd(from)
		case ahead < 6:
			d.note(at, "a restart marker has a wrong number")
			return end, d.intervalEnd(end)
		}
		d.note(at, "a restart marker is there twice") // what follows was there already
	}
}

// endRun looks at what is left of an interval that is decoded.
func (d *Decoder) endRun() {
	b := &d.bits
	if b.unread() <= slack {
		return
	}
	for _, v := range b.data[b.pos()/8+1 : b.end/8] {
		if v != 0 {
			d.note(b.offset(), "the data go on behind the last MCU")
			return
		}
	}
}

// fail gives up the MCUs from the one that failed to the end of its interval.
func (d *Decoder) fail(mcu, end int) {
	d.scan.mcu = mcu
	d.lost += end - mcu
	if d.bits.over() {
		if d.bits.marker == 0 {
			d.note(d.bits.offset(), "the file ends")
		} else {
			d.note(d.bits.offset(), "the data end")
		}
		return
	}
	d.note(d.bits.offset(), "the bits are no code or bring more than a block holds")
}

// giveUp reports whether damage ends the decoding.
func (d *Decoder) giveUp() bool { return d.damage != nil && !d.opt.Keep }
