package host

// The register tile: two rows of activations by four output channels. Eight
// sums, four weights and two activations are what stays in the 15 registers
// that Go has on amd64; 3 x 4 and 4 x 4 spill and reach two thirds of it.
const (
	rows  = 2
	lanes = 4
)

// unroll is how many places a kernel's loop takes at a time. The compiler delays
// the last addition to each sum to the end of the loop's body, behind all its
// products, which then spill; unrolled, most additions are not the last. It more
// than doubles the speed.
const unroll = 8

// acc holds the sums of a register tile, row by row.
type acc [rows * lanes]float32

// tile adds to c the products of two rows with a panel:
//
//	for k := range a0 {
//		for l := range lanes {
//			c[l] += a0[k] * b[k*lanes+l]
//			c[lanes+l] += a1[k] * b[k*lanes+l]
//		}
//	}
//
// with the sum over k taken first and then added to c. a1 is as long as a0, b
// lanes times that.
func tile(c *acc, a0, a1, b []float32) {
	var c00, c01, c02, c03, c10, c11, c12, c13 float32
	for len(a0) >= unroll && len(a1) >= unroll && len(b) >= unroll*lanes {
		w := (*[unroll * lanes]float32)(b)
		p, q := (*[unroll]float32)(a0), (*[unroll]float32)(a1)
		c00 += float32(p[0] * w[0])
		c10 += float32(q[0] * w[0])
		c01 += float32(p[0] * w[1])
		c11 += float32(q[0] * w[1])
		c02 += float32(p[0] * w[2])
		c12 += float32(q[0] * w[2])
		c03 += float32(p[0] * w[3])
		c13 += float32(q[0] * w[3])

		c00 += float32(p[1] * w[4])
		c10 += float32(q[1] * w[4])
		c01 += float32(p[1] * w[5])
		c11 += float32(q[1] * w[5])
		c02 += float32(p[1] * w[6])
		c12 += float32(q[1] * w[6])
		c03 += float32(p[1] * w[7])
		c13 += float32(q[1] * w[7])

		c00 += float32(p[2] * w[8])
		c10 += float32(q[2] * w[8])
		c01 += float32(p[2] * w[9])
		c11 += float32(q[2] * w[9])
		c02 += float32(p[2] * w[10])
		c12 += float32(q[2] * w[10])
		c03 += float32(p[2] * w[11])
		c13 += float32(q[2] * w[11])

		c00 += float32(p[3] * w[12])
		c10 += float32(q[3] * w[12])
		c01 += float32(p[3] * w[13])
		c11 += float32(q[3] * w[13])
		c02 += float32(p[3] * w[14])
		c12 += float32(q[3] * w[14])
		c03 += float32(p[3] * w[15])
		c13 += float32(q[3] * w[15])

		c00 += float32(p[4] * w[16])
		c10 += float32(q[4] * w[16])
		c01 += float32(p[4] * w[17])
		c11 += float32(q[4] * w[17])
		c02 += float32(p[4] * w[18])
		c12 += float32(q[4] * w[18])
		c03 += float32(p[4] * w[19])
		c13 += float32(q[4] * w[19])

		c00 += float32(p[5] * w[20])
		c10 += float32(q[5] * w[20])
		c01 += float32(p[5] * w[21])
		c11 += float32(q[5] * w[21])
		c02 += float32(p[5] * w[22])
		c12 += float32(q[5] * w[22])
		c03 += float32(p[5] * w[23])
		c13 += float32(q[5] * w[23])

		c00 += float32(p[6] * w[24])
		c10 += float32(q[6] * w[24])
		c01 += float32(p[6] * w[25])
		c11 += float32(q[6] * w[25])
		c02 += float32(p[6] * w[26])
		c12 += float32(q[6] * w[26])
		c03 += float32(p[6] * w[27])
		c13 += float32(q[6] * w[27])

		c00 += float32(p[7] * w[28])
		c10 += float32(q[7] * w[28])
		c01 += float32(p[7] * w[29])
		c11 += float32(q[7] * w[29])
		c02 += float32(p[7] * w[30])
		c12 += float32(q[7] * w[30])
		c03 += float32(p[7] * w[31])
		c13 += float32(q[7] * w[31])
		a0, a1, b = a0[unroll:], a1[unroll:], b[unroll*lanes:]
	}
	a1 = a1[:len(a0)]
	for k, p := range a0 {
		q, w := a1[k], (*[lanes]float32)(b[k*lanes:])
		c00 += float32(p * w[0])
		c10 += float32(q * w[0])
		c01 += float32(p * w[1])
		c11 += float32(q * w[1])
		c02 += float32(p * w[2])
		c12 += float32(q * w[2])
		c03 += float32(p * w[3])
		c13 += float32(q * w[3])
	}
	c[0] += c00
	c[1] += c01
	c[2] += c02
	c[3] += c03
	c[4] += c10
	c[5] += c11
	c[6] += c12
	c[7] += c13
}

