package jpeg

import (
	mathbits "math/bits"
	"math/rand/v2"
)

// sheet is a picture of coefficients, from which files of every kind can be written that must
// all decode to the same samples.
type sheet struct {
	w, h  int
	comps []sheetComp
	quant [4][64]byte // zigzag
	adobe int         // transform; -1: no marker
}

type sheetComp struct {
	h, v                 int
	cols, rows           int         // of a scan of its own
	blockCols, blockRows int         // with those that fill MCUs
	blocks               [][64]int16 // zigzag
}

// newSheet draws coefficients: most blocks have few, some have all; most are small, some as large as they can be.
func newSheet(rng *rand.Rand, w, h int, factors ...[2]int) *sheet {
	s := &sheet{w: w, h: h, adobe: -1}
	hMax, vMax := 1, 1
	for _, f := range factors {
		hMax, vMax = max(hMax, f[0]), max(vMax, f[1])
	}
	for i := range s.quant {
		for k := range s.quant[i] {
			s.quant[i][k] = byte(1 + rng.IntN(4))
		}
	}
	for _, f := range factors {
		c := sheetComp{h: f[0], v: f[1]}
		c.cols = ceilDiv(ceilDiv(w*c.h, hMax), 8)
		c.rows = ceilDiv(ceilDiv(h*c.v, vMax), 8)
		c.blockCols, c.blockRows = ceilDiv(w, 8*hMax)*c.h, ceilDiv(h, 8*vMax)*c.v
		c.blocks = make([][64]int16, c.blockCols*c.blockRows)
		for i := range c.blocks {
			b := &c.blocks[i]
			b[0] = int16(rng.IntN(401) - 200)
			n := 0
			switch rng.IntN(8) {
			case 0, 1:
			case 2:
				n = 63
			case 3:
				b[1+rng.IntN(63)] = int16(rng.IntN(255) - 127)
			default:
				n = rng.IntN(12)
			}
			for range n {
				size := 1 + rng.IntN(3)
				if rng.IntN(20) == 0 {
					size = 1 + rng.IntN(7)
				}
				b[1+rng.IntN(63)] = int16(rng.IntN(2<<size-1) - (1<<size - 1))
			}
		}
		s.comps = append(s.comps, c)
	}
	return s
}

// token is a symbol of a Huffman table with bits behind it, or a restart marker.
type token struct {
	class, id int // class -1: bits alone, -2: restart
	symbol    byte
	bits      uint32
	n         int
}

// scanSpec is what a scan holds.
type scanSpec struct {
	comps          []int
	ss, se, ah, al int
}

// tables of the writer: DC and AC of a component are numbered by min(component, 1).
type writer struct {
	out     []byte
	tokens  []token
	rng     *rand.Rand
	acc     uint64
	n       int
	restart int
	eobRun  int
	pending []uint32 // correction bits of the blocks in eobRun
}

func (w *writer) segment(code byte, p ...byte) {
	w.out = append(w.out, 0xFF, code, byte((len(p)+2)>>8), byte(len(p)+2))
	w.out = append(w.out, p...)
}

// file writes the sheet with the scans given.
func (s *sheet) file(rng *rand.Rand, progressive bool, restart int, scans ...scanSpec) []byte {
	w := &writer{rng: rng, restart: restart}
	w.out = append(w.out, 0xFF, 0xD8)
	if s.adobe >= 0 {
		w.segment(0xEE, append([]byte("Adobe\x00\x64\x00\x00\x00\x00"), byte(s.adobe))...)
	}
	for i := range s.quant {
		w.segment(0xDB, append([]byte{byte(i)}, s.quant[i][:]...)...)
	}
	p := []byte{8, byte(s.h >> 8), byte(s.h), byte(s.w >> 8), byte(s.w), byte(len(s.comps))}
	for i, c := range s.comps {
		p = append(p, byte(i+1), byte(c.h<<4|c.v), byte(i&3))
	}
	sof := byte(0xC1)
	if progressive {
		sof = 0xC2
	}
	w.segment(sof, p...)
	if restart > 0 {
		w.segment(0xDD, byte(restart>>8), byte(restart))
	}
	for _, sc := range scans {
		s.scan(w, progressive, sc)
	}
	w.out = append(w.out, 0xFF, 0xD9)
	return w.out
}

