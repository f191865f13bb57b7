package jpeg

import (
	"bytes"
	"encoding/binary"
)

// padding is how many zero bytes follow an interval's data, so that a block can be decoded without
// looking for their end: the longest, in a progressive scan, has 64 codes and
// their value bits, and 63 correction bits.
const padding = 64*(16+15)/8 + 64 + 16

// bits reads the entropy-coded data of one restart interval.
//
// The upper n bits of buf are those that come next; below them buf holds the bits after, as far as they
// fit, so that a refill can or them in again. p is the byte of data behind the n bits.
type bits struct {
	buf  uint64
	n    uint
	p    int
	data []byte // without stuffed bytes, with padding
	end  int    // bits that are data

	memory []byte // of data
	src    []byte // the file
	from   int    // where data begins in the file
	marker byte   // that ended the data, 0: the file ended
}

// load takes the entropy-coded data at byte pos of the file, up to the next marker, and gives the position
// of that marker.
func (b *bits) load(src []byte, pos int) int {
	if need := len(src) - pos + padding; cap(b.memory) < need {
		b.memory = make([]byte, need+need/4)
	}
	out := b.memory[:cap(b.memory)]
	b.src, b.from, b.marker = src, pos, 0
	w := 0
	for {
		rest := src[pos:]
		i := bytes.IndexByte(rest, 0xFF)
		if i < 0 {
			w += copy(out[w:], rest)
			pos = len(src)
			break
		}
		w += copy(out[w:], rest[:i])
		at := pos + i
		pos = at + 1
		for pos < len(src) && src[pos] == 0xFF {
			pos++ // fill bytes
		}
		if pos == len(src) {
			break
		}
		if src[pos] != 0 {
			b.marker = src[pos]
			pos = at
			break
		}
		out[w] = 0xFF
		w++
		pos++
	}
	clear(out[w:][:padding])
	b.data = out[:w+padding]
	b.buf, b.n, b.p, b.end = 0, 0, 0, 8*w
	return pos
}

// pos is the position of the next bit.
func (b *bits) pos() int { return 8*b.p - int(b.n) }

// over reports whether more bits were read than there are.
func (b *bits) over() bool { return b.pos() > b.end }

// unread is the number of whole bytes that were not read.
func (b *bits) unread() int { return (b.end - b.pos()) / 8 }

// offset is the byte of the file that holds the next bit, or where the data end.
func (b *bits) offset() int {
	want := min(b.pos(), b.end) / 8
	at := b.from
	for got := 0; got < want && at < len(b.src); got++ {
		if b.src[at] == 0xFF {
			for at < len(b.src) && b.src[at] == 0xFF {
				at++
			}
		}
		at++
	}
	return min(at, len(b.src))
}

// refill leaves at least 56 bits in buf.
func (b *bits) refill() {
	b.buf |= binary.BigEndian.Uint64(b.data[b.p:]) >> (b.n & 63)
	b.p += int((63 - b.n) >> 3)
	b.n |= 56
}

// skip passes over n bits, of those in buf.
func (b *bits) skip(n uint) {
	b.buf <<= n & 63
	b.n -= n
}

// take gives the next n bits, 0 to 16, and needs that many in buf.
func (b *bits) take(n uint) uint32 {
	v := uint32(b.buf >> 32 >> (32 - n))
	b.skip(n)
	return v
}

// bit gives the next bit.
func (b *bits) bit() bool {
	if b.n == 0 {
		b.refill()
	}
	one := int64(b.buf) < 0
	b.skip(1)
	return one
}
