// Command point writes the assembly of the loops that package simd calls Points.
package main

import (
	"fmt"
	"math"
	"math/bits"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// level is one size of vector register.
type level struct {
	name  string
	bytes int
}

var (
	avx512 = level{"avx512", 64}
	avx2   = level{"avx2", 32}
)

func (l level) lanes() int { return l.bytes / 4 }

func (l level) wide() bool { return l.bytes == 64 }

func (l level) vec() reg.VecVirtual {
	if l.wide() {
		return ZMM()
	}
	return YMM()
}

// text begins a function called after the level.
func (l level) text(name, signature, doc string) {
	TEXT(l.name+name, NOSPLIT, "func("+signature+")")
	Doc(l.name + name + " " + doc)
	Pragma("noescape")
	labels = 0
}

// labels counts those of a function, so that each has a name of its own.
var labels int

func newLabel(name string) string {
	labels++
	return fmt.Sprint(name, labels)
}

func load(param string) reg.GPVirtual { return Load(Param(param), GP64()).(reg.GPVirtual) }

func base(param string) reg.GPVirtual {
	return Load(Param(param).Base(), GP64()).(reg.GPVirtual)
}

func length(param string) reg.GPVirtual {
	return Load(Param(param).Len(), GP64()).(reg.GPVirtual)
}

// cast fills a vector with a float or 32-bit parameter.
func (l level) cast(param string) reg.VecVirtual {
	v := l.vec()
	c, err := Param(param).Resolve()
	if err != nil {
		panic(err)
	}
	VBROADCASTSS(c.Addr, v)
	return v
}

// castBits fills a vector with a constant, through a general register.
func (l level) castBits(bits uint32) reg.VecVirtual {
	r, x, v := GP32(), XMM(), l.vec()
	MOVL(operand.U32(bits), r)
	VMOVD(r, x)
	VPBROADCASTD(x, v)
	return v
}

// castQuad fills a vector with the 64 bits of r.
func (l level) castQuad(r reg.Register) reg.VecVirtual {
	x, v := XMM(), l.vec()
	VMOVQ(r, x)
	VPBROADCASTQ(x, v)
	return v
}

func (l level) zero() reg.VecVirtual {
	v := l.vec()
	if l.wide() {
		VPXORD(v, v, v)
	} else {
		VPXOR(v, v, v)
	}
	return v
}

// tail is the lanes of the last vector, when it is not a whole one: nil is all.
type tail struct{ k, v reg.Register }

// tailTable is 16 lanes of ones before 16 of zeros.
var tailTable operand.Mem

func tables() {
	tailTable = GLOBL("tails", RODATA|NOPTR)
	for i := range 16 {
		DATA(4*i, operand.U32(0xffffffff))
	}
	for i := 16; i < 32; i++ {
		DATA(4*i, operand.U32(0))
	}
	for _, l := range []level{avx2, avx512} {
		counters[l] = GLOBL("counters_"+l.name, RODATA|NOPTR)
		half := l.bytes / 16
		for i := range 2 * half {
			DATA(8*i, operand.U64(i/2+i%2*half))
		}
		advance[l] = quads("advance_"+l.name, uint64(2*half))
	}
	for i := range tanhConstants {
		c := &tanhConstants[i]
		b := uint64(math.Float32bits(c.value))
		c.at = quads("tanh_"+c.name, b<<32|b)
	}
	w0, w1, sign = quads("w0", 0x9E3779B9), quads("w1", 0xBB67AE85), quads("sign", 1<<63|1<<31)
}

// What dropout does not keep in registers: the counters of a group of blocks, how
// far they go on for the next, what round keys grow by, and the sign bits.
var (
	counters = map[level]operand.Mem{}
	advance  = map[level]operand.Mem{}
	w0, w1   operand.Mem
	sign     operand.Mem
)

// quads is a vector full of v in memory.
func quads(name string, v uint64) operand.Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 8 {
		DATA(8*i, operand.U64(v))
	}
	return m
}

// tail gives the lanes of what is left of n floats after whole vectors.
func (l level) tail(n reg.Register) *tail {
	table, rest := GP64(), GP64()
	MOVQ(n, rest)
	ANDQ(operand.U8(l.lanes()-1), rest)
	NEGQ(rest)
	LEAQ(tailTable, table)
	mask := operand.Mem{Base: table, Index: rest, Scale: 4, Disp: 64}
	v := l.vec()
	if !l.wide() {
		VMOVDQU(mask, v)
		return &tail{v: v}
	}
	k := K()
	VMOVDQU32(mask, v)
	VPMOVD2M(v, k)
	return &tail{k: k}
}

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

