package jpeg

import (
	"bytes"
	"fmt"
	"image"
	"math"
)

const (
	markerSOF0  = 0xC0 // baseline
	markerSOF1  = 0xC1 // extended sequential
	markerSOF2  = 0xC2 // progressive
	markerDHT   = 0xC4
	markerRST0  = 0xD0
	markerRST7  = 0xD7
	markerSOI   = 0xD8
	markerEOI   = 0xD9
	markerSOS   = 0xDA
	markerDQT   = 0xDB
	markerDNL   = 0xDC
	markerDRI   = 0xDD
	markerAPP0  = 0xE0
	markerAPP14 = 0xEE
	markerTEM   = 0x01
)

// refused are the frames (table B.1) that are not decoded.
var refused = map[byte]string{
	0xC3: "lossless coding (SOF3)",
	0xC5: "hierarchical coding (SOF5)",
	0xC6: "hierarchical coding (SOF6)",
	0xC7: "lossless hierarchical coding (SOF7)",
	0xC8: "a frame of JPEG extensions (JPG)",
	0xC9: "arithmetic coding (SOF9)",
	0xCA: "progressive arithmetic coding (SOF10)",
	0xCB: "lossless arithmetic coding (SOF11)",
	0xCC: "arithmetic coding (DAC)",
	0xCD: "hierarchical arithmetic coding (SOF13)",
	0xCE: "hierarchical arithmetic coding (SOF14)",
	0xCF: "lossless hierarchical arithmetic coding (SOF15)",
	0xDE: "hierarchical coding (DHP)",
	0xDF: "hierarchical coding (EXP)",
}

// zigzag is where the coefficients of a file lie in a block (figure A.6).
var zigzag = [64]uint8{
	0, 1, 8, 16, 9, 2, 3, 10,
	17, 24, 32, 25, 18, 11, 4, 5,
	12, 19, 26, 33, 40, 48, 41, 34,
	27, 20, 13, 6, 7, 14, 21, 28,
	35, 42, 49, 56, 57, 50, 43, 36,
	29, 22, 15, 23, 30, 37, 44, 51,
	58, 59, 52, 45, 38, 31, 39, 46,
	53, 60, 61, 54, 47, 55, 62, 63,
}

// frame is what SOF says, and what follows from it.
type frame struct {
	width, height int
	progressive   bool
	hMax, vMax    int
	mcuCols       int // of an interleaved scan of all components
	mcuRows       int
	comps         []component
	store         [4]component
}

// component is one of the frame, with its plane.
type component struct {
	id   byte
	h, v int // sampling factors, 1..4
	tq   int // quantisation table

	width, height int // samples
	cols, rows    int // blocks that hold them: those of a scan of this component alone
	stride        int // of pix; whole blocks, and an even number of them
	lines         int // of pix
	blockCols     int // blocks in a row of pix, without what makes stride even
	blockRows     int
	window        image.Rectangle // blocks of the region; Min.X is even
	pix           []byte

	begun bool       // it was in a scan
	quant [64]uint16 // as it was at its first scan (natural order)
	// bitsLeft is, for each coefficient (zigzag), how many low bits are still to come, -1: all.
	bitsLeft [64]int8

	// progressive
	coefs   []int16 // 64 a block, natural order, blockCols a row
	nonzero []uint64

	// in the scan
	td, ta           int   // Huffman tables
	pred             int32 // DC of the block before
	stripAt          int   // first block in Decoder.strip
	mcuCols, mcuRows int   // blocks in an MCU
}

// header is what a file says outside its entropy-coded data and Huffman tables.
type header struct {
	data      []byte // the file
	pos       int    // next byte to look at
	maxPixels int64

	frame          frame
	hasFrame       bool
	restart        int // MCUs in a restart interval, 0: no restarts
	jfif           bool
	adobe          bool
	adobeTransform byte // 0: none, 1: YCbCr, 2: YCCK

	quant    [4][64]uint16 // natural order
	quantSet [4]bool
}

// reset begins with another file. The planes keep their memory.
func (h *header) reset(data []byte, maxPixels int64) {
	*h = header{data: data, maxPixels: maxPixels, frame: h.frame}
}

// start checks the first marker.
func (h *header) start() error {
	if len(h.data) < 2 || h.data[0] != 0xFF || h.data[1] != markerSOI {
		return formatError("it does not begin with ff d8")
	}
	h.pos = 2
	return nil
}

