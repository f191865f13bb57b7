package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	constBits = 13
	passBits  = 2

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

// words is a vector of a pair of factors over and over, for VPMADDWD.
func words(name string, a, b int) operand.Mem {
	if a < -32768 || a > 32767 || b < -32768 || b > 32767 {
		panic(name + " does not fit 16 bits")
	}
	return doubles(name, int32(uint32(uint16(a))|uint32(uint16(b))<<16))
}

func doubles(name string, v int32) operand.Mem {
	m := GLOBL(name, 8|16) // RODATA, NOPTR
	for i := range 8 {
		DATA(4*i, operand.I32(v))
	}
	return m
}

type vec = reg.VecVirtual

// apply gives a new register op(b, a), in the order of the assembler.
func apply(op func(...operand.Op), a operand.Op, b reg.Register) vec {
	d := YMM()
	op(a, b, d)
	return d
}

type factors struct {
	sum, diff    operand.Mem    // of 0 and 4
	e2, e3       operand.Mem    // of 2 and 6
	odd13, odd57 [4]operand.Mem // of outputs 0..3 of the odd part
}

// idct is idct2Go: two blocks side by side, a row of each in the halves of a
// register, so that what works in halves works on both.
func idct() {
	f := factors{
		sum:  words("sum", 1<<constBits, 1<<constBits),
		diff: words("diff", 1<<constBits, -1<<constBits),
		e2:   words("even2", fix0541, fix0541-fix1847),
		e3:   words("even3", fix0541+fix0765, fix0541),
	}
	odd := [4][4]int{ // of inputs 1, 3, 5, 7: the products of idct1, multiplied out
		{fix1175 - fix0899, fix1175 - fix1961, fix1175, fix0298 - fix0899 + fix1175 - fix1961},
		{fix1175 - fix0390, fix1175 - fix2562, fix2053 - fix2562 + fix1175 - fix0390, fix1175},
		{fix1175, fix3072 - fix2562 + fix1175 - fix1961, fix1175 - fix2562, fix1175 - fix1961},
		{fix1501 - fix0899 + fix1175 - fix0390, fix1175, fix1175 - fix0390, fix1175 - fix0899},
	}
	for i, o := range odd {
		f.odd13[i] = words(fmt.Sprintf("odd%d_13", i), o[0], o[1])
		f.odd57[i] = words(fmt.Sprintf("odd%d_57", i), o[2], o[3])
	}
	round1 := doubles("round1", 1<<(constBits-passBits-1))
	round2 := doubles("round2", 1<<(constBits+passBits+2))
	signs := GLOBL("signs", 8|16)
	for i := range 4 {
		DATA(8*i, operand.U64(0x8080808080808080))
	}

	TEXT("idctAVX2", 4, "func(coefs *[128]int16, quant *[64]uint16, dst *byte, stride int)") // NOSPLIT
	Pragma("noescape")
	Doc("idctAVX2 is idct2Go. It writes 8 rows of 16 bytes.")
	coefs := Load(Param("coefs"), GP64())
	quant := Load(Param("quant"), GP64())
	var r [8]vec
	for i := range r {
		a, q := YMM(), YMM()
		VMOVDQU(operand.Mem{Base: coefs, Disp: 16 * i}, a.AsX())
		VINSERTI128(operand.U8(1), operand.Mem{Base: coefs, Disp: 128 + 16*i}, a, a)
		VBROADCASTI128(operand.Mem{Base: quant, Disp: 16 * i}, q)
		VPMULLW(q, a, a)
		r[i] = a
	}
	r = f.pass(r, round1, constBits-passBits)
	r = transpose(r)
	r = f.pass(r, round2, constBits+passBits+3)
	// Columns of 16 bits to pairs of rows of bytes.
	unpack := func(op func(...operand.Op), a, b vec) vec { return apply(op, b, a) }
	a := unpack(VPACKSSWB, r[0], r[4])
	b := unpack(VPACKSSWB, r[1], r[5])
	c := unpack(VPACKSSWB, r[2], r[6])
	d := unpack(VPACKSSWB, r[3], r[7])
	ab, ef := unpack(VPUNPCKLBW, a, b), unpack(VPUNPCKHBW, a, b)
	cd, gh := unpack(VPUNPCKLBW, c, d), unpack(VPUNPCKHBW, c, d)
	x0, x1 := unpack(VPUNPCKLWD, ab, cd), unpack(VPUNPCKHWD, ab, cd)
	y0, y1 := unpack(VPUNPCKLWD, ef, gh), unpack(VPUNPCKHWD, ef, gh)
	rows := []vec{
		unpack(VPUNPCKLDQ, x0, y0), unpack(VPUNPCKHDQ, x0, y0),
		unpack(VPUNPCKLDQ, x1, y1), unpack(VPUNPCKHDQ, x1, y1),
	}
	dst := Load(Param("dst"), GP64())
	stride := Load(Param("stride"), GP64())
	for i, v := range rows {
		VPXOR(signs, v, v) // the level shift
		VPERMQ(operand.U8(0b11_01_10_00), v, v)
		VMOVDQU(v.AsX(), operand.Mem{Base: dst})
		VEXTRACTI128(operand.U8(1), v, operand.Mem{Base: dst, Index: stride, Scale: 1})
		if i < 3 {
			LEAQ(operand.Mem{Base: dst, Index: stride, Scale: 2}, dst)
		}
	}
	VZEROUPPER()
	RET()
}

