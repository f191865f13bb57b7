package jpeg

import "bytes"

// lookupBits is how many bits of a code are looked up at once. Of the symbols of a
// photograph at most one in a hundred has a longer code.
const lookupBits = 10

// fastBits is the most bits, with those of the value, of a symbol that the lookup gives, so
// that one refill of 56 serves three. A longer one is rare too.
const fastBits = 18

// A symbol is all there is to know of a Huffman code, in four bytes:
//
//	0  its length and that of the value bits behind it
//	1  its length
//	2  63 less the number of value bits
//	3  how far it goes on in the block: zeros passed over and one; from endOfBlock on it
//	   ends the block or, in a progressive scan, a band of 1<<(n-endOfBlock) blocks or more
//
// The zero symbol stands for one of more than lookupBits or fastBits.
type symbol uint32

func (s symbol) length() uint    { return uint(uint8(s)) }
func (s symbol) code() uint      { return uint(uint8(s >> 8)) }
func (s symbol) size() uint      { return 63 - uint(uint8(s>>16)) }
func (s symbol) advance() uint32 { return uint32(s >> 24) }

const (
	endOfBlock = 128 // it takes any position to 128 or more
	badCode    = 64  // advance of what is no code: it takes any position to 64..127
)

// invalid is the symbol of bits that are no code.
const invalid symbol = 1 | 1<<8 | 63<<16 | badCode<<24

func makeSymbol(length uint, value byte, dc bool) symbol {
	size, run := uint(value&15), uint(value>>4)
	advance := run + 1
	if !dc && size == 0 && run != 15 {
		advance = endOfBlock + run
	}
	return symbol(length + size | length<<8 | (63-size)<<16 | advance<<24)
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
	clear(t.lookup[:])
	copy(t.values[:], p[16:])
	code, k := uint32(0), 0
	for length := uint(1); length <= 16; length++ {
		n := uint32(p[length-1])
		if code+n > 1<<length {
			return 0, formatError("a Huffman table has too many codes of %d bits", length)
		}
		t.offset[length] = int32(k) - int32(code)
		for range n {
			if s := makeSymbol(length, t.values[k], dc); length <= lookupBits && s.length() <= fastBits {
				same := t.lookup[code<<(lookupBits-length):][:1<<(lookupBits-length)]
				for i := range same {
					same[i] = s
				}
			}
			code++
			k++
		}
		t.limit[length] = code << (16 - length)
		code <<= 1
	}
	copy(t.spec[:], p)
	t.specLen, t.set = len(p), true
	return len(p), nil
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
	if s == 0 {
		s = t.long(buf)
	}
	return s
}
