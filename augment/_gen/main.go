// Command gen writes the assembly of package augment. What each function computes is
// the function of its name in kernels.go.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/gotypes"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The fixed point of package augment (axis.go, kernels.go).
const (
	downShift   = 7
	acrossShift = 16
	acrossBits  = 7
	downBias    = 1<<(downShift-1) - 128<<15

	redCr   = 13173
	greenCb = 11277
	greenCr = 23401
	blueCb  = 25297
)

func main() {
	ConstraintExpr("!noasm")
	mix("mixAVX2", 32)
	mix("mixAVX512", 64)
	squeezeNearAVX2()
	squeezeNearAVX512()
	squeezeFarAVX2()
	interleave := shuffles("interleave", func(plane, out, i int) int {
		if at := 16*out + i; at%3 == plane {
			return at / 3
		}
		return -1
	})
	packYCbCr(interleave)
	packRGB(interleave)
	exact(interleave)
	split(shuffles("separate", func(in, plane, i int) int {
		if at := 3*i + plane - 16*in; 0 <= at && at < 16 {
			return at
		}
		return -1
	}))
	turn()
	Generate()
}

// constant is a number in a register.
func constant(value int32) reg.Register {
	r := GP32()
	MOVL(U32(uint32(value)), r)
	return r
}

// broadcast fills a vector with a number of size bytes, 4 or 2.
func broadcast(from reg.Register, size int, to reg.VecVirtual) reg.VecVirtual {
	x := XMM()
	VMOVD(from, x)
	if size == 2 {
		VPBROADCASTW(x, to)
	} else {
		VPBROADCASTD(x, to)
	}
	return to
}

func vector(bytes int) reg.VecVirtual {
	if bytes == 64 {
		return ZMM()
	}
	return YMM()
}

// mix filters down, two vectors of samples at a time and the rest one at a time.
func mix(name string, bytes int) {
	TEXT(name, NOSPLIT, "func(dst []int16, rows [][]byte, weights []int16)")
	Doc(name + " is mixGo for an even number of rows, and at least a vector of samples.")
	lanes := bytes / 2
	dst, n := Load(Param("dst").Base(), GP64()), Load(Param("dst").Len(), GP64())
	rows, pairs := Load(Param("rows").Base(), GP64()), Load(Param("rows").Len(), GP64())
	weights := Load(Param("weights").Base(), GP64())
	SHRQ(U8(1), pairs)
	bias := broadcast(constant(downBias), 4, vector(bytes))
	x, end := GP64(), GP64()
	XORQ(x, x)

	block := func(label string, vectors int) {
		acc := make([][2]reg.VecVirtual, vectors)
		for v := range acc {
			acc[v] = [2]reg.VecVirtual{vector(bytes), vector(bytes)}
			for _, a := range acc[v] {
				if bytes == 64 {
					VMOVDQA64(bias, a)
				} else {
					VMOVDQA(bias, a)
				}
			}
		}
		row, w, left := GP64(), GP64(), GP64()
		MOVQ(rows, row)
		MOVQ(weights, w)
		MOVQ(pairs, left)
		Label(label + "_pair")
		p, q := GP64(), GP64()
		MOVQ(Mem{Base: row}, p)
		MOVQ(Mem{Base: row, Disp: 24}, q) // a slice is three words
		wv := vector(bytes)
		VPBROADCASTD(Mem{Base: w}, wv)
		for v := range acc {
			a, b, lo, hi := vector(bytes), vector(bytes), vector(bytes), vector(bytes)
			VPMOVZXBW(Mem{Base: p, Index: x, Scale: 1, Disp: v * lanes}, a)
			VPMOVZXBW(Mem{Base: q, Index: x, Scale: 1, Disp: v * lanes}, b)
			VPUNPCKLWD(b, a, lo)
			VPUNPCKHWD(b, a, hi)
			for i, pair := range []reg.VecVirtual{lo, hi} {
				VPMADDWD(wv, pair, pair)
				VPSUBD(pair, acc[v][i], acc[v][i])
			}
		}
		ADDQ(U8(48), row)
		ADDQ(U8(4), w)
		DECQ(left)
		JNZ(LabelRef(label + "_pair"))
		for v := range acc {
			for _, a := range acc[v] {
				VPSRAD(U8(downShift), a, a)
			}
			VPACKSSDW(acc[v][1], acc[v][0], acc[v][0])
			at := Mem{Base: dst, Index: x, Scale: 2, Disp: v * bytes}
			if bytes == 64 {
				VMOVDQU16(acc[v][0], at)
			} else {
				VMOVDQU(acc[v][0], at)
			}
		}
	}

	Label("two")
	LEAQ(Mem{Base: x, Disp: 2 * lanes}, end)
	CMPQ(end, n)
	JGT(LabelRef("rest"))
	block("two", 2)
	ADDQ(U8(2*lanes), x)
	JMP(LabelRef("two"))

	Label("rest")
	SUBQ(U8(lanes), n) // where the last vector begins
	Label("one")
	LEAQ(Mem{Base: n, Disp: lanes}, end)
	CMPQ(x, end)
	JGE(LabelRef("done"))
	CMPQ(x, n)
	CMOVQGT(n, x)
	block("one", 1)
	ADDQ(U8(lanes), x)
	JMP(LabelRef("one"))
	Label("done")
	VZEROUPPER()
	RET()
}

