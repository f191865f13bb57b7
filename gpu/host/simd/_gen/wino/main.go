// Command wino writes the transforms of package simd's Winograd convolutions.
package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// level is one size of vector register.
type level struct {
	name  string
	bytes int
}

func (l level) lanes() int { return l.bytes / 4 }

func (l level) wide() bool { return l.bytes == 64 }

func (l level) vec() reg.VecVirtual {
	if l.wide() {
		return ZMM()
	}
	return YMM()
}

func (l level) vecs(n int) (v []reg.VecVirtual) {
	for range n {
		v = append(v, l.vec())
	}
	return v
}

// pairs are the finite points, each with its negative: package simd's winoPairs.
var pairs = []float64{7. / 8, 1. / 4, 2}

// constants are numbers that fill a vector in memory.
var constants = map[float32]operand.Mem{}

func constant(v float64) operand.Mem {
	f := float32(v)
	m, ok := constants[f]
	if !ok {
		m = GLOBL(fmt.Sprintf("wino_%08x", math.Float32bits(f)), RODATA|NOPTR)
		for i := range 16 {
			DATA(4*i, operand.U32(math.Float32bits(f)))
		}
		constants[f] = m
	}
	return m
}

// tails is 16 lanes of ones before 16 of zeros.
var tails operand.Mem

// tail is the lanes of the last vector, when it is not a whole one: nil is all.
type tail struct{ k, v reg.Register }

func (l level) load(m operand.Mem, v reg.Register, t *tail) {
	switch {
	case t == nil:
		VMOVUPS(m, v)
	case l.wide():
		VMOVUPS_Z(m, t.k, v)
	default:
		VMASKMOVPS(m, t.v, v)
	}
}

func (l level) store(v reg.Register, m operand.Mem, t *tail) {
	switch {
	case t == nil:
		VMOVUPS(v, m)
	case l.wide():
		VMOVUPS(v, t.k, m)
	default:
		VMASKMOVPS(v, t.v, m)
	}
}

// Where the fields of a Patch are.
const (
	rows   = 0
	step   = 64
	from   = 72
	to     = 80
	high   = 88
	planes = 96
	plane  = 104
	count  = 112
	bias   = 120
	low    = 128
)

func at(p reg.Register, disp int) operand.Mem { return operand.Mem{Base: p, Disp: disp} }

func field(p reg.Register, disp int) reg.GPVirtual {
	r := GP64()
	MOVQ(at(p, disp), r)
	return r
}

// A line transforms d, a column or a row of a patch, and gives its numbers to
// emit in their order. Its constants are those that it asks of k.
type line struct {
	constants []float64
	apply     func(k *kernel, d []reg.VecVirtual, emit func(i int, v reg.Register))
}

// constant is c in every lane: in a register, where there are enough.
func (k *kernel) constant(c float64) operand.Op {
	if r, ok := k.held[float32(c)]; ok {
		return r
	}
	return constant(c)
}

// hold has registers for constants: without them the loads take longer than the
// arithmetic.
func (k *kernel) hold(constants []float64) {
	if !k.wide() {
		return
	}
	k.held = map[float32]reg.VecVirtual{}
	for _, c := range constants {
		if _, ok := k.held[float32(c)]; !ok {
			r := k.vec()
			VMOVUPS(constant(c), r)
			k.held[float32(c)] = r
		}
	}
}

// fused adds c*v to sum.
func (k *kernel) fused(c float64, v, sum reg.Register) { VFMADD231PS(k.constant(c), v, sum) }

