// Command tile writes the register tiles of package simd, and loops that measure
// what they could reach.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// level is one set of vector registers.
type level struct {
	name  string
	bytes int // of a vector
	regs  int
	vec   func(i int) reg.VecPhysical
}

var (
	avx512 = level{"avx512", 64, 32, func(i int) reg.VecPhysical { return zmm[i] }}
	avx2   = level{"avx2", 32, 16, func(i int) reg.VecPhysical { return ymm[i] }}

	zmm = []reg.VecPhysical{reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15,
		reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23, reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31}
	ymm = []reg.VecPhysical{reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7, reg.Y8, reg.Y9, reg.Y10, reg.Y11, reg.Y12, reg.Y13, reg.Y14, reg.Y15}
)

// unroll is how many steps of the inner loop are written out.
const unroll = 4

// tile is a register tile under construction.
type tile struct {
	level
	m, width int // rows and vectors
}

func (t tile) lanes() int { return t.width * t.bytes / 4 }

func (t tile) name(kind string) string {
	return fmt.Sprintf("%s%s%dx%d", t.level.name, kind, t.m, t.lanes())
}

func (t tile) acc(r, v int) reg.VecPhysical { return t.vec(r*t.width + v) }

func (t tile) panel(v int) reg.VecPhysical { return t.vec(t.m*t.width + v) }

// cast is one of the registers that hold a broadcast element, taken in turn so
// that the loads run ahead.
func (t tile) cast(i int) reg.VecPhysical {
	used := (t.m + 1) * t.width
	return t.vec(used + i%min(4, t.regs-used))
}

func (t tile) zero(r reg.VecPhysical) {
	if t.bytes == 64 {
		VPXORD(r, r, r)
	} else {
		VXORPS(r, r, r)
	}
}

// step multiplies one element of each row with one vector of the panel.
func (t tile) step(row func(r int) operand.Mem, panel operand.Mem) {
	for v := range t.width {
		VMOVUPS(panel.Offset(v*t.bytes), t.panel(v))
	}
	for r := range t.m {
		a := t.cast(r)
		VBROADCASTSS(row(r), a)
		for v := range t.width {
			VFMADD231PS(t.panel(v), a, t.acc(r, v))
		}
	}
}

// rowsFrom says where element k of each row lies, given rows stride bytes apart
// that begin at base (and, from row 9 on, at high, which is 9 strides further).
// s1, s3, s5 and s7 hold 1, 3, 5 and 7 strides.
func rowsFrom(base, high, s1, s3, s5, s7 reg.Register, k int) func(r int) operand.Mem {
	return func(r int) operand.Mem {
		b := base
		if r >= 9 {
			b, r = high, r-9
		}
		m := operand.Mem{Base: b, Disp: 4 * k}
		switch r {
		case 1:
			m.Index, m.Scale = s1, 1
		case 2:
			m.Index, m.Scale = s1, 2
		case 3:
			m.Index, m.Scale = s3, 1
		case 4:
			m.Index, m.Scale = s1, 4
		case 5:
			m.Index, m.Scale = s5, 1
		case 6:
			m.Index, m.Scale = s3, 2
		case 7:
			m.Index, m.Scale = s7, 1
		case 8:
			m.Index, m.Scale = s1, 8
		}
		return m
	}
}

func arg(p reg.Register, i int) operand.Mem { return operand.Mem{Base: p, Disp: 8 * i} }

// store writes the tile to c, ldc bytes a row.
func (t tile) store(c, ldc reg.Register) {
	for r := range t.m {
		for v := range t.width {
			VMOVUPS(t.acc(r, v), operand.Mem{Base: c, Disp: v * t.bytes})
		}
		if r < t.m-1 {
			ADDQ(ldc, c)
		}
	}
	VZEROUPPER()
	RET()
}

// add adds what is at c to the tile.
func (t tile) add(c, ldc, scratch reg.Register) {
	MOVQ(c, scratch)
	for r := range t.m {
		for v := range t.width {
			VADDPS(operand.Mem{Base: scratch, Disp: v * t.bytes}, t.acc(r, v), t.acc(r, v))
		}
		if r < t.m-1 {
			ADDQ(ldc, scratch)
		}
	}
}

