// Package jpegenc writes baseline JPEG files (ITU-T T.81) with the quality, the
// chroma subsampling and the restart interval that the caller chooses, which
// image/jpeg does not offer. It is there to make data: the shapes source and
// tests of decoders.
package jpegenc

import (
	"errors"
	"fmt"
	"image"
)

// Options say how a picture is written.
type Options struct {
	Quality int // 1..100, on the scale of libjpeg: Annex K's tables at 50
	Restart int // MCUs between restart markers, up to 65535; 0 for no markers
}

// Append appends img, written as a JPEG file, to dst. img is an *image.Gray (one
// component) or an *image.YCbCr (three, in JFIF's full range), whose subsampling
// becomes the file's. Equal arguments give equal bytes on every machine with
// IEEE arithmetic; the bytes do not depend on what img holds outside its bounds.
func Append(dst []byte, img image.Image, o Options) ([]byte, error) {
	planes, err := planesOf(img)
	if err != nil {
		return nil, err
	}
	size := img.Bounds().Size()
	if size.X < 1 || size.Y < 1 || size.X > 65535 || size.Y > 65535 {
		return nil, fmt.Errorf("jpegenc: a picture of %dx%d does not fit a JPEG (1x1 to 65535x65535)", size.X, size.Y)
	}
	if o.Quality < 1 || o.Quality > 100 {
		return nil, fmt.Errorf("jpegenc: quality %d is outside 1..100", o.Quality)
	}
	if o.Restart < 0 || o.Restart > 65535 {
		return nil, fmt.Errorf("jpegenc: a restart interval of %d is outside 0..65535", o.Restart)
	}
	e := encoder{out: dst, size: size, planes: planes, restart: o.Restart}
	tables := min(len(planes), 2) // both chroma components share one
	for i := range tables {
		e.quant[i], e.divisor[i] = scaleTable(&quantTables[i], o.Quality)
	}
	e.headers(tables)
	e.scan()
	e.marker(0xD9) // EOI
	return e.out, nil
}

// plane is one component: w x h samples, h and v sampling factors.
type plane struct {
	pix          []byte
	stride, w, h int
	sampH, sampV int
	table        int // of quantisation and of Huffman codes: 0 luma, 1 chroma
}

// planesOf looks at the memory of img; nothing is copied.
func planesOf(img image.Image) ([]plane, error) {
	switch m := img.(type) {
	case *image.Gray:
		b := m.Rect
		return []plane{{m.Pix[m.PixOffset(b.Min.X, b.Min.Y):], m.Stride, b.Dx(), b.Dy(), 1, 1, 0}}, nil
	case *image.YCbCr:
		var h, v int
		switch m.SubsampleRatio {
		case image.YCbCrSubsampleRatio444:
			h, v = 1, 1
		case image.YCbCrSubsampleRatio422:
			h, v = 2, 1
		case image.YCbCrSubsampleRatio420:
			h, v = 2, 2
		case image.YCbCrSubsampleRatio440:
			h, v = 1, 2
		case image.YCbCrSubsampleRatio411:
			h, v = 4, 1
		case image.YCbCrSubsampleRatio410:
			h, v = 4, 2
		default:
			return nil, fmt.Errorf("jpegenc: subsampling %v is unknown", m.SubsampleRatio)
		}
		b := m.Rect
		if b.Min.X%h != 0 || b.Min.Y%v != 0 {
			return nil, fmt.Errorf("jpegenc: the picture begins at %v, amid a chroma sample", b.Min)
		}
		cw, ch := (b.Dx()+h-1)/h, (b.Dy()+v-1)/v
		c := m.COffset(b.Min.X, b.Min.Y)
		return []plane{
			{m.Y[m.YOffset(b.Min.X, b.Min.Y):], m.YStride, b.Dx(), b.Dy(), h, v, 0},
			{m.Cb[c:], m.CStride, cw, ch, 1, 1, 1},
			{m.Cr[c:], m.CStride, cw, ch, 1, 1, 1},
		}, nil
	case nil:
		return nil, errors.New("jpegenc: no picture")
	default:
		return nil, fmt.Errorf("jpegenc: a %T cannot be written; give an *image.Gray or an *image.YCbCr", img)
	}
}

type encoder struct {
	out     []byte
	size    image.Point
	planes  []plane
	restart int
	quant   [2][64]byte    // natural order
	divisor [2][64]float32 // what a coefficient of fdct is multiplied by

	bits  uint64 // pending bits, the last n of them
	n     uint
	lastD [3]int32 // DC of the block before, by component
}

func (e *encoder) marker(code byte) { e.out = append(e.out, 0xFF, code) }

// segment begins a marker segment with n bytes of payload.
func (e *encoder) segment(code byte, n int) {
	e.marker(code)
	e.out = append(e.out, byte((n+2)>>8), byte(n+2))
}

