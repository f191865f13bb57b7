package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Fields of the structures in Go; a test holds them.
const (
	// Fields of the structures in Go; a test holds them.
	bufAt, nAt, pAt, dataAt, endAt              = 0, 8, 16, 24, 48     // bits
	dcAt, acAt, predAt, coefsAt, flagAt, stepAt = 0, 8, 16, 24, 32, 40 // mcuBlock
	blockSize                                   = 56                   // mcuBlock
	xAt, iAt, kAt                               = 0, 8, 16             // stop
	tailAt, tailAtAt                            = 4096, 4096 + 8192    // table
	// Constants of the same.
	lookupBits, tailSize, bad, elsewhere, beforeDC = 10, 2048, 64, 240, 0xFFFF
)

func at(base reg.Register, disp int) operand.Mem { return operand.Mem{Base: base, Disp: disp} }

// mcus is mcusGo: three symbols a refill, each in about 20 instructions, of which
// a shift, a load and a shift lie on the path to the next.
func mcus() {
	TEXT("mcusBMI2", 4, "func(b *uint64, first *uintptr, blocks int, order *[320]uint8, to int, s *int)") // NOSPLIT
	Pragma("noescape")
	Doc("mcusBMI2 decodes the MCUs of a row from where s says, given the first fields of bits, of the MCU's first",
		"mcuBlock and of stop. It stops at column to, or where lookups do not help; stop.block is then in bytes.",
		"It does not look where p is, which padding makes safe.")
	b := Load(Param("b"), GP64())
	order := Load(Param("order"), GP64())
	block, x, k := GP64(), GP64(), GP64()
	buf, n, p, data := GP64(), GP64(), GP64(), GP64()
	MOVQ(at(b, bufAt), buf)
	MOVQ(at(b, nAt), n)
	MOVQ(at(b, pAt), p)
	MOVQ(at(b, dataAt), data)
	state := GP64()
	Load(Param("s"), state)
	MOVQ(at(state, xAt), x)
	MOVQ(at(state, iAt), block)
	IMUL3Q(operand.U8(blockSize), block, block)
	first := GP64()
	Load(Param("first"), first)
	ADDQ(first, block)
	coefs, ac, ones := GP64(), GP64(), GP64()
	MOVQ(operand.I32(-1), ones)

	refill := func() {
		next, left := GP64(), GP64()
		MOVQ(operand.Mem{Base: data, Index: p, Scale: 1}, next)
		BSWAPQ(next)
		SHRXQ(n, next, next)
		ORQ(next, buf)
		MOVL(operand.U32(63), left.As32())
		MOVBLZX(n.As8(), n.As32())
		SUBL(n.As32(), left.As32())
		SHRL(operand.U8(3), left.As32())
		ADDQ(left, p)
		ORL(operand.U8(56), n.As32())
	}
	// symbol goes behind the one at entry, gives its value, and adds to k how far it goes.
	symbol := func(entry operand.Mem, s reg.GPVirtual) (v reg.GPVirtual) {
		byteOf := func(i int) operand.Mem {
			m := entry
			m.Disp += i
			return m
		}
		size, mask, twice := GP64(), GP64(), GP64()
		advance := GP64()
		v = GP64()
		MOVWLZX(byteOf(1), v.As32())
		MOVBLZX(byteOf(2), size.As32())
		MOVBLZX(byteOf(3), advance.As32())
		MOVL(entry, s.As32())
		BEXTRQ(v, buf, v)
		SHLXQ(s, buf, buf)
		SUBL(s.As32(), n.As32()) // only the lowest byte of n counts until the next refill
		ADDL(advance.As32(), k.As32())
		// A value whose first bit is 0 is negative (F.2.2.1): size ones are taken from it.
		BZHIQ(size, ones, mask)
		LEAQ(operand.Mem{Base: v, Index: v, Scale: 1}, twice)
		negative := size
		MOVQ(v, negative)
		SUBQ(mask, negative)
		CMPQ(twice, mask)
		CMOVQLS(negative, v)
		return v
	}
	look := func(table reg.Register) (operand.Mem, reg.GPVirtual) {
		s := GP64()
		MOVQ(buf, s)
		SHRQ(operand.U8(64-lookupBits), s)
		return operand.Mem{Base: table, Index: s, Scale: 4}, s
	}
	store := func(v reg.GPVirtual) {
		place := GP64()
		MOVBLZX(operand.Mem{Base: order, Index: k, Scale: 1}, place.As32())
		MOVW(v.As16(), operand.Mem{Base: coefs, Index: place, Scale: 2})
	}

	Label("block")
	refill()
	dc := GP64()
	MOVQ(at(block, dcAt), dc)
	XORL(k.As32(), k.As32())
	v := symbol(look(dc))
	CMPL(k.As32(), operand.U8(1))
	MOVL(operand.U32(beforeDC), k.As32())
	JNE(operand.LabelRef("stop"))
	pred := GP64()
	MOVQ(at(block, predAt), pred)
	ADDL(at(pred, 0), v.As32())
	MOVL(v.As32(), at(pred, 0))
	MOVL(operand.U32(bad), k.As32())
	fits := GP64()
	MOVWLSX(v.As16(), fits.As32())
	CMPL(fits.As32(), v.As32())
	JNE(operand.LabelRef("stop"))
	MOVQ(at(block, stepAt), coefs)
	IMULQ(x, coefs)
	SHLQ(operand.U8(7), coefs)
	ADDQ(at(block, coefsAt), coefs)
	MOVW(v.As16(), at(coefs, 0))
	MOVQ(at(block, acAt), ac)
	XORL(k.As32(), k.As32())

	Label("symbols")
	refill()
	for i := range 3 {
		store(symbol(look(ac)))
		CMPL(k.As32(), operand.U8(63))
		if i < 2 {
			JCC(operand.LabelRef("done"))
		} else {
			JCS(operand.LabelRef("symbols"))
		}
	}

	Label("done")
	CMPL(k.As32(), operand.U32(elsewhere))
	JCC(operand.LabelRef("long"))
	// The block ends. Were there that many bits?
	base, read := Load(Param("b"), GP64()), GP64()
	MOVBLZX(n.As8(), n.As32())
	MOVQ(p, read)
	SHLQ(operand.U8(3), read)
	SUBQ(n, read)
	CMPQ(read, at(base, endAt))
	JGT(operand.LabelRef("over"))
	t := GP64()
	LEAL(operand.Mem{Base: k, Disp: -bad}, t.As32())
	CMPL(t.As32(), operand.U8(63))
	JLS(operand.LabelRef("stop")) // 64..127
	flag := GP64()
	MOVQ(at(block, stepAt), flag)
	IMULQ(x, flag)
	ADDQ(at(block, flagAt), flag)
	ANDL(operand.U8(127), k.As32())
	MOVB(k.As8(), at(flag, 0))
	ADDQ(operand.U8(blockSize), block)
	end, last := GP64(), GP64()
	Load(Param("first"), end)
	Load(Param("blocks"), last)
	IMUL3Q(operand.U8(blockSize), last, last)
	ADDQ(last, end)
	CMPQ(block, end)
	JNE(operand.LabelRef("block"))
	// The MCU ends.
	Load(Param("first"), block)
	INCQ(x)
	to := Load(Param("to"), GP64())
	CMPQ(x, to)
	JLT(operand.LabelRef("block"))
	JMP(operand.LabelRef("stop"))

	Label("long") // a code of more than lookupBits
	SUBL(operand.U32(elsewhere), k.As32())
	refill()
	long := GP64()
	MOVQ(buf, long)
	SHRQ(operand.U8(48), long)
	SUBQ(at(ac, tailAtAt), long)
	CMPQ(long, operand.U32(tailSize))
	JCC(operand.LabelRef("stop"))
	entry := operand.Mem{Base: ac, Index: long, Scale: 4, Disp: tailAt}
	advanceOf := entry
	advanceOf.Disp += 3
	CMPB(advanceOf, operand.U8(elsewhere))
	JEQ(operand.LabelRef("stop"))
	store(symbol(entry, long))
	CMPL(k.As32(), operand.U8(63))
	JCS(operand.LabelRef("symbols"))
	JMP(operand.LabelRef("done"))

	Label("over")
	MOVL(operand.U32(bad), k.As32())

	Label("stop")
	base = Load(Param("b"), GP64())
	MOVBLZX(n.As8(), n.As32())
	MOVQ(buf, at(base, bufAt))
	MOVQ(n, at(base, nAt))
	MOVQ(p, at(base, pAt))
	state = GP64()
	Load(Param("s"), state)
	MOVQ(x, at(state, xAt))
	MOVQ(k, at(state, kAt))
	first = GP64()
	Load(Param("first"), first)
	SUBQ(first, block)
	MOVQ(block, at(state, iAt)) // in bytes
	RET()
}