// image is a row of B for each point: the polynomial that is zero at all others,
// scaled so that a filter's transform is but its value. That of a pair is even
// and odd parts, added and subtracted.
func image(n int) line {
	type pair struct{ even, odd [3]float64 }
	var all []pair
	var constants []float64
	sum, sums, product := 0.0, 0.0, 1.0 // of squares, of their products in pairs, and of all
	for i, p := range pairs {
		s, m, scale := 0.0, 1.0, 2*p // of the others
		for k, q := range pairs {
			if k != i {
				s, m, scale = s+q*q, m*q*q, scale*(p*p-q*q)
			}
		}
		c := pair{even: [3]float64{p * m / scale, -p * s / scale, p / scale}, odd: [3]float64{m / scale, -s / scale, 1 / scale}}
		all = append(all, c)
		constants = append(append(constants, c.even[:]...), c.odd[:]...)
		sum, sums, product = sum+p*p, sums+p*p*s/2, product*p*p
	}
	infinity := []float64{-product, sums, -sum}
	if n == 7 {
		constants = append(constants, infinity...)
	}
	return line{constants, func(k *kernel, d []reg.VecVirtual, emit func(int, reg.Register)) {
		for i, c := range all {
			even, odd, out := k.vec(), k.vec(), k.vec()
			VMULPS(k.constant(c.even[0]), d[0], even)
			VMULPS(k.constant(c.odd[0]), d[1], odd)
			for j := 1; j < 3; j++ {
				k.fused(c.even[j], d[2*j], even)
				k.fused(c.odd[j], d[2*j+1], odd)
			}
			VADDPS(odd, even, out)
			VSUBPS(odd, even, even)
			emit(2*i, out)
			emit(2*i+1, even)
		}
		if n == 7 {
			for j, c := range infinity {
				k.fused(c, d[2*j], d[6])
			}
			emit(6, d[6])
		}
	}}
}

// spread is the value at each point of the polynomial d.
func spread(side, n int) line {
	var constants []float64
	for _, p := range pairs {
		constants = append(constants, p, p*p)
		if side > 4 {
			constants = append(constants, p*p*p*p)
		}
	}
	return line{constants, func(k *kernel, d []reg.VecVirtual, emit func(int, reg.Register)) {
		for i, p := range pairs {
			even, odd, out := k.vec(), d[1], k.vec()
			VMOVAPS(d[0], even)
			k.fused(p*p, d[2], even)
			if side > 3 {
				odd = k.vec()
				VMOVAPS(d[1], odd)
				k.fused(p*p, d[3], odd)
			}
			if side > 4 {
				k.fused(p*p*p*p, d[4], even)
			}
			VMOVAPS(even, out)
			k.fused(p, odd, out)
			VFNMADD231PS(k.constant(p), odd, even)
			emit(2*i, out)
			emit(2*i+1, even)
		}
		if n == 7 {
			emit(6, d[side-1])
		}
	}}
}

// gather is the transpose of spread.
func gather(n, side int) line {
	var constants []float64
	for _, p := range pairs {
		for j := 1; j < side; j++ {
			constants = append(constants, math.Pow(p, float64(j)))
		}
	}
	return line{constants, func(k *kernel, d []reg.VecVirtual, emit func(int, reg.Register)) {
		t := k.vec()
		for i := range pairs { // sums and differences
			VSUBPS(d[2*i+1], d[2*i], t)
			VADDPS(d[2*i+1], d[2*i], d[2*i])
			VMOVAPS(t, d[2*i+1])
		}
		for j := range side {
			out := k.vec()
			power := func(i int) float64 { return math.Pow(pairs[i], float64(j)) }
			switch {
			case j == 0:
				VADDPS(d[0], d[2], out)
				VADDPS(d[4], out, out)
			case j == side-1 && n == 7:
				VMOVAPS(d[6], out)
				for i := range pairs {
					k.fused(power(i), d[2*i+j%2], out)
				}
			default:
				VMULPS(k.constant(power(0)), d[j%2], out)
				for i := range pairs[1:] {
					k.fused(power(i+1), d[2*i+2+j%2], out)
				}
			}
			emit(j, out)
		}
	}}
}

// kernel is a function of a Patch.
type kernel struct {
	level
	p, scratch reg.Register
	off        reg.Register // of the vector, in bytes
	held       map[float32]reg.VecVirtual
	labels     int
}

func (k *kernel) label(name string) string {
	k.labels++
	return fmt.Sprint(name, k.labels)
}