// product writes the kernel for Product, see its Go twin for the fields.
func (t tile) product() {
	m := t.m
	TEXT(t.name("Product"), NOSPLIT, "func(p *uintptr)")
	Doc(fmt.Sprintf("%s computes a Product of %d rows by %d lanes.", t.name("Product"), m, t.lanes()))
	Pragma("noescape")
	p := reg.RDI
	Load(Param("p"), p)
	a, off, segs := reg.R12, reg.R13, reg.R15
	b, row, high, n := reg.RBX, reg.RAX, reg.RCX, reg.RDX
	s1, s3, s5, s7 := reg.R8, reg.R9, reg.R10, reg.R11
	MOVQ(arg(p, 0), a)
	MOVQ(arg(p, 1), s1)
	MOVQ(arg(p, 2), off)
	MOVQ(arg(p, 3), segs)
	MOVQ(arg(p, 5), b)
	LEAQ(operand.Mem{Base: s1, Index: s1, Scale: 2}, s3)
	LEAQ(operand.Mem{Base: s1, Index: s1, Scale: 4}, s5)
	LEAQ(operand.Mem{Base: s3, Index: s1, Scale: 4}, s7)

	// The sums start at the bias, or at zero.
	MOVQ(arg(p, 8), n)
	TESTQ(n, n)
	JZ(operand.LabelRef("zero"))
	for v := range t.width {
		VMOVUPS(operand.Mem{Base: n, Disp: v * t.bytes}, t.acc(0, v))
	}
	for r := 1; r < m; r++ {
		for v := range t.width {
			VMOVAPS(t.acc(0, v), t.acc(r, v))
		}
	}
	JMP(operand.LabelRef("segment"))
	Label("zero")
	for r := range m {
		for v := range t.width {
			t.zero(t.acc(r, v))
		}
	}

	Label("segment")
	goTo := func(m operand.Mem) {
		MOVQ(m, row)
		ADDQ(a, row)
		if t.m > 9 {
			LEAQ(operand.Mem{Base: row, Index: s1, Scale: 8}, high)
			ADDQ(s1, high)
		}
	}
	MOVQ(arg(p, 9), n)
	TESTQ(operand.U32(flagAhead), n)
	JZ(operand.LabelRef("here"))
	goTo(operand.Mem{Base: off, Disp: 8})
	for r := range m {
		for _, k := range []int{0, 16} {
			PREFETCHT0(rowsFrom(row, high, s1, s3, s5, s7, k)(r))
		}
	}
	Label("here")
	goTo(operand.Mem{Base: off})
	ADDQ(operand.U8(8), off)
	MOVQ(arg(p, 4), n)
	SHRQ(operand.U8(2), n)
	JZ(operand.LabelRef("tail"))
	Label("loop")
	step := t.lanes() * 4
	for u := range unroll {
		for v := 0; v < step; v += 64 {
			PREFETCHT0(operand.Mem{Base: b, Disp: (16+u)*step + v})
		}
		t.step(rowsFrom(row, high, s1, s3, s5, s7, u), operand.Mem{Base: b, Disp: u * step})
	}
	ADDQ(operand.U8(unroll*4), row)
	if m > 9 {
		ADDQ(operand.U8(unroll*4), high)
	}
	ADDQ(operand.U32(unroll*step), b)
	DECQ(n)
	JNZ(operand.LabelRef("loop"))
	Label("tail")
	MOVQ(arg(p, 4), n)
	ANDQ(operand.U8(unroll-1), n)
	JZ(operand.LabelRef("next"))
	Label("rest")
	t.step(rowsFrom(row, high, s1, s3, s5, s7, 0), operand.Mem{Base: b})
	ADDQ(operand.U8(4), row)
	if m > 9 {
		ADDQ(operand.U8(4), high)
	}
	ADDQ(operand.U32(step), b)
	DECQ(n)
	JNZ(operand.LabelRef("rest"))
	Label("next")
	DECQ(segs)
	JNZ(operand.LabelRef("segment"))

	c, ldc, flags := reg.RAX, reg.RCX, reg.RDX
	MOVQ(arg(p, 6), c)
	MOVQ(arg(p, 7), ldc)
	MOVQ(arg(p, 9), flags)
	TESTQ(operand.U32(flagAdd), flags)
	JZ(operand.LabelRef("rectify"))
	t.add(c, ldc, reg.RBX)
	Label("rectify")
	TESTQ(operand.U32(flagReLU), flags)
	JZ(operand.LabelRef("store"))
	z := t.panel(0)
	t.zero(z)
	for r := range m {
		for v := range t.width {
			// The second source wins when either is NaN: keep the sum there.
			VMAXPS(t.acc(r, v), z, t.acc(r, v))
		}
	}
	Label("store")
	t.store(c, ldc)
}