// across is what the near kernels share.
type across struct {
	dst, src, base, index, w reg.GPVirtual
	steps                    reg.GPVirtual // pairs of inputs
	groups                   reg.GPVirtual
}

func near(name string) across {
	TEXT(name, NOSPLIT, "func(dst, src []int16, base []int32, index, pairs []int16, steps int, bias int32)")
	Doc(name + " is squeezeGo for whole groups of a near axis, packed for the level.")
	gp := func(c gotypes.Component) reg.GPVirtual { return Load(c, GP64()).(reg.GPVirtual) }
	a := across{dst: gp(Param("dst").Base()), src: gp(Param("src").Base()), base: gp(Param("base").Base()),
		index: gp(Param("index").Base()), w: gp(Param("pairs").Base())}
	a.groups, a.steps = gp(Param("dst").Len()), gp(Param("steps"))
	SHRQ(U8(4), a.groups)
	return a
}

// from is where src[base[i]] lies.
func (a across) from(i int) reg.GPVirtual {
	at := GP64()
	MOVLQSX(Mem{Base: a.base, Disp: 4 * i}, at)
	LEAQ(Mem{Base: a.src, Index: at, Scale: 2}, at)
	return at
}

func (a across) next(outputBytes int) {
	ADDQ(U8(outputBytes), a.dst)
	ADDQ(U8(16), a.base)
	ADDQ(U8(64), a.index)
	DECQ(a.groups)
	JNZ(LabelRef("group"))
	VZEROUPPER()
	RET()
}

func squeezeNearAVX512() {
	a := near("squeezeNearAVX512")
	bias := broadcast(Load(Param("bias"), GP32()), 4, ZMM())
	Label("group")
	src := a.from(0)
	index, acc, left := ZMM(), ZMM(), GP64()
	VMOVDQU16(Mem{Base: a.index}, index)
	VMOVDQA64(bias, acc)
	MOVQ(a.steps, left)
	Label("step")
	v := ZMM()
	VPERMW(Mem{Base: src}, index, v)
	VPMADDWD(Mem{Base: a.w}, v, v)
	VPSUBD(v, acc, acc)
	ADDQ(U8(4), src)
	ADDQ(U8(64), a.w)
	DECQ(left)
	JNZ(LabelRef("step"))
	VPSRAD(U8(acrossShift), acc, acc)
	VPMOVDW(acc, Mem{Base: a.dst})
	a.next(32)
}