// pass is idct1 on each column of the registers, with rounding and the shift,
// held to 16 bits.
func (f *factors) pass(r [8]vec, round operand.Mem, shift int) [8]vec {
	low := func(a, b int) vec { return apply(VPUNPCKLWD, r[b], r[a]) }
	high := func(a, b int) vec { return apply(VPUNPCKHWD, r[b], r[a]) }
	// Halves of 32 bits: of the lower words of each half register, then of the upper.
	pairs := [2][4]vec{}
	for i, p := range [][2]int{{0, 4}, {2, 6}, {1, 3}, {5, 7}} {
		pairs[0][i], pairs[1][i] = low(p[0], p[1]), high(p[0], p[1])
	}
	var out [2][8]vec
	var packed [8]vec
	for h, p := range pairs {
		t := [4]vec{}
		e0, e1 := apply(VPMADDWD, f.sum, p[0]), apply(VPMADDWD, f.diff, p[0])
		VPADDD(round, e0, e0)
		VPADDD(round, e1, e1)
		e3, e2 := apply(VPMADDWD, f.e3, p[1]), apply(VPMADDWD, f.e2, p[1])
		t[0], t[1] = apply(VPADDD, e3, e0), apply(VPADDD, e2, e1)
		VPSUBD(e3, e0, e0)
		VPSUBD(e2, e1, e1)
		t[3], t[2] = e0, e1
		for i, k := range []int{3, 2, 1, 0} { // t[i] goes with odd part k
			o := apply(VPMADDWD, f.odd13[k], p[2])
			o57 := apply(VPMADDWD, f.odd57[k], p[3])
			VPADDD(o57, o, o)
			up := apply(VPADDD, o, t[i])
			VPSUBD(o, t[i], t[i])
			VPSRAD(operand.U8(shift), up, up)
			VPSRAD(operand.U8(shift), t[i], t[i])
			if h == 0 {
				out[0][i], out[0][7-i] = up, t[i]
				continue
			}
			VPACKSSDW(up, out[0][i], out[0][i])
			VPACKSSDW(t[i], out[0][7-i], out[0][7-i])
			packed[i], packed[7-i] = out[0][i], out[0][7-i]
		}
	}
	return packed
}

// transpose turns 8 x 8 words in both halves.
func transpose(r [8]vec) [8]vec {
	step := func(r [8]vec, low, high func(...operand.Op), pair func(i int) (int, int)) (out [8]vec) {
		for i := range 4 {
			a, b := pair(i)
			out[2*i] = apply(low, r[b], r[a])
			out[2*i+1] = apply(high, r[b], r[a])
		}
		return out
	}
	r = step(r, VPUNPCKLWD, VPUNPCKHWD, func(i int) (int, int) { return 2 * i, 2*i + 1 })
	// 0: rows 01, columns 0-3; 1: rows 01, columns 4-7; 2: rows 23, columns 0-3 ...
	r = step(r, VPUNPCKLDQ, VPUNPCKHDQ, func(i int) (int, int) { return [4]int{0, 1, 4, 5}[i], [4]int{2, 3, 6, 7}[i] })
	// 0: rows 0-3, columns 01; 1: columns 23; 2: 45; 3: 67; 4..7: rows 4-7.
	return step(r, VPUNPCKLQDQ, VPUNPCKHQDQ, func(i int) (int, int) { return i, i + 4 })
}
