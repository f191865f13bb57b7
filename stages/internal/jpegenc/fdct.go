package jpegenc

import "math"

// fdctScale are the factors that fdct leaves out, a dimension: its results times
// fdctScale[v]*fdctScale[u] are the DCT of A.3.3.
var fdctScale = func() (s [8]float64) {
	for k := range s {
		s[k] = 1 / (4 * math.Cos(float64(k)*math.Pi/16))
	}
	s[0] = 1 / math.Sqrt(8)
	return s
}()

// fdct transforms a block in place, up to fdctScale, by the factorisation of Arai,
// Agui and Nakajima (1988): five multiplications for eight samples.
func fdct(b *[64]float32) {
	for i := range 8 {
		fdct8(b, 8*i, 1)
	}
	for i := range 8 {
		fdct8(b, i, 8)
	}
}

// Cosines of the factorisation, ck = cos(k pi / 16).
const (
	c4      = 0.70710678118654752
	c6      = 0.38268343236508977
	c2less6 = 0.54119610014619698 // c2 - c6
	c2and6  = 1.30656296487637653 // c2 + c6
)

// fdct8 transforms the eight samples at b[at], b[at+step], ... Conversions keep a
// compiler from fusing a product with a sum, so every machine gives equal bits.
func fdct8(b *[64]float32, at, step int) {
	x0, x7 := b[at&63], b[(at+7*step)&63]
	x1, x6 := b[(at+step)&63], b[(at+6*step)&63]
	x2, x5 := b[(at+2*step)&63], b[(at+5*step)&63]
	x3, x4 := b[(at+3*step)&63], b[(at+4*step)&63]

	// Even coefficients, from the sums.
	s07, s16, s25, s34 := x0+x7, x1+x6, x2+x5, x3+x4
	sum0, sum1, diff1, diff0 := s07+s34, s16+s25, s16-s25, s07-s34
	turn := float32((diff1 + diff0) * c4)
	b[at&63] = sum0 + sum1
	b[(at+4*step)&63] = sum0 - sum1
	b[(at+2*step)&63] = diff0 + turn
	b[(at+6*step)&63] = diff0 - turn

	// Odd coefficients, from the differences.
	d07, d16, d25, d34 := x0-x7, x1-x6, x2-x5, x3-x4
	a, m, z := d34+d25, d25+d16, d16+d07
	p := float32((a - z) * c6)
	lo := float32(a*c2less6) + p
	hi := float32(z*c2and6) + p
	mid := float32(m * c4)
	up, down := d07+mid, d07-mid
	b[(at+5*step)&63] = down + lo
	b[(at+3*step)&63] = down - lo
	b[(at+step)&63] = up + hi
	b[(at+7*step)&63] = up - hi
}