func squeezeNearAVX2() {
	a := near("squeezeNearAVX2")
	bias := broadcast(Load(Param("bias"), GP32()), 4, YMM())
	Label("group")
	var src [4]reg.GPVirtual
	for i := range src {
		src[i] = a.from(i)
	}
	var index, acc [2]reg.VecVirtual
	left := GP64()
	for i := range index {
		index[i], acc[i] = YMM(), YMM()
		VMOVDQU(Mem{Base: a.index, Disp: 32 * i}, index[i])
		VMOVDQA(bias, acc[i])
	}
	MOVQ(a.steps, left)
	Label("step")
	for i := range acc {
		v := YMM()
		VMOVDQU(Mem{Base: src[2*i]}, v.AsX())
		VINSERTI128(U8(1), Mem{Base: src[2*i+1]}, v, v)
		VPSHUFB(index[i], v, v)
		VPMADDWD(Mem{Base: a.w, Disp: 32 * i}, v, v)
		VPSUBD(v, acc[i], acc[i])
	}
	for _, s := range src {
		ADDQ(U8(4), s)
	}
	ADDQ(U8(64), a.w)
	DECQ(left)
	JNZ(LabelRef("step"))
	for _, v := range acc {
		VPSRAD(U8(acrossShift), v, v)
	}
	VPACKSSDW(acc[1], acc[0], acc[0])
	VPERMQ(U8(0b11_01_10_00), acc[0], acc[0])
	VMOVDQU(acc[0], Mem{Base: a.dst})
	a.next(32)
}

// squeezeFarAVX2 sums each output's inputs eight at a time, four outputs side by side.
func squeezeFarAVX2() {
	TEXT("squeezeFarAVX2", NOSPLIT, "func(dst, src []int16, first []int32, weights []int16, stride int, bias int32)")
	Doc("squeezeFarAVX2 is squeezeGo for whole groups and a stride of eights.")
	dst, n := Load(Param("dst").Base(), GP64()), Load(Param("dst").Len(), GP64())
	src, first := Load(Param("src").Base(), GP64()), Load(Param("first").Base(), GP64())
	w, stride := Load(Param("weights").Base(), GP64()), Load(Param("stride"), GP64())
	bias := broadcast(Load(Param("bias"), GP32()), 4, XMM())
	bytes := GP64()
	LEAQ(Mem{Base: stride, Index: stride, Scale: 1}, bytes)

	Label("four")
	var at [4]reg.GPVirtual
	var acc [4]reg.VecVirtual
	for i := range at {
		at[i], acc[i] = GP64(), XMM()
		MOVLQSX(Mem{Base: first, Disp: 4 * i}, at[i])
		LEAQ(Mem{Base: src, Index: at[i], Scale: 2}, at[i])
		VPXOR(acc[i], acc[i], acc[i])
	}
	wi, left := GP64(), GP64()
	MOVQ(stride, left)
	Label("eight")
	MOVQ(w, wi)
	for i := range acc {
		v := XMM()
		VMOVDQU(Mem{Base: at[i]}, v)
		VPMADDWD(Mem{Base: wi}, v, v)
		VPADDD(v, acc[i], acc[i])
		if i < len(acc)-1 {
			ADDQ(bytes, wi)
		}
		ADDQ(U8(16), at[i])
	}
	ADDQ(U8(16), w)
	SUBQ(U8(8), left)
	JNZ(LabelRef("eight"))
	SUBQ(bytes, w)
	LEAQ(Mem{Base: w, Index: bytes, Scale: 4}, w)

	VPHADDD(acc[1], acc[0], acc[0])
	VPHADDD(acc[3], acc[2], acc[2])
	VPHADDD(acc[2], acc[0], acc[0])
	VPSUBD(acc[0], bias, acc[0])
	VPSRAD(U8(acrossShift), acc[0], acc[0])
	VPACKSSDW(acc[0], acc[0], acc[0])
	VMOVQ(acc[0], Mem{Base: dst})
	ADDQ(U8(8), dst)
	ADDQ(U8(16), first)
	SUBQ(U8(4), n)
	JNZ(LabelRef("four"))
	VZEROUPPER()
	RET()
}

// shuffles is the nine byte shuffles, in both lanes, between three registers and three others:
// byte i of `to` is byte at(from, to, i) of `from`, or comes from elsewhere if that is -1.
func shuffles(name string, at func(from, to, i int) int) (m [3][3]Mem) {
	for from := range m {
		for to := range m[from] {
			m[from][to] = GLOBL(fmt.Sprintf("%s_%d_%d", name, from, to), RODATA|NOPTR)
			for i := range 32 {
				DATA(i, U8(uint8(at(from, to, i%16)))) // -1 gives 0
			}
		}
	}
	return m
}

