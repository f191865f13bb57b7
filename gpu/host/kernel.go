package host

// The register tile: two rows of activations by four output channels. Eight
// sums, four weights and two activations are what stays in the 15 registers
// that Go has on amd64; 3 x 4 and 4 x 4 spill and reach two thirds of it.
const (
	rows  = 2
	lanes = 4
)

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
// lanes times that. The loop is unrolled by four because the compiler delays
// the last addition of each sum to the end of the body; unrolled, three in four
// are no longer the last.
func tile(c *acc, a0, a1, b []float32) {
	var c00, c01, c02, c03, c10, c11, c12, c13 float32
	for len(a0) >= 4 && len(a1) >= 4 && len(b) >= 4*lanes {
		w := (*[4 * lanes]float32)(b)
		p, q := (*[4]float32)(a0), (*[4]float32)(a1)
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
		a0, a1, b = a0[4:], a1[4:], b[4*lanes:]
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
	for len(a) >= 4*rows && len(b) >= 4*lanes {
		x, w := (*[4 * rows]float32)(a), (*[4 * lanes]float32)(b)
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
		a, b = a[4*rows:], b[4*lanes:]
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