// float is element i of the floats at base, and word of the 16-bit numbers.
func float(base, i reg.Register) operand.Mem {
	return operand.Mem{Base: base, Index: i, Scale: 4}
}

func word(base, i reg.Register) operand.Mem {
	return operand.Mem{Base: base, Index: i, Scale: 2}
}

// each does body for every vector of n floats: i is the first of its lanes.
func (l level) each(n reg.Register, t *tail, body func(i reg.Register, t *tail)) {
	loop, rest, done := newLabel("loop"), newLabel("rest"), newLabel("done")
	i, whole := GP64(), GP64()
	XORQ(i, i)
	MOVQ(n, whole)
	ANDQ(operand.I8(-l.lanes()), whole)
	JZ(operand.LabelRef(rest))
	Label(loop)
	body(i, nil)
	ADDQ(operand.U8(l.lanes()), i)
	CMPQ(i, whole)
	JB(operand.LabelRef(loop))
	Label(rest)
	if t != nil {
		CMPQ(i, n)
		JE(operand.LabelRef(done))
		body(i, t)
		Label(done)
	}
}

// times does body n times; n becomes zero. It must not be zero before.
func times(n reg.Register, body func()) {
	loop := newLabel("times")
	Label(loop)
	body()
	DECQ(n)
	JNZ(operand.LabelRef(loop))
}

func end() {
	VZEROUPPER()
	RET()
}

// compare tells the lanes in which a op b.
func (l level) compare(op int, b operand.Op, a reg.Register) (mask reg.Register) {
	if l.wide() {
		k := K()
		VCMPPS(operand.U8(op), b, a, k)
		return k
	}
	v := l.vec()
	VCMPPS(operand.U8(op), b, a, v)
	return v
}

// Predicates of VCMPPS; the first two hold where either is NaN.
const (
	notLT   = 0x15
	notLE   = 0x16
	ordered = 0x07
)

// keep zeroes the lanes of v outside of mask.
func (l level) keep(mask, v reg.Register) {
	if l.wide() {
		VMOVAPS_Z(v, mask, v)
	} else {
		VANDPS(mask, v, v)
	}
}

func (l level) add() {
	l.text("Add", "y, a, b []float32", "is y = a + b.")
	y, a, b, n := base("y"), base("a"), base("b"), length("y")
	l.each(n, l.tail(n), func(i reg.Register, t *tail) {
		v, u := l.vec(), l.vec()
		l.load(float(a, i), v, t)
		l.load(float(b, i), u, t)
		VADDPS(u, v, v)
		l.store(v, float(y, i), t)
	})
	end()
}

func (l level) reluGrad() {
	l.text("ReLUGrad", "dy, y []float32", "zeroes dy where y <= 0.")
	dy, y, n := base("dy"), base("y"), length("dy")
	zero := l.zero()
	l.each(n, l.tail(n), func(i reg.Register, t *tail) {
		v, d := l.vec(), l.vec()
		l.load(float(y, i), v, t)
		l.load(float(dy, i), d, t)
		l.keep(l.compare(notLE, zero, v), d)
		l.store(d, float(dy, i), t)
	})
	end()
}

func (l level) tanhGrad() {
	l.text("TanhGrad", "dy, y []float32", "is dy *= (1-y) * (1+y).")
	dy, y, n := base("dy"), base("y"), length("dy")
	one := l.castBits(0x3f800000)
	l.each(n, l.tail(n), func(i reg.Register, t *tail) {
		v, u, d := l.vec(), l.vec(), l.vec()
		l.load(float(y, i), v, t)
		l.load(float(dy, i), d, t)
		VSUBPS(v, one, u)
		VADDPS(v, one, v)
		VMULPS(v, u, u)
		VMULPS(u, d, d)
		l.store(d, float(dy, i), t)
	})
	end()
}