// shuffle moves 32 pixels between planes and interleaved pixels.
func shuffle(in [3]reg.VecVirtual, by [3][3]Mem) (out [3]reg.VecVirtual) {
	for to := range out {
		out[to] = YMM()
		VPSHUFB(by[0][to], in[0], out[to])
		for from := 1; from < 3; from++ {
			v := YMM()
			VPSHUFB(by[from][to], in[from], v)
			VPOR(v, out[to], out[to])
		}
	}
	return out
}

// chunks runs body for i = 0, 32, 64 ... and last for n-32, where n is at least 32.
func chunks(n, i reg.Register, body func()) {
	SUBQ(U8(32), n)
	XORQ(i, i)
	Label("chunk")
	body()
	CMPQ(i, n)
	JGE(LabelRef("done"))
	ADDQ(U8(32), i)
	CMPQ(i, n)
	CMOVQGT(n, i)
	JMP(LabelRef("chunk"))
	Label("done")
	VZEROUPPER()
	RET()
}

// store writes 32 pixels of three planes of bytes to pixel i.
func store(dst, i reg.Register, planes [3]reg.VecVirtual, interleave [3][3]Mem) {
	at := GP64()
	LEAQ(Mem{Base: i, Index: i, Scale: 2}, at)
	out := shuffle(planes, interleave)
	for k, v := range out {
		VMOVDQU(v.AsX(), Mem{Base: dst, Index: at, Scale: 1, Disp: 16 * k})
		VEXTRACTI128(U8(1), v, Mem{Base: dst, Index: at, Scale: 1, Disp: 48 + 16*k})
	}
}

// levels cuts the fraction bits off two vectors and makes them one of bytes.
func levels(lo, hi reg.VecVirtual) reg.VecVirtual {
	VPSRAW(U8(acrossBits), lo, lo)
	VPSRAW(U8(acrossBits), hi, hi)
	return bytesOf(lo, hi)
}

// bytesOf makes two vectors of words one of bytes, clamped.
func bytesOf(lo, hi reg.VecVirtual) reg.VecVirtual {
	VPACKUSWB(hi, lo, lo)
	VPERMQ(U8(0b11_01_10_00), lo, lo)
	return lo
}

func packRGB(interleave [3][3]Mem) {
	TEXT("packRGBAVX2", NOSPLIT, "func(dst []byte, r, g, b []int16)")
	Doc("packRGBAVX2 is packRGBGo for at least 32 pixels.")
	dst, n, i := Load(Param("dst").Base(), GP64()), Load(Param("r").Len(), GP64()), GP64()
	var src [3]reg.Register
	for k, name := range []string{"r", "g", "b"} {
		src[k] = Load(Param(name).Base(), GP64())
	}
	chunks(n, i, func() {
		var planes [3]reg.VecVirtual
		for k := range planes {
			lo, hi := YMM(), YMM()
			VMOVDQU(Mem{Base: src[k], Index: i, Scale: 2}, lo)
			VMOVDQU(Mem{Base: src[k], Index: i, Scale: 2, Disp: 32}, hi)
			planes[k] = levels(lo, hi)
		}
		store(dst, i, planes, interleave)
	})
}