// The flags of a Product.
const (
	flagAdd   = 1
	flagReLU  = 2
	flagAhead = 4
)

// outer writes the kernel for Outer, see its Go twin for the fields.
func (t tile) outer() {
	m := t.m
	TEXT(t.name("Outer"), NOSPLIT, "func(p *uintptr)")
	Doc(fmt.Sprintf("%s computes an Outer of %d rows by %d lanes.", t.name("Outer"), m, t.lanes()))
	Pragma("noescape")
	p := reg.RDI
	Load(Param("p"), p)
	a, b, lines := reg.R12, reg.R13, reg.R15
	row, panel, n := reg.RAX, reg.RBX, reg.RCX
	as, bs := reg.R8, reg.R9
	MOVQ(arg(p, 0), a)
	MOVQ(arg(p, 1), as)
	MOVQ(arg(p, 3), b)
	MOVQ(arg(p, 4), bs)
	MOVQ(arg(p, 7), lines)
	for r := range m {
		for v := range t.width {
			t.zero(t.acc(r, v))
		}
	}
	rows := func(second bool) func(r int) operand.Mem {
		return func(r int) operand.Mem {
			m := operand.Mem{Base: row, Disp: 4 * r}
			if second {
				m.Index, m.Scale = as, 1
			}
			return m
		}
	}
	Label("line")
	MOVQ(a, row)
	MOVQ(b, panel)
	ADDQ(arg(p, 2), a)
	ADDQ(arg(p, 5), b)
	MOVQ(arg(p, 6), n)
	SHRQ(operand.U8(1), n)
	JZ(operand.LabelRef("odd"))
	Label("loop")
	// Rows are read at steps too long for the processor to see what comes: the
	// tile after the next one is here.
	PREFETCHT1(operand.Mem{Base: row, Disp: 112})
	t.step(rows(false), operand.Mem{Base: panel})
	PREFETCHT1(operand.Mem{Base: row, Index: as, Scale: 1, Disp: 112})
	t.step(rows(true), operand.Mem{Base: panel, Index: bs, Scale: 1})
	LEAQ(operand.Mem{Base: row, Index: as, Scale: 2}, row)
	LEAQ(operand.Mem{Base: panel, Index: bs, Scale: 2}, panel)
	DECQ(n)
	JNZ(operand.LabelRef("loop"))
	Label("odd")
	MOVQ(arg(p, 6), n)
	TESTQ(operand.U32(1), n)
	JZ(operand.LabelRef("next"))
	t.step(rows(false), operand.Mem{Base: panel})
	Label("next")
	DECQ(lines)
	JNZ(operand.LabelRef("line"))

	c, ldc, add := reg.RAX, reg.RCX, reg.RDX
	MOVQ(arg(p, 8), c)
	MOVQ(arg(p, 9), ldc)
	MOVQ(arg(p, 10), add)
	TESTQ(add, add)
	JZ(operand.LabelRef("store"))
	t.add(c, ldc, reg.RBX)
	Label("store")
	t.store(c, ldc)
}

// peak writes a loop of independent multiply-adds on registers, which nothing
// holds back but the units that do them.
func (l level) peak() {
	name := l.name + "Peak"
	TEXT(name, NOSPLIT, "func(rounds int)")
	Doc(fmt.Sprintf("%s does rounds times %d multiply-adds.", name, peakVectors*l.bytes/4))
	n := reg.RCX
	Load(Param("rounds"), n)
	t := tile{level: l}
	for i := range l.regs {
		t.zero(l.vec(i))
	}
	Label("loop")
	for i := range peakVectors {
		VFMADD231PS(l.vec(l.regs-1), l.vec(l.regs-2), l.vec(i%(l.regs-2)))
	}
	DECQ(n)
	JNZ(operand.LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// peakVectors is a round of peak: every register but two, which hold factors,
// a whole number of times at both levels.
const peakVectors = 7 * 30

func main() {
	ConstraintExpr("!noasm")
	// The sizes that package simd chooses from, see its Tiles: as many rows as
	// leave registers for the panel and for broadcasts.
	for _, s := range []struct {
		level
		width, rows int
	}{{avx512, 1, 14}, {avx512, 2, 14}, {avx512, 3, 9}, {avx2, 2, 6}} {
		for m := 1; m <= s.rows; m++ {
			tile{s.level, m, s.width}.product()
		}
		for m := 1; m <= s.rows; m++ {
			tile{s.level, m, s.width}.outer()
		}
	}
	avx512.peak()
	avx2.peak()
	Generate()
}