func (s *sheet) scan(w *writer, progressive bool, sc scanSpec) {
	w.tokens = w.tokens[:0]
	pred := make([]int16, len(s.comps))
	first := &s.comps[sc.comps[0]]
	cols, rows := first.blockCols/first.h, first.blockRows/first.v
	if len(sc.comps) == 1 {
		cols, rows = first.cols, first.rows
	}
	for mcu := range cols * rows {
		if w.restart > 0 && mcu > 0 && mcu%w.restart == 0 {
			w.endRun(min(sc.comps[0], 1))
			w.tokens = append(w.tokens, token{class: -2, n: mcu/w.restart - 1})
			clear(pred)
		}
		x, y := mcu%cols, mcu/cols
		for _, i := range sc.comps {
			c := &s.comps[i]
			if len(sc.comps) == 1 {
				w.block(&c.blocks[y*c.blockCols+x], &pred[i], min(i, 1), progressive, sc)
				continue
			}
			for v := range c.v {
				for h := range c.h {
					w.block(&c.blocks[(y*c.v+v)*c.blockCols+x*c.h+h], &pred[i], min(i, 1), progressive, sc)
				}
			}
		}
	}
	w.endRun(min(sc.comps[0], 1))
	w.flush(s, sc)
}

func (w *writer) put(class, id int, symbol byte, v uint32, n int) {
	w.tokens = append(w.tokens, token{class, id, symbol, v & (1<<n - 1), n})
}

// valueBits are the size and the bits of a value (F.1.2.1).
func valueBits(v int16) (size int, b uint32) {
	if v < 0 {
		size = mathbits.Len16(uint16(-v))
		return size, uint32(int32(v) - 1)
	}
	return mathbits.Len16(uint16(v)), uint32(v)
}

func (w *writer) block(b *[64]int16, pred *int16, id int, progressive bool, sc scanSpec) {
	if !progressive {
		w.dc(b[0], pred, id)
		w.band(b, id, 1, 63, 0, false)
		return
	}
	switch {
	case sc.ss == 0 && sc.ah == 0:
		w.dc(b[0]>>sc.al, pred, id)
	case sc.ss == 0:
		w.put(-1, 0, 0, uint32(b[0]>>sc.al)&1, 1)
	case sc.ah == 0:
		w.band(b, id, sc.ss, sc.se, sc.al, true)
	default:
		w.refine(b, id, sc.ss, sc.se, sc.al)
	}
}

func (w *writer) dc(v int16, pred *int16, id int) {
	size, bits := valueBits(v - *pred)
	*pred = v
	w.put(0, id, byte(size), bits, size)
}

// shifted is a value without its al low bits, towards zero.
func shifted(v int16, al int) int16 {
	if v < 0 {
		return -(-v >> al)
	}
	return v >> al
}

func (w *writer) band(b *[64]int16, id, ss, se, al int, runs bool) {
	run := 0
	for k := ss; k <= se; k++ {
		v := shifted(b[k], al)
		if v == 0 {
			run++
			continue
		}
		w.endRun(id)
		for ; run > 15; run -= 16 {
			w.put(1, id, 0xF0, 0, 0)
		}
		size, bits := valueBits(v)
		w.put(1, id, byte(run<<4|size), bits, size)
		run = 0
	}
	if run == 0 {
		return
	}
	if !runs {
		w.put(1, id, 0, 0, 0)
		return
	}
	if w.eobRun++; w.eobRun == 32767 {
		w.endRun(id)
	}
}

// endRun writes the run of ends of bands that is pending.
func (w *writer) endRun(id int) {
	if w.eobRun == 0 {
		return
	}
	n := mathbits.Len(uint(w.eobRun)) - 1
	w.put(1, id, byte(n<<4), uint32(w.eobRun), n)
	w.eobRun = 0
	w.flushPending()
}

func (w *writer) flushPending() {
	for _, b := range w.pending {
		w.put(-1, 0, 0, b, 1)
	}
	w.pending = w.pending[:0]
}

// refine writes a refinement of a band (G.1.2.3).
func (w *writer) refine(b *[64]int16, id, ss, se, al int) {
	last := 0 // that becomes other than zero
	for k := ss; k <= se; k++ {
		if v := shifted(b[k], al); v == 1 || v == -1 {
			last = k
		}
	}
	run := 0
	var own []uint32 // correction bits since the last symbol of this block
	flush := func() {
		for _, bit := range own {
			w.put(-1, 0, 0, bit, 1)
		}
		own = own[:0]
	}
	for k := ss; k <= se; k++ {
		v := shifted(b[k], al)
		if v == 0 {
			run++
			continue
		}
		for run > 15 && k <= last {
			w.endRun(id)
			w.put(1, id, 0xF0, 0, 0)
			run -= 16
			flush()
		}
		if v > 1 || v < -1 {
			if v < 0 {
				v = -v
			}
			own = append(own, uint32(v)&1)
			continue
		}
		w.endRun(id)
		positive := uint32(0)
		if v > 0 {
			positive = 1
		}
		w.put(1, id, byte(run<<4|1), positive, 1)
		flush()
		run = 0
	}
	if run > 0 || len(own) > 0 {
		w.eobRun++
		w.pending = append(w.pending, own...)
		if w.eobRun == 32767 {
			w.endRun(id)
		}
	}
}