func packYCbCr(interleave [3][3]Mem) {
	TEXT("packYCbCrAVX2", NOSPLIT, "func(dst []byte, y, cb, cr []int16)")
	Doc("packYCbCrAVX2 is packYCbCrGo for at least 32 pixels.")
	dst, n, i := Load(Param("dst").Base(), GP64()), Load(Param("y").Len(), GP64()), GP64()
	y, cb, cr := Load(Param("y").Base(), GP64()), Load(Param("cb").Base(), GP64()), Load(Param("cr").Base(), GP64())
	factor := func(value int32) reg.VecVirtual { return broadcast(constant(value), 2, YMM()) }
	rr, gb, gr, bb := factor(redCr), factor(greenCb), factor(greenCr), factor(blueCb)
	chunks(n, i, func() {
		var half [2][3]reg.VecVirtual
		for h := range half {
			load := func(p reg.Register) reg.VecVirtual {
				v := YMM()
				VMOVDQU(Mem{Base: p, Index: i, Scale: 2, Disp: 32 * h}, v)
				return v
			}
			l, b, r := load(y), load(cb), load(cr)
			red, green, blue, t := YMM(), YMM(), YMM(), YMM()
			// Only the last sum can leave 16 bits, and is clamped there, far outside of 0..255.
			VPMULHRSW(rr, r, red)
			VPADDW(r, red, red)
			VPADDSW(l, red, red)
			VPMULHRSW(gb, b, green)
			VPMULHRSW(gr, r, t)
			VPADDW(t, green, green)
			VPSUBSW(green, l, green)
			VPMULHRSW(bb, b, blue)
			VPADDW(b, blue, blue)
			VPADDSW(l, blue, blue)
			half[h] = [3]reg.VecVirtual{red, green, blue}
		}
		var planes [3]reg.VecVirtual
		for k := range planes {
			planes[k] = levels(half[0][k], half[1][k])
		}
		store(dst, i, planes, interleave)
	})
}

// exact is image/color's formula, whose factors of 16 fraction bits are written as whole numbers and
// rests that fit 16 bits: y*0x10101 is y*65536 + y*257, and so on.
func exact(interleave [3][3]Mem) {
	TEXT("exactAVX2", NOSPLIT, "func(dst, y, cb, cr []byte)")
	Doc("exactAVX2 is exactGo for at least 32 pixels.")
	dst, n, i := Load(Param("dst").Base(), GP64()), Load(Param("y").Len(), GP64()), GP64()
	y, cb, cr := Load(Param("y").Base(), GP64()), Load(Param("cb").Base(), GP64()), Load(Param("cr").Base(), GP64())
	pair := func(first, second int32) reg.VecVirtual {
		return broadcast(constant(first&0xFFFF|second<<16), 4, YMM())
	}
	red, green, greenRest, blue := pair(257, 91881-1<<16), pair(257, -22554), pair(1<<16-46802, 0), pair(257, 116130-2<<16)
	middle, zero := broadcast(constant(128), 2, YMM()), YMM()
	VPXOR(zero, zero, zero)
	chunks(n, i, func() {
		var half [2][3]reg.VecVirtual
		for h := range half {
			load := func(p reg.Register) reg.VecVirtual {
				v := YMM()
				VPMOVZXBW(Mem{Base: p, Index: i, Scale: 1, Disp: 16 * h}, v)
				return v
			}
			l, b, r := load(y), load(cb), load(cr)
			VPSUBW(middle, b, b)
			VPSUBW(middle, r, r)
			// rest is (a*fa + b*fb + ...) >> 16 of words, with two factors a pair of them.
			rest := func(terms ...[3]reg.VecVirtual) reg.VecVirtual {
				var sum [2]reg.VecVirtual
				for k, t := range terms {
					lo, hi := YMM(), YMM()
					VPUNPCKLWD(t[1], t[0], lo)
					VPUNPCKHWD(t[1], t[0], hi)
					VPMADDWD(t[2], lo, lo)
					VPMADDWD(t[2], hi, hi)
					if k > 0 {
						VPADDD(sum[0], lo, lo)
						VPADDD(sum[1], hi, hi)
					}
					sum = [2]reg.VecVirtual{lo, hi}
				}
				VPSRAD(U8(16), sum[0], sum[0])
				VPSRAD(U8(16), sum[1], sum[1])
				VPACKSSDW(sum[1], sum[0], sum[0])
				VPADDW(l, sum[0], sum[0])
				return sum[0]
			}
			rr := rest([3]reg.VecVirtual{l, r, red})
			VPADDW(r, rr, rr)
			gg := rest([3]reg.VecVirtual{l, b, green}, [3]reg.VecVirtual{r, zero, greenRest})
			VPSUBW(r, gg, gg)
			bb := rest([3]reg.VecVirtual{l, b, blue})
			VPADDW(b, bb, bb)
			VPADDW(b, bb, bb)
			half[h] = [3]reg.VecVirtual{rr, gg, bb}
		}
		var planes [3]reg.VecVirtual
		for k := range planes {
			planes[k] = bytesOf(half[0][k], half[1][k])
		}
		store(dst, i, planes, interleave)
	})
}

