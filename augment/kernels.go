package augment

import "image/color"

// The loops over pixels, in plain Go: each is the truth for the assembly of its name, and what runs
// where there is none.

// mixGo is the pass down: dst[i] is the sum over j of -weights[j] * rows[j][i] in downBits
// fraction bits, less 128 levels. Eight samples are computed at a time, as pairs in the two halves of a word.
func mixGo(dst []int16, rows [][]byte, weights []int16) {
	const (
		low   = 0x000000FF_000000FF
		round = 1<<(downShift-1)<<32 | 1<<(downShift-1)
	)
	n := len(dst)
	i := 0
	for ; i+8 <= n; i += 8 {
		var a, b, c, d uint64 = round, round, round, round
		for j, row := range rows {
			r := row[i : i+8 : i+8]
			s := uint64(r[0]) | uint64(r[1])<<8 | uint64(r[2])<<16 | uint64(r[3])<<24 |
				uint64(r[4])<<32 | uint64(r[5])<<40 | uint64(r[6])<<48 | uint64(r[7])<<56
			w := uint64(-int64(weights[j]))
			a += s & low * w
			b += s >> 8 & low * w
			c += s >> 16 & low * w
			d += s >> 24 & low * w
		}
		out := dst[i : i+8 : i+8]
		for k, pair := range [4]uint64{a, b, c, d} {
			out[k] = int16(pair>>downShift&0xFFFF - 1<<15)
			out[k+4] = int16(pair>>(32+downShift) - 1<<15)
		}
	}
	for ; i < n; i++ {
		sum := int32(downBias)
		for j, row := range rows {
			sum -= int32(weights[j]) * int32(row[i])
		}
		dst[i] = int16(sum >> downShift)
	}
}

// squeezeGo is the pass across: dst[o] is the sum over j of -weights[o*stride+j] * src[first[o]+j], plus
// bias, in acrossBits fraction bits. The usual three and four samples, a reduction by less than two, are
// written out.
func squeezeGo(dst, src []int16, a *axis, bias int32) {
	for o, first := range a.first[:len(dst)] {
		w := a.weights[o*a.stride:][:a.taps]
		s := src[first:][:a.taps]
		sum := bias
		switch {
		case len(w) == 3 && len(s) == 3:
			sum -= int32(s[0])*int32(w[0]) + int32(s[1])*int32(w[1]) + int32(s[2])*int32(w[2])
		case len(w) == 4 && len(s) == 4:
			sum -= int32(s[0])*int32(w[0]) + int32(s[1])*int32(w[1]) + int32(s[2])*int32(w[2]) + int32(s[3])*int32(w[3])
		default:
			for j, wj := range w {
				sum -= int32(s[j]) * int32(wj)
			}
		}
		dst[o] = int16(sum >> acrossShift)
	}
}

// JFIF's matrix in 15 fraction bits, of what it has beyond whole numbers.
const (
	redCr    = 13173 // 0.402 (and 1)
	greenCb  = 11277 // 0.344136
	greenCr  = 23401 // 0.714136
	blueCb   = 25297 // 0.772 (and 1)
	halfUnit = 1 << 14
)

// packYCbCrGo converts filtered samples to interleaved RGB: y in acrossBits fraction bits and half a
// level up, cb and cr about 0.
func packYCbCrGo(dst []byte, y, cb, cr []int16) {
	y = y[:len(dst)/3]
	cb, cr = cb[:len(y)], cr[:len(y)]
	for i := range y {
		l, b, r := int32(y[i]), int32(cb[i]), int32(cr[i])
		p := dst[3*i:][:3:3]
		p[0] = clamp((l + r + (r*redCr+halfUnit)>>15) >> acrossBits)
		p[1] = clamp((l - (b*greenCb+halfUnit)>>15 - (r*greenCr+halfUnit)>>15) >> acrossBits)
		p[2] = clamp((l + b + (b*blueCb+halfUnit)>>15) >> acrossBits)
	}
}

func clamp(v int32) byte {
	if uint32(v) <= 255 {
		return byte(v)
	}
	return byte(^v >> 31) // 0 below, 255 above
}

// packRGBGo interleaves filtered samples, in acrossBits fraction bits and half a level up.
func packRGBGo(dst []byte, r, g, b []int16) {
	r = r[:len(dst)/3]
	g, b = g[:len(r)], b[:len(r)]
	for i := range r {
		p := dst[3*i:][:3:3]
		p[0], p[1], p[2] = byte(r[i]>>acrossBits), byte(g[i]>>acrossBits), byte(b[i]>>acrossBits)
	}
}

// exactGo converts samples that were not scaled as image/color does.
func exactGo(dst, y, cb, cr []byte) {
	y = y[:len(dst)/3]
	cb, cr = cb[:len(y)], cr[:len(y)]
	for i := range y {
		p := dst[3*i:][:3:3]
		p[0], p[1], p[2] = color.YCbCrToRGB(y[i], cb[i], cr[i])
	}
}

// splitGo takes interleaved RGB apart.
func splitGo(r, g, b, pix []byte) {
	g, b, pix = g[:len(r)], b[:len(r)], pix[:3*len(r)]
	for i := range r {
		p := pix[3*i:][:3:3]
		r[i], g[i], b[i] = p[0], p[1], p[2]
	}
}

// turnGo makes columns rows: dst[to+i*by+x] is src[at+x*step+i], for i < turned and x < n.
func turnGo(dst []byte, to, by int, src []byte, at, step, n int) {
	for x := range n {
		for i, v := range src[at+x*step:][:turned] {
			dst[to+i*by+x] = v
		}
	}
}
