package simd

import "unsafe"

// The register tile of plain Go: two rows by four lanes. Eight sums, four
// weights and two activations are what stays in the 15 registers that Go has on
// amd64; 3 x 4 and 4 x 4 spill and reach two thirds of it.
const (
	goRows  = 2
	goLanes = 4
)

var genericWidths = []width{{&genericTiles, 100}}

var genericTiles = Tiles{
	Rows: goRows, Lanes: goLanes,
	product: []func(*uintptr){
		func(p *uintptr) { (*Product)(unsafe.Pointer(p)).generic(1) },
		func(p *uintptr) { (*Product)(unsafe.Pointer(p)).generic(2) },
	},
	outer: []func(*uintptr){
		func(p *uintptr) { (*Outer)(unsafe.Pointer(p)).generic(1) },
		func(p *uintptr) { (*Outer)(unsafe.Pointer(p)).generic(2) },
	},
}

// acc holds the sums of a tile, row by row.
type acc [goRows * goLanes]float32

// unroll is how many places a kernel's loop takes at a time. The compiler delays
// the last addition to each sum to the end of the loop's body, behind all its
// products, which then spill; unrolled, most additions are not the last. It more
// than doubles the speed.
const unroll = 8

func offset[T any](p *float32, bytes int) *T {
	return (*T)(unsafe.Add(unsafe.Pointer(p), bytes))
}

// generic is the Go twin of the kernels: what Product says. A tile of one row
// computes it twice.
func (p *Product) generic(rows int) {
	var c acc
	second := p.Stride * (rows - 1)
	b := unsafe.Slice(p.B, p.Segments*p.K*goLanes)
	for s, at := range unsafe.Slice(p.Offsets, p.Segments) {
		if p.K > 0 {
			product(&c, unsafe.Slice(offset[float32](p.A, at), p.K), unsafe.Slice(offset[float32](p.A, at+second), p.K), b[s*p.K*goLanes:])
		}
	}
	for r := range rows {
		y := offset[[goLanes]float32](p.C, r*p.LDC)
		for l := range y {
			v := c[r*goLanes+l]
			if p.Bias != nil {
				v += *offset[float32](p.Bias, 4*l)
			}
			if p.Flags&Add != 0 {
				v += y[l]
			}
			if p.Flags&ReLU != 0 && v < 0 {
				v = 0
			}
			y[l] = v
		}
	}
}

// generic is the Go twin of the kernels: what Outer says.
func (o *Outer) generic(rows int) {
	var c acc
	for i := range o.Lines {
		if o.N > 0 {
			outer(&c, offset[float32](o.A, i*o.ALine), o.AStep, rows-1, offset[float32](o.B, i*o.BLine), o.BStep, o.N)
		}
	}
	for r := range rows {
		y := offset[[goLanes]float32](o.C, r*o.LDC)
		for l := range y {
			if o.Add != 0 {
				y[l] += c[r*goLanes+l]
			} else {
				y[l] = c[r*goLanes+l]
			}
		}
	}
}

// product adds to c the products of two rows with a panel. Products are rounded
// before they are added, so that processors with and without fused multiply-add
// give the same bits; on amd64 that costs nothing.
func product(c *acc, a0, a1, b []float32) {
	c00, c01, c02, c03 := c[0], c[1], c[2], c[3]
	c10, c11, c12, c13 := c[4], c[5], c[6], c[7]
	for len(a0) >= unroll && len(a1) >= unroll && len(b) >= unroll*goLanes {
		w := (*[unroll * goLanes]float32)(b)
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
		a0, a1, b = a0[unroll:], a1[unroll:], b[unroll*goLanes:]
	}
	a1 = a1[:len(a0)]
	for k, p := range a0 {
		q, w := a1[k], (*[goLanes]float32)(b[k*goLanes:])
		c00 += float32(p * w[0])
		c10 += float32(q * w[0])
		c01 += float32(p * w[1])
		c11 += float32(q * w[1])
		c02 += float32(p * w[2])
		c12 += float32(q * w[2])
		c03 += float32(p * w[3])
		c13 += float32(q * w[3])
	}
	*c = acc{c00, c01, c02, c03, c10, c11, c12, c13}
}