// tanhConstants are those of the Go twin, in memory: they are more than registers.
var tanhConstants = []struct {
	name  string
	value float32
	at    operand.Mem
}{
	{name: "most", value: 10}, {name: "log2e", value: math.Log2E}, {name: "shift", value: 0x1.8p23}, {name: "ln2high", value: 0x1.62e4p-1},
	{name: "ln2low", value: math.Ln2 - 0x1.62e4p-1}, {name: "one", value: 1}, {name: "two", value: 2}, {name: "c7", value: 1. / 5040}, {name: "c6", value: 1. / 720},
	{name: "c5", value: 1. / 120}, {name: "c4", value: 1. / 24}, {name: "c3", value: 1. / 6}, {name: "c2", value: 1. / 2},
}

func tanhConstant(name string) operand.Mem {
	for _, c := range tanhConstants {
		if c.name == name {
			return c.at
		}
	}
	panic(name)
}

func (l level) tanh() {
	l.text("Tanh", "y []float32", "is y = tanh(y), operation by operation as in Go.")
	y, n := base("y"), length("y")
	magnitude := l.castBits(1<<31 - 1)
	constant := tanhConstant
	l.each(n, l.tail(n), func(i reg.Register, t *tail) {
		v, a, most, shifted, k, r, p := l.vec(), l.vec(), l.vec(), l.vec(), l.vec(), l.vec(), l.vec()
		l.load(float(y, i), v, t)
		VANDPS(magnitude, v, a)
		VMOVUPS(constant("most"), most)
		VMINPS(a, most, a) // a where it is NaN
		VADDPS(a, a, a)
		VMULPS(constant("log2e"), a, shifted)
		VADDPS(constant("shift"), shifted, shifted)
		VSUBPS(constant("shift"), shifted, k)
		VMULPS(constant("ln2high"), k, r)
		VSUBPS(r, a, r)
		VMULPS(constant("ln2low"), k, k)
		VSUBPS(k, r, r)
		VMULPS(constant("c7"), r, p)
		for _, c := range []string{"c6", "c5", "c4", "c3"} {
			VADDPS(constant(c), p, p)
			VMULPS(r, p, p)
		}
		VADDPS(constant("c2"), p, p)
		square := l.vec()
		VMULPS(r, r, square)
		VMULPS(p, square, p)
		VADDPS(p, r, p)
		VPSLLD(operand.U8(23), shifted, shifted)
		VPADDD(constant("one"), shifted, shifted) // 2^k: the bits of 1 are those of 2^0
		VMULPS(p, shifted, p)
		VSUBPS(constant("one"), shifted, shifted)
		VADDPS(shifted, p, p)
		VADDPS(constant("two"), p, r)
		VDIVPS(r, p, p)
		sign := l.vec()
		VANDNPS(v, magnitude, sign)
		VORPS(sign, p, p)
		l.store(p, float(y, i), t)
	})
	end()
}

// squareSum takes eight numbers at a time at every level, for eight sums. Products of two
// float32 are exact in float64, so that a fused multiply-add rounds once, as the Go twin does.
func (l level) squareSum() {
	l.text("SquareSum", "x []float32) (sum float64", "is the sum of x*x.") // with a result, unlike the others
	x, n := base("x"), length("x")
	low, high := l.zero(), avx2.zero() // all eight in low where it has room
	avx2.each(n, avx2.tail(n), func(i reg.Register, t *tail) {
		v := YMM()
		avx2.load(float(x, i), v, t)
		if l.wide() {
			w := ZMM()
			VCVTPS2PD(v, w)
			VFMADD231PD(w, w, low)
			return
		}
		a, b, top := YMM(), YMM(), XMM()
		VEXTRACTF128(operand.U8(1), v, top)
		VCVTPS2PD(v.AsX(), a)
		VCVTPS2PD(top, b)
		VFMADD231PD(a, a, low)
		VFMADD231PD(b, b, high)
	})
	first := low.AsY()
	if l.wide() {
		VEXTRACTF64X4(operand.U8(1), low, high)
	}
	four := func(v reg.Register) reg.VecVirtual { // (s0+s1) + (s2+s3)
		top := XMM()
		VHADDPD(v, v, v)
		VEXTRACTF128(operand.U8(1), v, top)
		VADDSD(top, v.(reg.Vec).AsX(), top)
		return top
	}
	sum := four(first)
	VADDSD(four(high), sum, sum)
	Store(sum, ReturnIndex(0))
	end()
}