func split(separate [3][3]Mem) {
	TEXT("splitAVX2", NOSPLIT, "func(r, g, b, pix []byte)")
	Doc("splitAVX2 is splitGo for at least 32 pixels.")
	n, pix, i := Load(Param("r").Len(), GP64()), Load(Param("pix").Base(), GP64()), GP64()
	var dst [3]reg.Register
	for k, name := range []string{"r", "g", "b"} {
		dst[k] = Load(Param(name).Base(), GP64())
	}
	chunks(n, i, func() {
		at := GP64()
		LEAQ(Mem{Base: i, Index: i, Scale: 2}, at)
		var in [3]reg.VecVirtual
		for k := range in {
			in[k] = YMM()
			VMOVDQU(Mem{Base: pix, Index: at, Scale: 1, Disp: 16 * k}, in[k].AsX())
			VINSERTI128(U8(1), Mem{Base: pix, Index: at, Scale: 1, Disp: 48 + 16*k}, in[k], in[k])
		}
		for k, v := range shuffle(in, separate) {
			VMOVDQU(v, Mem{Base: dst[k], Index: i, Scale: 1})
		}
	})
}

// turn exchanges rows and columns of 8 x 8 bytes.
func turn() {
	TEXT("turnAVX2", NOSPLIT, "func(dst []byte, to, by int, src []byte, at, step, n int)")
	Doc("turnAVX2 is turnGo for at least eight columns.")
	gp := func(c gotypes.Component) reg.GPVirtual { return Load(c, GP64()).(reg.GPVirtual) }
	dst, src := gp(Param("dst").Base()), gp(Param("src").Base())
	ADDQ(Load(Param("to"), GP64()), dst)
	ADDQ(Load(Param("at"), GP64()), src)
	by, step, n := gp(Param("by")), gp(Param("step")), gp(Param("n"))
	SUBQ(U8(8), n) // where the last eight begin
	x := GP64()
	XORQ(x, x)
	Label("eight")
	// from is src[x*step:]; the eight rows are loaded in turn.
	from := GP64()
	MOVQ(x, from)
	IMULQ(step, from)
	ADDQ(src, from)
	var v, w [8]reg.VecVirtual
	for i := range v {
		v[i] = XMM()
		VMOVQ(Mem{Base: from}, v[i])
		if i < len(v)-1 {
			ADDQ(step, from)
		}
	}
	// Bytes of two rows, words of four, and double words of eight, side by side.
	for i := range 4 {
		w[i] = XMM()
		VPUNPCKLBW(v[2*i+1], v[2*i], w[i])
	}
	for i := range 2 {
		VPUNPCKLWD(w[2*i+1], w[2*i], v[2*i])
		VPUNPCKHWD(w[2*i+1], w[2*i], v[2*i+1])
	}
	to := GP64()
	LEAQ(Mem{Base: dst, Index: x, Scale: 1}, to)
	for i := range 2 {
		lo, hi := XMM(), XMM()
		VPUNPCKLDQ(v[2+i], v[i], lo)
		VPUNPCKHDQ(v[2+i], v[i], hi)
		for k, u := range []reg.VecVirtual{lo, hi} {
			VMOVQ(u, Mem{Base: to})
			ADDQ(by, to)
			VMOVHPS(u, Mem{Base: to})
			if i+k < 2 {
				ADDQ(by, to)
			}
		}
	}
	CMPQ(x, n)
	JGE(LabelRef("done"))
	ADDQ(U8(8), x)
	CMPQ(x, n)
	CMOVQGT(n, x)
	JMP(LabelRef("eight"))
	Label("done")
	VZEROUPPER()
	RET()
}