// outer adds to c the outer products of n pairs that lie as (bytes) and bs
// apart. second is the place of the second row: 0 or 1.
func outer(c *acc, a *float32, as, second int, b *float32, bs, n int) {
	c00, c01, c02, c03 := c[0], c[1], c[2], c[3]
	c10, c11, c12, c13 := c[4], c[5], c[6], c[7]
	at, bt := 0, 0
	for ; n >= unroll; n -= unroll {
		{
			p, q, w := *offset[float32](a, at), *offset[float32](a, at+4*second), offset[[goLanes]float32](b, bt)
			c00 += float32(p * w[0])
			c10 += float32(q * w[0])
			c01 += float32(p * w[1])
			c11 += float32(q * w[1])
			c02 += float32(p * w[2])
			c12 += float32(q * w[2])
			c03 += float32(p * w[3])
			c13 += float32(q * w[3])
			at, bt = at+as, bt+bs
		}
		{
			p, q, w := *offset[float32](a, at), *offset[float32](a, at+4*second), offset[[goLanes]float32](b, bt)
			c00 += float32(p * w[0])
			c10 += float32(q * w[0])
			c01 += float32(p * w[1])
			c11 += float32(q * w[1])
			c02 += float32(p * w[2])
			c12 += float32(q * w[2])
			c03 += float32(p * w[3])
			c13 += float32(q * w[3])
			at, bt = at+as, bt+bs
		}
		{
			p, q, w := *offset[float32](a, at), *offset[float32](a, at+4*second), offset[[goLanes]float32](b, bt)
			c00 += float32(p * w[0])
			c10 += float32(q * w[0])
			c01 += float32(p * w[1])
			c11 += float32(q * w[1])
			c02 += float32(p * w[2])
			c12 += float32(q * w[2])
			c03 += float32(p * w[3])
			c13 += float32(q * w[3])
			at, bt = at+as, bt+bs
		}
		{
			p, q, w := *offset[float32](a, at), *offset[float32](a, at+4*second), offset[[goLanes]float32](b, bt)
			c00 += float32(p * w[0])
			c10 += float32(q * w[0])
			c01 += float32(p * w[1])
			c11 += float32(q * w[1])
			c02 += float32(p * w[2])
			c12 += float32(q * w[2])
			c03 += float32(p * w[3])
			c13 += float32(q * w[3])
			at, bt = at+as, bt+bs
		}
		{
			p, q, w := *offset[float32](a, at), *offset[float32](a, at+4*second), offset[[goLanes]float32](b, bt)
			c00 += float32(p * w[0])
			c10 += float32(q * w[0])
			c01 += float32(p * w[1])
			c11 += float32(q * w[1])
			c02 += float32(p * w[2])
			c12 += float32(q * w[2])
			c03 += float32(p * w[3])
			c13 += float32(q * w[3])
			at, bt = at+as, bt+bs
		}
		{
			p, q, w := *offset[float32](a, at), *offset[float32](a, at+4*second), offset[[goLanes]float32](b, bt)
			c00 += float32(p * w[0])
			c10 += float32(q * w[0])
			c01 += float32(p * w[1])
			c11 += float32(q * w[1])
			c02 += float32(p * w[2])
			c12 += float32(q * w[2])
			c03 += float32(p * w[3])
			c13 += float32(q * w[3])
			at, bt = at+as, bt+bs
		}
		{
			p, q, w := *offset[float32](a, at), *offset[float32](a, at+4*second), offset[[goLanes]float32](b, bt)
			c00 += float32(p * w[0])
			c10 += float32(q * w[0])
			c01 += float32(p * w[1])
			c11 += float32(q * w[1])
			c02 += float32(p * w[2])
			c12 += float32(q * w[2])
			c03 += float32(p * w[3])
			c13 += float32(q * w[3])
			at, bt = at+as, bt+bs
		}
		{
			p, q, w := *offset[float32](a, at), *offset[float32](a, at+4*second), offset[[goLanes]float32](b, bt)
			c00 += float32(p * w[0])
			c10 += float32(q * w[0])
			c01 += float32(p * w[1])
			c11 += float32(q * w[1])
			c02 += float32(p * w[2])
			c12 += float32(q * w[2])
			c03 += float32(p * w[3])
			c13 += float32(q * w[3])
			at, bt = at+as, bt+bs
		}
	}
	for range n {
		p, q, w := *offset[float32](a, at), *offset[float32](a, at+4*second), offset[[goLanes]float32](b, bt)
		c00 += float32(p * w[0])
		c10 += float32(q * w[0])
		c01 += float32(p * w[1])
		c11 += float32(q * w[1])
		c02 += float32(p * w[2])
		c12 += float32(q * w[2])
		c03 += float32(p * w[3])
		c13 += float32(q * w[3])
		at, bt = at+as, bt+bs
	}
	*c = acc{c00, c01, c02, c03, c10, c11, c12, c13}
}