func (l level) sgd() {
	l.text("SGD", "w, v, dw []float32, momentum, decay, rate, ahead, back float32", "updates w and v.")
	w, v, dw, n := base("w"), base("v"), base("dw"), length("w")
	momentum, decay, rate, ahead, back := l.cast("momentum"), l.cast("decay"), l.cast("rate"), l.cast("ahead"), l.cast("back")
	tiny, magnitude := l.castBits(1<<23), l.castBits(1<<31-1)
	l.each(n, l.tail(n), func(i reg.Register, t *tail) {
		x, m, d, size := l.vec(), l.vec(), l.vec(), l.vec()
		l.load(float(w, i), x, t)
		l.load(float(v, i), m, t)
		l.load(float(dw, i), d, t)
		product, old := l.vec(), l.vec()
		VMULPS(back, m, old)
		VMULPS(momentum, m, m)
		VMULPS(decay, x, product)
		VSUBPS(product, m, m)
		VMULPS(rate, d, d)
		VSUBPS(d, m, m)
		VANDPS(magnitude, m, size)
		l.keep(l.compare(notLT, tiny, size), m)
		VMULPS(ahead, m, product)
		VSUBPS(old, product, product)
		VADDPS(product, x, x)
		l.store(m, float(v, i), t)
		l.store(x, float(w, i), t)
	})
	end()
}

// pixels does body for each of the pixels of c floats that are total floats long
// in all, then moves the pointers on: by c, and terms by stride floats.
func (l level) pixels(total, c, stride, terms reg.Register, others []reg.GPVirtual, body func()) {
	done := newLabel("end")
	TESTQ(total, total)
	JZ(operand.LabelRef(done))
	loop := newLabel("pixel")
	Label(loop)
	body()
	for _, p := range others {
		LEAQ(operand.Mem{Base: p, Index: c, Scale: 4}, p)
	}
	LEAQ(operand.Mem{Base: terms, Index: stride, Scale: 4}, terms)
	SUBQ(c, total)
	JA(operand.LabelRef(loop))
	Label(done)
	end()
}

func (l level) squares() {
	l.text("Squares", "terms, x []float32, c, stride int", "squares x, see Points.Squares.")
	terms, x, total := base("terms"), base("x"), length("x")
	c, stride := load("c"), load("stride")
	tl := l.tail(c)
	l.pixels(total, c, stride, terms, []reg.GPVirtual{x}, func() {
		l.each(c, tl, func(i reg.Register, t *tail) {
			v := l.vec()
			l.load(float(x, i), v, t)
			VMULPS(v, v, v)
			l.store(v, float(terms, i), t)
		})
	})
}

// window sums size terms for each lane, the first at terms[i].
func (l level) window(terms, i, size reg.Register, t *tail) (sum reg.VecVirtual) {
	sum = l.vec()
	at, left, done := GP64(), GP64(), newLabel("summed")
	LEAQ(float(terms, i), at)
	l.load(operand.Mem{Base: at}, sum, t)
	MOVQ(size, left)
	DECQ(left)
	JZ(operand.LabelRef(done))
	times(left, func() {
		ADDQ(operand.U8(4), at)
		if t == nil {
			VADDPS(operand.Mem{Base: at}, sum, sum)
		} else {
			v := l.vec()
			l.load(operand.Mem{Base: at}, v, t)
			VADDPS(v, sum, sum)
		}
	})
	Label(done)
	return sum
}

func (l level) norm() {
	l.text("Norm", "y, scale, x, terms []float32, c, stride, size int, k, alpha float32", "normalises x, see Points.Norm.")
	y, scale, x, terms, total := base("y"), base("scale"), base("x"), base("terms"), length("x")
	c, stride, size, kept := load("c"), load("stride"), load("size"), length("scale")
	k, alpha := l.cast("k"), l.cast("alpha")
	tl := l.tail(c)
	l.pixels(total, c, stride, terms, []reg.GPVirtual{y, scale, x}, func() {
		l.each(c, tl, func(i reg.Register, t *tail) {
			s := l.window(terms, i, size, t)
			VMULPS(alpha, s, s)
			VADDPS(s, k, s)
			skip := newLabel("unkept")
			TESTQ(kept, kept)
			JZ(operand.LabelRef(skip))
			l.store(s, float(scale, i), t)
			Label(skip)
			root, p, v := l.vec(), l.vec(), l.vec()
			VSQRTPS(s, root)
			VSQRTPS(root, p)
			VMULPS(root, p, p)
			l.load(float(x, i), v, t)
			VDIVPS(p, v, v)
			l.store(v, float(y, i), t)
		})
	})
}