// begin opens a function that has vectors of memory of its own.
func (l level) begin(name, doc string, vectors int) *kernel {
	TEXT(l.name+name, 0, "func(p *uintptr)")
	Doc(l.name + name + " " + doc)
	Pragma("noescape")
	k := &kernel{level: l, p: Load(Param("p"), GP64()), scratch: GP64(), off: GP64()}
	m := AllocLocal(vectors*l.bytes + 64)
	LEAQ(m.Offset(63), k.scratch)
	ANDQ(operand.I8(-64), k.scratch)
	return k
}

// each does body for every vector of the patch.
func (k *kernel) each(body func(t *tail)) {
	loop, rest, done := k.label("vector"), k.label("rest"), k.label("done")
	whole := field(k.p, count)
	ANDQ(operand.I8(-k.lanes()), whole)
	SHLQ(operand.U8(2), whole)
	XORQ(k.off, k.off)
	Label(loop)
	CMPQ(k.off, whole)
	JAE(operand.LabelRef(rest))
	body(nil)
	ADDQ(operand.U8(k.bytes), k.off)
	JMP(operand.LabelRef(loop))
	Label(rest)
	n := field(k.p, count)
	ANDQ(operand.U8(k.lanes()-1), n)
	JZ(operand.LabelRef(done))
	NEGQ(n)
	table, v := GP64(), k.vec()
	LEAQ(tails, table)
	VMOVDQU_(k.level, operand.Mem{Base: table, Index: n, Scale: 4, Disp: 64}, v)
	t := &tail{v: v}
	if k.wide() {
		t.k = K()
		VPMOVD2M(v, t.k)
	}
	body(t)
	Label(done)
	VZEROUPPER()
	RET()
}

// VMOVDQU_ loads a vector of integers.
func VMOVDQU_(l level, m operand.Mem, v reg.Register) {
	if l.wide() {
		VMOVDQU32(m, v)
	} else {
		VMOVDQU(m, v)
	}
}

// times does body n times; n becomes zero. It must not be zero before.
func (k *kernel) times(n reg.Register, body func()) {
	loop := k.label("times")
	Label(loop)
	body()
	DECQ(n)
	JNZ(operand.LabelRef(loop))
}

func literal(n int) reg.Register {
	r := GP64()
	MOVQ(operand.U32(n), r)
	return r
}

// outward writes a kernel that makes the n x n planes of a side x side patch:
// columns first, which become lines of scratch, then those.
func (l level) outward(name, doc string, side, n int, f line) {
	k := l.begin(name, doc, side*n)
	width, first := field(k.p, to), field(k.p, from)
	SUBQ(first, width)
	ready := k.label("ready")
	CMPQ(width, operand.U8(side))
	JE(operand.LabelRef(ready))
	zero, at0, left := k.vec(), GP64(), literal(side*n)
	VXORPS_(k.level, zero)
	MOVQ(k.scratch, at0)
	k.times(left, func() {
		VMOVAPS(zero, at(at0, 0))
		ADDQ(operand.U8(k.bytes), at0)
	})
	Label(ready)
	k.hold(f.constants)
	k.each(func(t *tail) {
		first, left, column, index, next := field(k.p, from), field(k.p, to), GP64(), GP64(), field(k.p, step)
		MOVQ(first, column)
		SHLQ(operand.U8(shift(k.bytes)), column)
		ADDQ(k.scratch, column)
		MOVQ(k.off, index)
		columns := k.label("columns")
		SUBQ(first, left)
		JLE(operand.LabelRef(columns))
		k.times(left, func() {
			d := k.vecs(side)
			for i := range d {
				k.load(operand.Mem{Base: field(k.p, rows+8*i), Index: index, Scale: 1}, d[i], t)
			}
			f.apply(k, d, func(i int, v reg.Register) { VMOVAPS(v, at(column, i*side*k.bytes)) })
			ADDQ(next, index)
			ADDQ(operand.U8(k.bytes), column)
		})
		Label(columns)
		dst, src, gap, lines := field(k.p, planes), GP64(), field(k.p, plane), literal(n)
		ADDQ(k.off, dst)
		MOVQ(k.scratch, src)
		k.times(lines, func() {
			d := k.vecs(side)
			for j := range d {
				VMOVAPS(at(src, j*k.bytes), d[j])
			}
			f.apply(k, d, func(_ int, v reg.Register) {
				k.store(v, at(dst, 0), t)
				ADDQ(gap, dst)
			})
			ADDQ(operand.U32(side*k.bytes), src)
		})
	})
}