// marker finds the next marker and goes behind it. Bytes before it that are no
// marker are passed over, as every decoder does, and so are markers without a meaning here.
func (h *header) marker() (byte, error) {
	for {
		i := bytes.IndexByte(h.data[h.pos:], 0xFF)
		if i < 0 {
			h.pos = len(h.data)
			return 0, formatError("it ends without an EOI marker")
		}
		h.pos += i
		for h.pos < len(h.data) && h.data[h.pos] == 0xFF {
			h.pos++ // any number of them may fill
		}
		if h.pos == len(h.data) {
			return 0, formatError("it ends without an EOI marker")
		}
		code := h.data[h.pos]
		h.pos++
		switch {
		case code == 0, code == markerTEM, code >= markerRST0 && code <= markerSOI:
		default:
			return code, nil
		}
	}
}

// payload is the bytes of the marker segment at pos, which it goes behind.
func (h *header) payload() ([]byte, error) {
	rest := h.data[h.pos:]
	if len(rest) < 2 {
		return nil, formatError("it ends in a marker segment, at byte %d", len(h.data))
	}
	n := int(rest[0])<<8 | int(rest[1])
	if n < 2 {
		return nil, formatError("the marker segment at byte %d has a length of %d", h.pos, n)
	}
	if n > len(rest) {
		return nil, formatError("it ends in the marker segment of %d bytes at byte %d", n, h.pos)
	}
	h.pos += n
	return rest[2:n], nil
}

// segment reads a marker segment other than DHT and SOS.
func (h *header) segment(code byte) error {
	if name, ok := refused[code]; ok {
		return unsupported("%s", name)
	}
	p, err := h.payload()
	if err != nil {
		return err
	}
	switch code {
	case markerSOF0, markerSOF1, markerSOF2:
		return h.startFrame(p, code == markerSOF2)
	case markerDQT:
		return h.quantTables(p)
	case markerDRI:
		if len(p) != 2 {
			return formatError("the restart interval (DRI) has %d bytes instead of 2", len(p))
		}
		h.restart = int(p[0])<<8 | int(p[1])
	case markerAPP0:
		h.jfif = h.jfif || bytes.HasPrefix(p, []byte("JFIF\x00"))
	case markerAPP14:
		if len(p) >= 12 && bytes.HasPrefix(p, []byte("Adobe")) {
			h.adobe, h.adobeTransform = true, p[11]
		}
	}
	return nil // others, such as comments and EXIF, say nothing about samples
}

func (h *header) quantTables(p []byte) error {
	for len(p) > 0 {
		precision, id := p[0]>>4, p[0]&15
		if precision > 1 || id > 3 {
			return formatError("a quantisation table begins with %#02x", p[0])
		}
		p = p[1:]
		size := 64 << precision
		if len(p) < size {
			return formatError("a quantisation table is cut short")
		}
		t := &h.quant[id]
		for k, natural := range zigzag {
			if precision == 0 {
				t[natural] = uint16(p[k])
			} else {
				t[natural] = uint16(p[2*k])<<8 | uint16(p[2*k+1])
			}
		}
		h.quantSet[id] = true
		p = p[size:]
	}
	return nil
}