func (l level) ratios() {
	l.text("Ratios", "terms, d, dy, x, scale []float32, c, stride int", "begins the gradient, see Points.Ratios.")
	terms, d, dy, x, scale, total := base("terms"), base("d"), base("dy"), base("x"), base("scale"), length("x")
	c, stride := load("c"), load("stride")
	one := l.castBits(0x3f800000)
	tl := l.tail(c)
	l.pixels(total, c, stride, terms, []reg.GPVirtual{d, dy, x, scale}, func() {
		l.each(c, tl, func(i reg.Register, t *tail) {
			s, g, v, root, inverse := l.vec(), l.vec(), l.vec(), l.vec(), l.vec()
			l.load(float(scale, i), s, t)
			l.load(float(dy, i), g, t)
			l.load(float(x, i), v, t)
			VDIVPS(s, one, inverse)
			VSQRTPS(s, root)
			VSQRTPS(root, root)
			VMULPS(inverse, root, root)
			VMULPS(root, g, g)
			l.store(g, float(d, i), t)
			VMULPS(v, g, g)
			VMULPS(inverse, g, g)
			l.store(g, float(terms, i), t)
		})
	})
}

func (l level) normGrad() {
	l.text("NormGrad", "dx, d, x, terms []float32, c, stride, size int, factor float32", "ends the gradient, see Points.NormGrad.")
	dx, d, x, terms, total := base("dx"), base("d"), base("x"), base("terms"), length("x")
	c, stride, size := load("c"), load("stride"), load("size")
	factor := l.cast("factor")
	tl := l.tail(c)
	l.pixels(total, c, stride, terms, []reg.GPVirtual{dx, d, x}, func() {
		l.each(c, tl, func(i reg.Register, t *tail) {
			sum, v, g := l.window(terms, i, size, t), l.vec(), l.vec()
			l.load(float(x, i), v, t)
			l.load(float(d, i), g, t)
			VMULPS(factor, v, v)
			VMULPS(sum, v, v)
			VSUBPS(v, g, g)
			l.store(g, float(dx, i), t)
		})
	})
}

// scaled turns a parameter in floats into one in bytes.
func scaled(param string, by uint64) reg.GPVirtual {
	r := load(param)
	SHLQ(operand.U8(by), r)
	return r
}

// ints fills a vector with an int parameter.
func (l level) ints(param string) reg.VecVirtual {
	x, v := XMM(), l.vec()
	VMOVD(load(param).As32(), x)
	VPBROADCASTD(x, v)
	return v
}

// poolTail is the tail of the channels of a window, whose 16-bit numbers only
// AVX-512 can mask: Points leaves it whole vectors otherwise.
func (l level) poolTail(c reg.Register) *tail {
	if l.wide() {
		return l.tail(c)
	}
	return nil
}

// pool is a run of windows. The loop over the window's places is within that
// over vectors, so that the greatest stays in a register.
func (l level) pool(keep bool) {
	if keep {
		l.text("PoolArg", "y []float32, arg []uint16, x []float32, c, pixel, n, rows, cols, row, step, place, size int", "is Pool that keeps the places.")
	} else {
		l.text("Pool", "y, x []float32, c, pixel, n, rows, cols, row, step int", "takes the greatest of each window, see Points.Pool.")
	}
	y, x, c, pixel := base("y"), base("x"), load("c"), scaled("pixel", 2)
	tl := l.poolTail(c)
	var arg reg.GPVirtual
	var first, one, jump reg.VecVirtual
	if keep {
		arg = base("arg")
		first, one = l.ints("place"), l.castBits(1)
		jump = l.ints("size") // to the next row of the window, from the end of this
		VPSUBD(l.ints("cols"), jump, jump)
	}
	n := load("n")
	times(n, func() {
		l.each(c, tl, func(i reg.Register, t *tail) {
			top, at, h, w := GP64(), GP64(), GP64(), GP64()
			LEAQ(float(x, i), top)
			best := l.vec()
			l.load(operand.Mem{Base: top}, best, t)
			var place, id reg.VecVirtual
			if keep {
				place, id = l.vec(), l.vec()
				VMOVAPS(first, place)
				VMOVAPS(first, id)
			}
			Load(Param("rows"), h)
			times(h, func() {
				MOVQ(top, at)
				Load(Param("cols"), w)
				times(w, func() {
					v := l.vec()
					l.load(operand.Mem{Base: at}, v, t)
					l.greater(v, best, place, id)
					if keep {
						VPADDD(one, place, place)
					}
					ADDQ(pixel, at)
				})
				r := scaled("row", 2)
				ADDQ(r, top)
				if keep {
					VPADDD(jump, place, place)
				}
			})
			l.store(best, float(y, i), t)
			if keep {
				l.storeWords(id, word(arg, i), t)
			}
		})
		ADDQ(pixel, y)
		if keep {
			half := GP64()
			MOVQ(pixel, half)
			SHRQ(operand.U8(1), half)
			ADDQ(half, arg)
		}
		ADDQ(scaled("step", 2), x)
	})
	end()
}

