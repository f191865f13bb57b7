package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Fields of the structures in Go; a test holds them.
const (
	bufAt, nAt, pAt, dataAt, endAt              = 0, 8, 16, 24, 48     // bits
	dcAt, acAt, predAt, coefsAt, flagAt, stepAt = 0, 8, 16, 24, 32, 40 // mcuBlock
	blockSize                                   = 56
	xAt, iAt, kAt                               = 0, 8, 16 // stop
	lookupBits, bad, beforeDC                   = 10, 64, 0xFFFF
)

func at(base reg.Register, disp int) operand.Mem { return operand.Mem{Base: base, Disp: disp} }

// mcus is mcusGo: three symbols a refill, each in about 20 instructions, of which
// a shift, a load and a shift lie on the path to the next.
func mcus() {
	TEXT("mcusBMI2", 4, "func(b *uint64, first *uintptr, blocks int, order *[256]uint8, to int, s *int)") // NOSPLIT
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
	coefs, ac := GP64(), GP64()

	refill := func() {
		next, count := GP64(), GP64()
		MOVQ(operand.Mem{Base: data, Index: p, Scale: 1}, next)
		BSWAPQ(next)
		SHRXQ(n, next, next)
		ORQ(next, buf)
		MOVL(operand.U32(63), count.As32())
		SUBQ(n, count)
		SHRQ(operand.U8(3), count)
		ADDQ(count, p)
		ORQ(operand.U8(56), n)
	}
	// symbol looks one up, goes behind it and gives its value.
	symbol := func(table reg.Register, missing string) (s, v reg.GPVirtual) {
		s, v = GP64(), GP64()
		MOVQ(buf, s)
		SHRQ(operand.U8(64-lookupBits), s)
		MOVL(operand.Mem{Base: table, Index: s, Scale: 4}, s.As32())
		TESTL(s.As32(), s.As32())
		JZ(operand.LabelRef(missing))
		t, sign := GP64(), GP64()
		MOVL(s.As32(), t.As32())
		SHRL(operand.U8(8), t.As32())
		SHLXQ(t, buf, v)
		SHLXQ(s, buf, buf)
		MOVBLZX(s.As8(), t.As32())
		SUBQ(t, n)
		MOVL(s.As32(), t.As32())
		SHRL(operand.U8(16), t.As32())
		// extend
		MOVQ(v, sign)
		SARQ(operand.U8(63), sign)
		NOTQ(sign)
		XORQ(sign, v)
		SHRQ(operand.U8(1), v)
		SHRXQ(t, v, v)
		XORQ(sign, v)
		SUBQ(sign, v)
		return s, v
	}

	Label("block")
	refill()
	dc := GP64()
	MOVQ(at(block, dcAt), dc)
	MOVL(operand.U32(beforeDC), k.As32())
	_, v := symbol(dc, "stop")
	pred := GP64()
	MOVQ(at(block, predAt), pred)
	ADDL(at(pred, 0), v.As32())
	MOVL(v.As32(), at(pred, 0))
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
		s, v := symbol(ac, "stop")
		SHRL(operand.U8(24), s.As32())
		ADDL(s.As32(), k.As32())
		place := GP64()
		MOVBLZX(operand.Mem{Base: order, Index: k, Scale: 1}, place.As32())
		MOVW(v.As16(), operand.Mem{Base: coefs, Index: place, Scale: 2})
		CMPL(k.As32(), operand.U8(63))
		if i < 2 {
			JCC(operand.LabelRef("done"))
		} else {
			JCS(operand.LabelRef("symbols"))
		}
	}

	Label("done")
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
	// The MCU ends. Were there that many bits?
	base := Load(Param("b"), GP64())
	read := GP64()
	MOVQ(p, read)
	SHLQ(operand.U8(3), read)
	SUBQ(n, read)
	MOVL(operand.U32(bad), k.As32())
	CMPQ(read, at(base, endAt))
	JGT(operand.LabelRef("stop"))
	Load(Param("first"), block)
	INCQ(x)
	to := Load(Param("to"), GP64())
	CMPQ(x, to)
	JLT(operand.LabelRef("block"))

	Label("stop")
	base = Load(Param("b"), GP64())
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