// outer adds to c the products of two packed panels, summed over their places:
//
//	for p := range len(b) / lanes {
//		for r := range rows {
//			for l := range lanes {
//				c[r*lanes+l] += a[p*rows+r] * b[p*lanes+l]
//			}
//		}
//	}
//
// with the sum over p taken first and then added to c.
func outer(c *acc, a, b []float32) {
	var c00, c01, c02, c03, c10, c11, c12, c13 float32
	for len(a) >= unroll*rows && len(b) >= unroll*lanes {
		x, w := (*[unroll * rows]float32)(a), (*[unroll * lanes]float32)(b)
		c00 += float32(x[0] * w[0])
		c10 += float32(x[1] * w[0])
		c01 += float32(x[0] * w[1])
		c11 += float32(x[1] * w[1])
		c02 += float32(x[0] * w[2])
		c12 += float32(x[1] * w[2])
		c03 += float32(x[0] * w[3])
		c13 += float32(x[1] * w[3])

		c00 += float32(x[2] * w[4])
		c10 += float32(x[3] * w[4])
		c01 += float32(x[2] * w[5])
		c11 += float32(x[3] * w[5])
		c02 += float32(x[2] * w[6])
		c12 += float32(x[3] * w[6])
		c03 += float32(x[2] * w[7])
		c13 += float32(x[3] * w[7])

		c00 += float32(x[4] * w[8])
		c10 += float32(x[5] * w[8])
		c01 += float32(x[4] * w[9])
		c11 += float32(x[5] * w[9])
		c02 += float32(x[4] * w[10])
		c12 += float32(x[5] * w[10])
		c03 += float32(x[4] * w[11])
		c13 += float32(x[5] * w[11])

		c00 += float32(x[6] * w[12])
		c10 += float32(x[7] * w[12])
		c01 += float32(x[6] * w[13])
		c11 += float32(x[7] * w[13])
		c02 += float32(x[6] * w[14])
		c12 += float32(x[7] * w[14])
		c03 += float32(x[6] * w[15])
		c13 += float32(x[7] * w[15])

		c00 += float32(x[8] * w[16])
		c10 += float32(x[9] * w[16])
		c01 += float32(x[8] * w[17])
		c11 += float32(x[9] * w[17])
		c02 += float32(x[8] * w[18])
		c12 += float32(x[9] * w[18])
		c03 += float32(x[8] * w[19])
		c13 += float32(x[9] * w[19])

		c00 += float32(x[10] * w[20])
		c10 += float32(x[11] * w[20])
		c01 += float32(x[10] * w[21])
		c11 += float32(x[11] * w[21])
		c02 += float32(x[10] * w[22])
		c12 += float32(x[11] * w[22])
		c03 += float32(x[10] * w[23])
		c13 += float32(x[11] * w[23])

		c00 += float32(x[12] * w[24])
		c10 += float32(x[13] * w[24])
		c01 += float32(x[12] * w[25])
		c11 += float32(x[13] * w[25])
		c02 += float32(x[12] * w[26])
		c12 += float32(x[13] * w[26])
		c03 += float32(x[12] * w[27])
		c13 += float32(x[13] * w[27])

		c00 += float32(x[14] * w[28])
		c10 += float32(x[15] * w[28])
		c01 += float32(x[14] * w[29])
		c11 += float32(x[15] * w[29])
		c02 += float32(x[14] * w[30])
		c12 += float32(x[15] * w[30])
		c03 += float32(x[14] * w[31])
		c13 += float32(x[15] * w[31])
		a, b = a[unroll*rows:], b[unroll*lanes:]
	}
	for len(a) >= rows && len(b) >= lanes {
		x, w := (*[rows]float32)(a), (*[lanes]float32)(b)
		c00 += float32(x[0] * w[0])
		c10 += float32(x[1] * w[0])
		c01 += float32(x[0] * w[1])
		c11 += float32(x[1] * w[1])
		c02 += float32(x[0] * w[2])
		c12 += float32(x[1] * w[2])
		c03 += float32(x[0] * w[3])
		c13 += float32(x[1] * w[3])
		a, b = a[rows:], b[lanes:]
	}
	c[0] += c00
	c[1] += c01
	c[2] += c02
	c[3] += c03
	c[4] += c10
	c[5] += c11
	c[6] += c12
	c[7] += c13
}
