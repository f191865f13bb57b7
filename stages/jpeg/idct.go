package jpeg

// The inverse DCT is libjpeg's accurate one (jidctint: Loeffler, Ligtenberg and Moschytz, 13 bit constants,
// two bits more between the passes), written as the sums of products that its
// factors multiply out to, which gives the same integers. Columns come first.
// As in its vector forms, a coefficient times its quantiser is cut to 16 bits and what the first pass
// gives is held to 16 bits. No file of a picture comes near either; they are what
// makes plain Go and vectors agree on any input. No 32 bit sum can overflow: the
// factors of a sum, in absolute value, add up to less than 2^16.

const (
	constBits = 13
	passBits  = 2
)

// The cosines of the transform times the square root of 2, in 13 bits: cN is
// round(sqrt(2) * cos(N*pi/16) * 2^13), but for the rounding of libjpeg's factors that make it up.
const (
	fix0298 = 2446
	fix0390 = 3196
	fix0541 = 4433
	fix0765 = 6270
	fix0899 = 7373
	fix1175 = 9633
	fix1501 = 12299
	fix1847 = 15137
	fix1961 = 16069
	fix2053 = 16819
	fix2562 = 20995
	fix3072 = 25172
)

// transform writes the samples of blocks of a row from column x0 on, which is even, as far as they
// are of the region and the plane. coefs are an even number of blocks; flags are 0 for a block with nothing
// but DC.
func (d *Decoder) transform(c *component, blockRow, x0 int, coefs []int16, flags []uint8) {
	if d.seen != nil {
		d.seen(c, coefs)
	}
	if blockRow < c.window.Min.Y || blockRow >= c.window.Max.Y {
		return
	}
	dst := c.pix[8*blockRow*c.stride:][:8*c.stride]
	for x := max(x0, c.window.Min.X); x < min(c.window.Max.X, x0+len(flags)); x += 2 {
		i := x - x0
		pair := (*[128]int16)(coefs[64*i:])
		at := dst[8*x:]
		if flags[i]|flags[i+1] == 0 {
			flat(at, c.stride, flatSample(pair[0], c.quant[0]))
			flat(at[8:], c.stride, flatSample(pair[64], c.quant[0]))
			continue
		}
		idct2(d.level, pair, &c.quant, at, c.stride)
	}
}

// flatSample is the sample of a block with nothing but DC: what idct makes of it.
func flatSample(dc int16, quant uint16) byte {
	v := clamp16(int32(dc*int16(quant)) << passBits)
	return clampSample((v + 1<<(passBits+2)) >> (passBits + 3))
}

// flat fills a block.
func flat(dst []byte, stride int, v byte) {
	eight := 0x0101010101010101 * uint64(v)
	for y := range 8 {
		putUint64(dst[y*stride:], eight)
	}
}

// idct2Go transforms two blocks (natural order) to 8 rows of 16 samples.
func idct2Go(coefs *[128]int16, quant *[64]uint16, dst []byte, stride int) {
	idct((*[64]int16)(coefs[:64]), quant, dst, stride)
	idct((*[64]int16)(coefs[64:]), quant, dst[8:], stride)
}

func idct(coefs *[64]int16, quant *[64]uint16, dst []byte, stride int) {
	var work [8][8]int32
	for x := range 8 {
		first := coefs[x] * int16(quant[x])
		if coefs[8+x]|coefs[16+x]|coefs[24+x]|coefs[32+x]|coefs[40+x]|coefs[48+x]|coefs[56+x] == 0 {
			// Often; and then the pass comes to this.
			v := clamp16(int32(first) << passBits)
			for y := range work {
				work[y][x] = v
			}
			continue
		}
		v := [8]int32{int32(first)}
		for y := 1; y < 8; y++ {
			v[y] = int32(coefs[8*y+x] * int16(quant[8*y+x]))
		}
		idct1(&v)
		for y := range work {
			work[y][x] = clamp16((v[y] + 1<<(constBits-passBits-1)) >> (constBits - passBits))
		}
	}
	for y := range work {
		w := &work[y]
		idct1(w)
		row := dst[y*stride:][:8]
		for x := range row {
			row[x] = clampSample((w[x] + 1<<(constBits+passBits+2)) >> (constBits + passBits + 3))
		}
	}
}

// idct1 is one pass over eight values, which become larger by 2^constBits * sqrt(8).
func idct1(v *[8]int32) {
	i0, i1, i2, i3, i4, i5, i6, i7 := v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]
	// Even part.
	e0 := (i0 + i4) << constBits
	e1 := (i0 - i4) << constBits
	e2 := i2*fix0541 - i6*(fix1847-fix0541)
	e3 := i2*(fix0541+fix0765) + i6*fix0541
	t0, t3 := e0+e3, e0-e3
	t1, t2 := e1+e2, e1-e2
	// Odd part.
	z := (i7 + i3 + i5 + i1) * fix1175
	z3 := z - (i7+i3)*fix1961
	z4 := z - (i5+i1)*fix0390
	z1 := -(i7 + i1) * fix0899
	z2 := -(i5 + i3) * fix2562
	o0 := i7*fix0298 + z1 + z3
	o1 := i5*fix2053 + z2 + z4
	o2 := i3*fix3072 + z2 + z3
	o3 := i1*fix1501 + z1 + z4
	v[0], v[7] = t0+o3, t0-o3
	v[1], v[6] = t1+o2, t1-o2
	v[2], v[5] = t2+o1, t2-o1
	v[3], v[4] = t3+o0, t3-o0
}

func clamp16(v int32) int32 {
	if int32(int16(v)) != v {
		return v>>31 ^ 32767
	}
	return v
}

// clampSample adds the level shift of A.3.1.
func clampSample(v int32) byte {
	if v += 128; uint32(v) > 255 {
		return ^byte(v >> 31)
	}
	return byte(v)
}