// inward writes a kernel that makes a side x side patch of n x n planes.
func (l level) inward(name, doc string, n, side int, f line) {
	k := l.begin(name, doc, side*n)
	k.hold(f.constants)
	k.each(func(t *tail) {
		src, gap, line, column, columns := field(k.p, planes), field(k.p, plane), GP64(), GP64(), literal(n)
		IMUL3Q(operand.U8(n), gap, line)
		ADDQ(k.off, src)
		MOVQ(k.scratch, column)
		k.times(columns, func() {
			d, from := k.vecs(n), GP64()
			MOVQ(src, from)
			for i := range d {
				k.load(at(from, 0), d[i], t)
				if i < n-1 {
					ADDQ(line, from)
				}
			}
			f.apply(k, d, func(i int, v reg.Register) { VMOVAPS(v, at(column, i*n*k.bytes)) })
			ADDQ(gap, src)
			ADDQ(operand.U8(k.bytes), column)
		})

		start, floor := k.vec(), k.vec()
		VXORPS_(k.level, start)
		biased, b := k.label("biased"), field(k.p, bias)
		TESTQ(b, b)
		JZ(operand.LabelRef(biased))
		k.load(operand.Mem{Base: b, Index: k.off, Scale: 1}, start, t)
		Label(biased)
		VBROADCASTSS(at(k.p, low), floor)
		row, lines, next, end := GP64(), field(k.p, high), field(k.p, step), field(k.p, to)
		from := GP64()
		MOVQ(k.p, row)
		MOVQ(k.scratch, from)
		k.times(lines, func() {
			d, dst, out := k.vecs(n), GP64(), k.label("out")
			for j := range d {
				VMOVAPS(at(from, j*k.bytes), d[j])
			}
			MOVQ(at(row, rows), dst)
			ADDQ(k.off, dst)
			f.apply(k, d, func(j int, v reg.Register) {
				VADDPS(start, v, v)
				// The second source wins when either is NaN: keep the sum there.
				VMAXPS(v, floor, v)
				k.store(v, at(dst, 0), t)
				if j < side-1 {
					CMPQ(end, operand.U8(j+1))
					JE(operand.LabelRef(out))
					ADDQ(next, dst)
				}
			})
			Label(out)
			ADDQ(operand.U8(8), row)
			ADDQ(operand.U32(n*k.bytes), from)
		})
	})
}

// VXORPS_ makes v zero.
func VXORPS_(l level, v reg.Register) {
	if l.wide() {
		VPXORD(v, v, v)
	} else {
		VXORPS(v, v, v)
	}
}

func shift(bytes int) int {
	if bytes == 64 {
		return 6
	}
	return 5
}

func main() {
	ConstraintExpr("!noasm")
	tails = GLOBL("wino_tails", RODATA|NOPTR)
	for i := range 32 {
		v := operand.U32(0xffffffff)
		if i >= 16 {
			v = 0
		}
		DATA(4*i, v)
	}
	for _, l := range []level{{"avx512", 64}, {"avx2", 32}} {
		// The sides of package simd's winoForms.
		for _, n := range []int{6, 7} {
			l.outward(fmt.Sprint("WinoImage", n), "is the transform of an image's patch.", n, n, image(n))
		}
		for _, s := range [][2]int{{3, 6}, {4, 6}, {3, 7}, {5, 7}} {
			k, n := s[0], s[1]
			l.outward(fmt.Sprintf("WinoSpread%dto%d", k, n), "is the transform of a filter, or of a patch of its output's gradient.", k, n, spread(k, n))
			l.inward(fmt.Sprintf("WinoGather%dto%d", n, k), "is the transpose of spreading.", n, k, gather(n, k))
		}
	}
	Generate()
}
