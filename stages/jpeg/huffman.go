package jpeg

import "bytes"

// lookupBits is how many bits of a code are looked up at once. Of the symbols of a
// photograph at most one in a hundred has a longer code.
const lookupBits = 10

// fastBits is the most bits, with those of the value, of a symbol that the lookup gives, so
// that one refill of 56 serves three. A longer one is rare too.
const fastBits = 18

// tailSize is how many of the upper 16-bit strings, where codes of more than lookupBits are, have a table
// of their own. The tables of photographs need 300 to 1000.
const tailSize = 2048

// A symbol is all there is to know of a Huffman code, in four bytes:
//
//	0  the length of the code and the value bits behind it
//	1  64 less that: the bits below the value
//	2  the number of value bits
//	3  how far it goes on in the block: zeros passed over and one; from endOfBlock on it
//	   ends the block or, in a progressive scan, a band of 1<<(n-endOfBlock) blocks or more
type symbol uint32

func (s symbol) length() uint    { return uint(uint8(s)) }
func (s symbol) size() uint      { return uint(uint8(s >> 16)) }
func (s symbol) code() uint      { return s.length() - s.size() } // its length
func (s symbol) advance() uint32 { return uint32(s >> 24) }

const (
	badCode    = 64  // advance of what is no code: it takes any position to 64..127
	endOfBlock = 128 // it takes any position to 128..204, with that of a band's run
	elsewhere  = 240 // it takes any position to 240 or more
)

const (
	// invalid is the symbol of bits that are no code.
	invalid symbol = 1 | 63<<8 | badCode<<24
	// missing says that a table does not have the symbol; the bits are still there.
	missing symbol = 64<<8 | elsewhere<<24
)

func makeSymbol(length uint, value byte, dc bool) symbol {
	size, run := uint(value&15), uint(value>>4)
	advance := run + 1
	if !dc && size == 0 && run != 15 {
		advance = endOfBlock + run
	}
	return symbol(length + size | (64-length-size)<<8 | size<<16 | advance<<24)
}

// extend gives the number that the size bits at the top of buf stand for (F.2.2.1). buf may
// have any bits behind.
func extend(buf uint64, size uint) int32 {
	sign := ^(int64(buf) >> 63)                                 // a first bit of 0 means negative
	v := int64((buf ^ uint64(sign)) >> 1 >> ((63 - size) & 63)) // size may be 0
	return int32((v ^ sign) - sign)
}

// table decodes the codes of one Huffman table.
type table struct {
	lookup  [1 << lookupBits]symbol
	tail    [tailSize]symbol // by the first 16 bits, from tailAt on
	tailAt  int64
	limit   [18]uint32 // of length l: the first 16 bits that are above all its codes
	offset  [17]int32  // of length l: from a code to its place in values
	values  [256]byte
	isDC    bool
	set     bool // in this file
	spec    [16 + 256]byte
	specLen int
}

// build makes the table from the rest of a DHT segment, and gives the number of bytes it took.
func (t *table) build(p []byte, dc bool) (int, error) {
	if len(p) < 16 {
		return 0, formatError("a Huffman table is cut short")
	}
	total := 0
	for _, n := range p[:16] {
		total += int(n)
	}
	if total == 0 || total > 256 || len(p) < 16+total {
		return 0, formatError("a Huffman table of %d codes has %d bytes", total, len(p))
	}
	p = p[:16+total]
	if t.specLen > 0 && bytes.Equal(t.spec[:t.specLen], p) {
		t.set = true // most files have the same tables
		return len(p), nil
	}
	t.set, t.specLen, t.isDC = false, 0, dc
	if dc {
		for _, v := range p[16:] {
			if v > 15 {
				return 0, formatError("a Huffman table for DC has the value %d", v)
			}
		}
	}
	for i := range t.lookup {
		t.lookup[i] = missing
	}
	t.tailAt = 1 << 16
	copy(t.values[:], p[16:])
	code, k := uint32(0), 0
	for length := uint(1); length <= 16; length++ {
		n := uint32(p[length-1])
		if code+n > 1<<length {
			return 0, formatError("a Huffman table has too many codes of %d bits", length)
		}
		t.offset[length] = int32(k) - int32(code)
		for range n {
			s := makeSymbol(length, t.values[k], dc)
			if length > lookupBits {
				from := int(code<<(16-length)) - int(t.tailAt)
				fill(t.tail[min(from, tailSize):min(from+1<<(16-length), tailSize)], s)
			} else if s.length() <= fastBits {
				fill(t.lookup[code<<(lookupBits-length):][:1<<(lookupBits-length)], s)
			}
			code++
			k++
		}
		t.limit[length] = code << (16 - length)
		if length == lookupBits {
			t.tailAt = int64(t.limit[length])
		}
		code <<= 1
	}
	// What is behind the last code is none, which the bits themselves tell.
	fill(t.tail[min(int64(t.limit[16])-t.tailAt, tailSize):], missing)
	copy(t.spec[:], p)
	t.specLen, t.set = len(p), true
	return len(p), nil
}

func fill(dst []symbol, s symbol) {
	for i := range dst {
		dst[i] = s
	}
}

// long finds any code at the top of buf, bit by bit.
//
//go:noinline
func (t *table) long(buf uint64) symbol {
	c := uint32(buf >> 48)
	for length := uint(1); length <= 16; length++ {
		if c < t.limit[length] {
			return makeSymbol(length, t.values[uint8(int32(c>>(16-length))+t.offset[length])], t.isDC)
		}
	}
	return invalid
}

// next gives the symbol at the top of buf.
func (t *table) next(buf uint64) symbol {
	s := t.lookup[buf>>(64-lookupBits)]
	if s == missing {
		s = t.long(buf)
	}
	return s
}

// huffmanTables reads a DHT segment.
func (d *Decoder) huffmanTables() error {
	p, err := d.payload()
	if err != nil {
		return err
	}
	for len(p) > 0 {
		class, id := p[0]>>4, p[0]&15
		if class > 1 || id > 3 {
			return formatError("a Huffman table begins with %#02x", p[0])
		}
		t := &d.dc[id]
		if class == 1 {
			t = &d.ac[id]
		}
		n, err := t.build(p[1:], class == 0)
		if err != nil {
			return err
		}
		p = p[1+n:]
	}
	return nil
}