// mean is a run of windows, like pool. Sums begin at -0, to which adding changes
// nothing.
func (l level) mean() {
	l.text("Mean", "y, x []float32, c, pixel, n, rows, cols, row, step, next int, divisor float32", "averages each window, see Points.Mean.")
	y, x, c, pixel, row, n := base("y"), base("x"), load("c"), scaled("pixel", 2), scaled("row", 2), load("n")
	tl := l.tail(c)
	zero, divisor := l.castBits(1<<31), l.cast("divisor")
	times(n, func() {
		l.each(c, tl, func(i reg.Register, t *tail) {
			top, at, h, w := GP64(), GP64(), GP64(), GP64()
			LEAQ(float(x, i), top)
			sum := l.vec()
			VMOVAPS(zero, sum)
			Load(Param("rows"), h)
			times(h, func() {
				MOVQ(top, at)
				Load(Param("cols"), w)
				times(w, func() {
					v := l.vec()
					l.load(operand.Mem{Base: at}, v, t)
					VADDPS(v, sum, sum)
					ADDQ(pixel, at)
				})
				ADDQ(row, top)
			})
			VDIVPS(divisor, sum, sum)
			l.store(sum, float(y, i), t)
		})
		ADDQ(scaled("next", 2), y)
		ADDQ(scaled("step", 2), x)
	})
	end()
}

// greater puts v where best is, and place where id is (unless nil), in the lanes
// where v > best, or v is NaN and best is not.
func (l level) greater(v, best, place, id reg.VecVirtual) {
	if l.wide() {
		number, k := K(), K()
		VCMPPS(operand.U8(ordered), best, best, number)
		VCMPPS(operand.U8(notLE), best, v, number, k)
		VMOVAPS(v, k, best)
		if id != nil {
			VMOVDQA32(place, k, id)
		}
		return
	}
	number, k := l.vec(), l.vec()
	VCMPPS(operand.U8(ordered), best, best, number)
	VCMPPS(operand.U8(notLE), best, v, k)
	VANDPS(number, k, k)
	VBLENDVPS(k, v, best, best)
	if id != nil {
		VPBLENDVB(k, place, id, id)
	}
}

func (l level) storeWords(v reg.VecVirtual, m operand.Mem, t *tail) {
	switch {
	case !l.wide():
		VPACKUSDW(v, v, v)
		VPERMQ(operand.U8(0b1000), v, v)
		VMOVDQU(v.AsX(), m)
	case t == nil:
		VPMOVDW(v, m)
	default:
		VPMOVDW(v, t.k, m)
	}
}