// headers writes SOI up to the start of scan.
func (e *encoder) headers(tables int) {
	e.marker(0xD8) // SOI
	e.segment(0xE0, 14)
	e.out = append(e.out, 'J', 'F', 'I', 'F', 0, 1, 1, 0, 0, 1, 0, 1, 0, 0) // version 1.01, square pixels, no thumbnail
	for t := range tables {
		e.segment(0xDB, 65)
		e.out = append(e.out, byte(t))
		for _, natural := range zigzag {
			e.out = append(e.out, e.quant[t][natural])
		}
	}
	e.segment(0xC0, 6+3*len(e.planes)) // baseline, 8 bits a sample
	e.out = append(e.out, 8, byte(e.size.Y>>8), byte(e.size.Y), byte(e.size.X>>8), byte(e.size.X), byte(len(e.planes)))
	for i, p := range e.planes {
		e.out = append(e.out, byte(i+1), byte(p.sampH<<4|p.sampV), byte(p.table))
	}
	for t := range tables {
		for class, spec := range []*huffmanSpec{&dcSpecs[t], &acSpecs[t]} {
			e.segment(0xC4, 17+len(spec.values))
			e.out = append(e.out, byte(class<<4|t))
			e.out = append(e.out, spec.counts[:]...)
			e.out = append(e.out, spec.values...)
		}
	}
	if e.restart > 0 {
		e.segment(0xDD, 2)
		e.out = append(e.out, byte(e.restart>>8), byte(e.restart))
	}
	e.segment(0xDA, 4+2*len(e.planes))
	e.out = append(e.out, byte(len(e.planes)))
	for i, p := range e.planes {
		e.out = append(e.out, byte(i+1), byte(p.table<<4|p.table))
	}
	e.out = append(e.out, 0, 63, 0) // all coefficients at once
}

// scan writes the entropy-coded data: MCU by MCU, component by component.
func (e *encoder) scan() {
	mcuW, mcuH := 8*e.planes[0].sampH, 8*e.planes[0].sampV // the first has the greatest factors
	cols, rows := (e.size.X+mcuW-1)/mcuW, (e.size.Y+mcuH-1)/mcuH
	var block [64]float32
	for mcu := range cols * rows {
		if e.restart > 0 && mcu > 0 && mcu%e.restart == 0 {
			e.flush()
			e.marker(0xD0 + byte(mcu/e.restart-1)%8)
			e.lastD = [3]int32{}
		}
		mx, my := mcu%cols, mcu/cols
		for c := range e.planes {
			p := &e.planes[c]
			for v := range p.sampV {
				for h := range p.sampH {
					p.load(&block, (mx*p.sampH+h)*8, (my*p.sampV+v)*8)
					fdct(&block)
					e.block(&block, c, p.table)
				}
			}
		}
	}
	e.flush()
}

// load takes the 8x8 samples at (x, y), with the last column and row repeated
// beyond the picture's edge.
func (p *plane) load(b *[64]float32, x, y int) {
	if x+8 <= p.w && y+8 <= p.h {
		for j := range 8 {
			row := p.pix[(y+j)*p.stride+x:][:8]
			for i, s := range row {
				b[8*j+i] = float32(s) - 128
			}
		}
		return
	}
	for j := range 8 {
		row := p.pix[min(y+j, p.h-1)*p.stride:]
		for i := range 8 {
			b[8*j+i] = float32(row[min(x+i, p.w-1)]) - 128
		}
	}
}

// block quantises and writes the coefficients of one block (F.1.2).
func (e *encoder) block(b *[64]float32, component, table int) {
	var q [64]int32 // zigzag order
	last := 0
	div := &e.divisor[table]
	for k, natural := range zigzag {
		f := float32(b[natural] * div[natural])
		// Half away from zero; converting cuts towards it.
		if f >= 0.5 {
			q[k], last = int32(f+0.5), k
		} else if f <= -0.5 {
			q[k], last = int32(f-0.5), k
		}
	}
	dc, ac := &dcCodes[table], &acCodes[table]
	diff := q[0] - e.lastD[component]
	e.lastD[component] = q[0]
	e.value(dc, 0, diff)
	run := 0
	for k := 1; k <= last; k++ {
		if q[k] == 0 {
			run++
			continue
		}
		for ; run > 15; run -= 16 {
			e.put(ac[0xF0]) // sixteen zeros
		}
		e.value(ac, run, q[k])
		run = 0
	}
	if last < 63 {
		e.put(ac[0]) // end of block
	}
}

// value writes the code of (run, size of v) and then v's bits.
func (e *encoder) value(codes *[256]code, run int, v int32) {
	size := magnitude(v)
	if v < 0 {
		v-- // the low bits of v-1 stand for a negative v
	}
	e.put(codes[run<<4|int(size)])
	e.put(code{uint32(v) & (1<<size - 1), uint8(size)})
}

// put appends the bits of c, and writes out whole bytes.
func (e *encoder) put(c code) {
	e.bits = e.bits<<c.n | uint64(c.bits)
	e.n += uint(c.n)
	for e.n >= 8 {
		e.n -= 8
		b := byte(e.bits >> e.n)
		e.out = append(e.out, b)
		if b == 0xFF {
			e.out = append(e.out, 0) // stuffing: no marker
		}
	}
}

// flush fills the last byte with ones.
func (e *encoder) flush() {
	if e.n > 0 {
		e.put(code{1<<(8-e.n) - 1, uint8(8 - e.n)})
	}
	e.bits, e.n = 0, 0
}