// startFrame reads SOF. Nothing is allocated before what it says is checked.
func (h *header) startFrame(p []byte, progressive bool) error {
	if h.hasFrame {
		return formatError("it has two frames")
	}
	if len(p) < 6 || len(p) != 6+3*int(p[5]) {
		return formatError("the frame header has %d bytes", len(p))
	}
	if p[0] != 8 {
		if p[0] == 12 {
			return unsupported("12 bits a sample")
		}
		return formatError("%d bits a sample", p[0])
	}
	f := &h.frame
	f.height, f.width = int(p[1])<<8|int(p[2]), int(p[3])<<8|int(p[4])
	n := int(p[5])
	if f.width == 0 {
		return formatError("its width is 0")
	}
	if f.height == 0 {
		return unsupported("a height that is given behind the first scan (DNL)")
	}
	if n != 1 && n != 3 && n != 4 {
		return unsupported("%d components", n)
	}
	if pixels := int64(f.width) * int64(f.height); pixels > h.maxPixels {
		return fmt.Errorf("%w: %d x %d are more than %d", ErrTooLarge, f.width, f.height, h.maxPixels)
	}
	f.progressive, f.hMax, f.vMax = progressive, 1, 1
	f.comps = f.store[:n]
	for i := range f.comps {
		q := p[6+3*i:]
		c := &f.comps[i]
		pix, coefs, nonzero := c.pix, c.coefs, c.nonzero
		*c = component{id: q[0], h: int(q[1] >> 4), v: int(q[1] & 15), tq: int(q[2]), pix: pix[:0], coefs: coefs[:0], nonzero: nonzero[:0]}
		if c.h < 1 || c.h > 4 || c.v < 1 || c.v > 4 {
			return formatError("component %d has sampling factors %d x %d", i, c.h, c.v)
		}
		if c.tq > 3 {
			return formatError("component %d has quantisation table %d", i, c.tq)
		}
		for j := range i {
			if f.comps[j].id == c.id {
				return formatError("two components have the name %d", c.id)
			}
		}
		f.hMax, f.vMax = max(f.hMax, c.h), max(f.vMax, c.v)
	}
	f.mcuCols, f.mcuRows = ceilDiv(f.width, 8*f.hMax), ceilDiv(f.height, 8*f.vMax)
	for i := range f.comps {
		c := &f.comps[i]
		c.width, c.height = ceilDiv(f.width*c.h, f.hMax), ceilDiv(f.height*c.v, f.vMax)
		c.cols, c.rows = ceilDiv(c.width, 8), ceilDiv(c.height, 8)
		c.blockCols, c.blockRows = f.mcuCols*c.h, f.mcuRows*c.v
		c.stride, c.lines = 8*(c.blockCols+c.blockCols%2), 8*c.blockRows
		for k := range c.bitsLeft {
			c.bitsLeft[k] = -1
		}
	}
	h.hasFrame = true
	return nil
}

// believable holds the size that the header claims against the bytes that are left: a
// block takes at least one bit for DC and, if all coefficients are in one scan, one for the end of block.
// It spares the memory for a picture that cannot be there; one that is damaged may have lost most of its bytes,
// but not all but a part in share.
func (h *header) believable(share int64) bool {
	blocks := int64(0)
	for i := range h.frame.comps {
		c := &h.frame.comps[i]
		blocks += int64(c.cols) * int64(c.rows)
	}
	perByte := int64(4)
	if h.frame.progressive {
		perByte = 8
	}
	return blocks/perByte/share <= int64(len(h.data)-h.pos)
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// model decides the colours of the frame as libjpeg does.
func (h *header) model() Model {
	c := h.frame.comps
	switch len(c) {
	case 1:
		return Gray
	case 3:
		switch {
		case h.jfif:
			return YCbCr
		case h.adobe:
			if h.adobeTransform == 0 {
				return RGB
			}
			return YCbCr
		case c[0].id == 'R' && c[1].id == 'G' && c[2].id == 'B':
			return RGB
		}
		return YCbCr
	}
	if h.adobe && h.adobeTransform != 0 {
		return YCCK
	}
	return CMYK
}

// Config is what the headers of a file say.
type Config struct {
	Width, Height int
	Model         Model
	Progressive   bool
	Sampling      []image.Point // horizontal and vertical factor of each component
}

// DecodeConfig reads the headers of a file, up to its first scan. Its errors are
// those of Decode.
func DecodeConfig(data []byte) (Config, error) {
	h := header{data: data, maxPixels: math.MaxInt64}
	if err := h.start(); err != nil {
		return Config{}, err
	}
	for {
		code, err := h.marker()
		if err != nil && !h.hasFrame {
			return Config{}, err
		}
		if err != nil || code == markerSOS || code == markerEOI {
			break
		}
		if err := h.segment(code); err != nil {
			return Config{}, err
		}
	}
	if !h.hasFrame {
		return Config{}, formatError("it has no frame header")
	}
	c := Config{Width: h.frame.width, Height: h.frame.height, Model: h.model(), Progressive: h.frame.progressive}
	c.Sampling = make([]image.Point, 0, len(h.frame.comps))
	for i := range h.frame.comps {
		c.Sampling = append(c.Sampling, image.Pt(h.frame.comps[i].h, h.frame.comps[i].v))
	}
	return c, nil
}