// poolGrad is a run of pixels of dx, each the sum over the windows that hold it.
func (l level) poolGrad() {
	l.text("PoolGrad", "dx, dy []float32, arg []uint16, c, pixel, n, rows, cols, row, rowArg, step, place, stride, size int", "sums what windows give to their greatest, see Points.PoolGrad.")
	dx, dy, arg, c, pixel := base("dx"), base("dy"), base("arg"), load("c"), load("pixel")
	tl := l.poolTail(c)
	first, stride, jump := l.ints("place"), l.ints("stride"), l.ints("size")
	VPSUBD(l.ints("cols"), jump, jump)
	VPMULLD(stride, jump, jump)
	n := load("n")
	times(n, func() {
		l.each(c, tl, func(i reg.Register, t *tail) {
			top, topArg, at, h, w := GP64(), GP64(), GP64(), GP64(), GP64()
			LEAQ(float(dy, i), top)
			LEAQ(word(arg, i), topArg)
			sum, place := l.zero(), l.vec()
			VMOVAPS(first, place)
			Load(Param("rows"), h)
			times(h, func() {
				XORQ(at, at)
				Load(Param("cols"), w)
				times(w, func() {
					l.addIf(float(top, at), word(topArg, at), place, sum, t)
					VPSUBD(stride, place, place)
					ADDQ(pixel, at)
				})
				ADDQ(scaled("row", 2), top)
				ADDQ(scaled("rowArg", 1), topArg)
				VPSUBD(jump, place, place)
			})
			l.store(sum, float(dx, i), t)
		})
		LEAQ(operand.Mem{Base: dy, Index: pixel, Scale: 4}, dy)
		LEAQ(operand.Mem{Base: arg, Index: pixel, Scale: 2}, arg)
		ADDQ(scaled("step", 2), dx)
	})
	end()
}

// addIf adds dy to sum in the lanes where arg is place. Adding zero in the others
// changes nothing, as a sum that began with zero is never -0.
func (l level) addIf(dy, arg operand.Mem, place, sum reg.VecVirtual, t *tail) {
	id := l.vec()
	if !l.wide() {
		VPMOVZXWD(arg, id)
		VPCMPEQD(place, id, id)
		VANDPS(dy, id, id)
		VADDPS(id, sum, sum)
		return
	}
	k := K()
	if t == nil {
		VPMOVZXWD(arg, id)
		VPCMPEQD(place, id, k)
	} else {
		VPMOVZXWD_Z(arg, t.k, id)
		VPCMPEQD(place, id, t.k, k)
	}
	VADDPS(dy, sum, k, sum)
}

// dropout is Philox 4x32-10 with the counter's four words as two vectors of
// quadwords, a = (c1:c0) and b = (c3:c2), so that a round is
//
//	a, b = swap(b.low*m1) ^ a>>32 ^ k0, swap(a.low*m0) ^ b>>32 ^ k1
//
// with swap exchanging the halves of a quadword. Blocks are dealt to the
// quadwords such that unpacking a with b puts all words in order.
func (l level) dropout() {
	l.text("Dropout", "y, x []float32, block, layer uint32, step, seed uint64, limit uint32, scale float32", "drops elements, two vectors at a time; see Points.Dropout.")
	y, x, n := base("y"), base("x"), length("y")
	done := newLabel("end")

	block, layer := Load(Param("block"), GP32()).(reg.GPVirtual), Load(Param("layer"), GP32()).(reg.GPVirtual)
	SHLQ(operand.U8(32), layer.As64())
	ORQ(block.As64(), layer.As64())
	counter := l.castQuad(layer.As64())
	VPADDD(counters[l], counter, counter)
	step := l.castQuad(load("step"))
	quad := func(v uint32) reg.VecVirtual {
		r := GP64()
		MOVQ(operand.U64(v), r)
		return l.castQuad(r)
	}
	m0, m1 := quad(0xD2511F53), quad(0xCD9E8D57)
	seed := load("seed")
	low := GP32()
	MOVL(seed.As32(), low)
	key0 := l.castQuad(low.As64())
	SHRQ(operand.U8(32), seed)
	key1 := l.castQuad(seed)
	limit, scale := l.cast("limit"), l.cast("scale")
	if !l.wide() { // compares signed numbers alone
		VPXOR(sign, limit, limit)
	}

	SHRQ(operand.U8(bits.TrailingZeros(uint(2*l.lanes()))), n)
	JZ(operand.LabelRef(done))
	times(n, func() {
		a, b, k0, k1, p, q := l.vec(), l.vec(), l.vec(), l.vec(), l.vec(), l.vec()
		VMOVAPS(counter, a)
		VMOVAPS(step, b)
		VMOVAPS(key0, k0)
		VMOVAPS(key1, k1)
		VPADDD(advance[l], counter, counter)
		for round := range 10 {
			VPMULUDQ(m1, b, p)
			VPMULUDQ(m0, a, q)
			VPSRLQ(operand.U8(32), a, a)
			VPSRLQ(operand.U8(32), b, b)
			VPSHUFD(operand.U8(0b10110001), p, p)
			VPSHUFD(operand.U8(0b10110001), q, q)
			l.xor3(k0, p, a)
			l.xor3(k1, q, b)
			if round < 9 {
				VPADDD(w0, k0, k0)
				VPADDD(w1, k1, k1)
			}
		}
		VPUNPCKLQDQ(b, a, p)
		VPUNPCKHQDQ(b, a, q)
		for i, words := range []reg.VecVirtual{p, q} {
			v, m := l.vec(), operand.Mem{Base: x, Disp: i * l.bytes}
			if l.wide() {
				k := K()
				VPCMPUD(operand.U8(1), limit, words, k)
				VMULPS_Z(m, scale, k, v)
			} else {
				VPXOR(sign, words, words)
				VPCMPGTD(words, limit, words)
				VMULPS(m, scale, v)
				VANDPS(words, v, v)
			}
			VMOVUPS(v, operand.Mem{Base: y, Disp: i * l.bytes})
		}
		ADDQ(operand.U8(2*l.bytes), x)
		ADDQ(operand.U8(2*l.bytes), y)
	})
	Label(done)
	end()
}