// flush writes tables of codes for the symbols of the scan, its header and its data.
func (w *writer) flush(s *sheet, sc scanSpec) {
	var codes [2][2]map[byte]token
	for class := range 2 {
		for id := range 2 {
			used := map[byte]bool{}
			for _, t := range w.tokens {
				if t.class == class && t.id == id {
					used[t.symbol] = true
				}
			}
			var values []byte
			for v := range 256 {
				if used[byte(v)] {
					values = append(values, byte(v))
				}
			}
			if len(values) == 0 {
				values = []byte{0}
			}
			w.rng.Shuffle(len(values), func(i, j int) { values[i], values[j] = values[j], values[i] })
			var counts [16]byte
			codes[class][id] = drawCodes(w.rng, values, &counts)
			w.segment(0xC4, append(append([]byte{byte(class<<4 | id)}, counts[:]...), values...)...)
		}
	}
	p := []byte{byte(len(sc.comps))}
	for _, c := range sc.comps {
		p = append(p, byte(c+1), byte(min(c, 1)*0x11))
	}
	w.segment(0xDA, append(p, byte(sc.ss), byte(sc.se), byte(sc.ah<<4|sc.al))...)
	for _, t := range w.tokens {
		if t.class == -2 {
			w.align()
			w.out = append(w.out, 0xFF, 0xD0+byte(t.n&7))
			continue
		}
		if t.class >= 0 {
			c := codes[t.class][t.id][t.symbol]
			w.write(c.bits, c.n)
		}
		w.write(t.bits, t.n)
	}
	w.align()
}

// drawCodes gives values codes of random lengths up to 16.
func drawCodes(rng *rand.Rand, values []byte, counts *[16]byte) map[byte]token {
	codes := map[byte]token{}
	free, code, k := 1, uint32(0), 0
	for length := 1; length <= 16; length++ {
		free, code = 2*free, code<<1
		rest := len(values) - k
		most := min(rest, free-1, 255)
		take := 0
		if most > 0 {
			take = rng.IntN(most + 1)
		}
		if length == 16 {
			take = rest
		}
		// The rest must fit, with the code of ones left over.
		for take < rest && (free-take)<<(16-length) <= rest-take {
			take--
		}
		if length < 16 && (free-take)<<(16-length) > 4096 && rng.IntN(2) == 0 {
			take = min(most, max(take, 1))
			for (free-take)<<(16-length) <= rest-take {
				take--
			}
		}
		counts[length-1] = byte(take)
		for range take {
			codes[values[k]] = token{bits: code, n: length}
			code++
			k++
		}
		free -= take
	}
	if k != len(values) {
		panic("codes do not fit")
	}
	return codes
}

func (w *writer) write(v uint32, n int) {
	w.acc = w.acc<<n | uint64(v)
	w.n += n
	for w.n >= 8 {
		w.n -= 8
		b := byte(w.acc >> w.n)
		w.out = append(w.out, b)
		if b == 0xFF {
			w.out = append(w.out, 0)
		}
	}
}

func (w *writer) align() {
	if w.n > 0 {
		w.write(1<<(8-w.n)-1, 8-w.n)
	}
	w.acc, w.n = 0, 0
}

// baseline are the scans of a sequential file: one, or one a component.
func (s *sheet) baseline(interleaved bool) []scanSpec {
	if interleaved {
		return []scanSpec{{comps: s.all(), se: 63}}
	}
	var scans []scanSpec
	for i := range s.comps {
		scans = append(scans, scanSpec{comps: []int{i}, se: 63})
	}
	return scans
}

func (s *sheet) all() (all []int) {
	for i := range s.comps {
		all = append(all, i)
	}
	return all
}

// script draws the scans of a progressive file.
func (s *sheet) script(rng *rand.Rand) []scanSpec {
	var scans []scanSpec
	dc := func(ah, al int) {
		if rng.IntN(2) == 0 {
			scans = append(scans, scanSpec{comps: s.all(), ah: ah, al: al})
			return
		}
		for i := range s.comps {
			scans = append(scans, scanSpec{comps: []int{i}, ah: ah, al: al})
		}
	}
	al := rng.IntN(4)
	dc(0, al)
	for ; al > 0; al-- {
		dc(al, al-1)
	}
	for i := range s.comps {
		for from := 1; from <= 63; {
			to := min(63, from+rng.IntN(63))
			al := rng.IntN(4)
			scans = append(scans, scanSpec{comps: []int{i}, ss: from, se: to, al: al})
			for ; al > 0; al-- {
				scans = append(scans, scanSpec{comps: []int{i}, ss: from, se: to, ah: al, al: al - 1})
			}
			from = to + 1
		}
	}
	return scans
}