// xor3 is v ^= a ^ b.
func (l level) xor3(a, b, v reg.VecVirtual) {
	if l.wide() {
		VPTERNLOGD(operand.U8(0x96), a, b, v)
		return
	}
	VPXOR(a, v, v)
	VPXOR(b, v, v)
}

// affine turns eight pixels at a time into floats, less means that are the same
// for all pixels, or (each) of each its own: three vectors, whose bytes lie
// within the 16 that begin 0, 4 and 8 bytes into those of the pixels.
func affine(each bool) {
	l, name := avx2, "Affine"
	if each {
		name = "AffineImage"
	}
	l.text(name, "dst []float32, src []byte, mean, shift, scale []float32, order []byte", "turns bytes into floats, eight pixels at a time; see Points."+name+".")
	dst, src, means, n := base("dst"), base("src"), base("mean"), length("dst")
	done := newLabel("end")
	var mean, shift, scale, order [3]reg.VecVirtual
	for i := range 3 {
		mean[i], shift[i], scale[i], order[i] = YMM(), YMM(), YMM(), XMM()
		if !each {
			VMOVUPS(operand.Mem{Base: means, Disp: 32 * i}, mean[i])
		}
		VMOVUPS(operand.Mem{Base: base("shift"), Disp: 32 * i}, shift[i])
		VMOVUPS(operand.Mem{Base: base("scale"), Disp: 32 * i}, scale[i])
		VMOVDQU(operand.Mem{Base: base("order"), Disp: 16 * i}, order[i])
	}
	SUBQ(operand.U8(24), n)
	JB(operand.LabelRef(done))
	loop := newLabel("loop")
	Label(loop)
	for i := range 3 {
		b, v := XMM(), YMM()
		VMOVDQU(operand.Mem{Base: src, Disp: 4 * i}, b)
		VPSHUFB(order[i], b, b)
		VPMOVZXBD(b, v)
		VCVTDQ2PS(v, v)
		if each {
			VSUBPS(operand.Mem{Base: means, Disp: 32 * i}, v, v)
		} else {
			VSUBPS(mean[i], v, v)
		}
		VADDPS(shift[i], v, v)
		VMULPS(scale[i], v, v)
		VMOVUPS(v, operand.Mem{Base: dst, Disp: 32 * i})
	}
	ADDQ(operand.U8(24), src)
	ADDQ(operand.U8(96), dst)
	if each {
		ADDQ(operand.U8(96), means)
	}
	SUBQ(operand.U8(24), n)
	JAE(operand.LabelRef(loop))
	Label(done)
	end()
}

func main() {
	ConstraintExpr("!noasm")
	tables()
	for _, l := range []level{avx512, avx2} {
		l.add()
		l.reluGrad()
		l.tanhGrad()
		l.tanh()
		l.squareSum()
		l.sgd()
		l.squares()
		l.norm()
		l.ratios()
		l.normGrad()
		l.pool(false)
		l.pool(true)
		l.poolGrad()
		l.mean()
		l.dropout()
	}
	affine(false)
	affine(true)
	Generate()
}
