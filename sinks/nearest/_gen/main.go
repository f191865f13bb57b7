// Command gen writes the assembly of package nearest.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("!noasm")
	distances("avx512", 64, func() reg.VecVirtual { return ZMM() })
	distances("avx2", 32, func() reg.VecVirtual { return YMM() })
	Generate()
}

// accumulators hide the latency of an FMA.
const accumulators = 4

// distances is the squared distance of each row to the query, over a width that is
// a whole number of blocks; rows lie stride floats apart.
func distances(level string, bytes int, vec func() reg.VecVirtual) {
	TEXT(level+"Distances", NOSPLIT, "func(dst, rows, query []float32, stride int)")
	Doc(level+"Distances is distances over a query whose length is a multiple of block, and not 0, and of",
		"rows stride floats apart, of which dst says how many: at least one.")
	Pragma("noescape")
	param := func(name string) reg.GPVirtual { return Load(Param(name), GP64()).(reg.GPVirtual) }
	base := func(name string) reg.GPVirtual { return Load(Param(name).Base(), GP64()).(reg.GPVirtual) }
	dst, rows, query := base("dst"), base("rows"), base("query")
	count := Load(Param("dst").Len(), GP64()).(reg.GPVirtual)
	width := Load(Param("query").Len(), GP64()).(reg.GPVirtual)
	stride := param("stride")

	Label("row")
	var sum [accumulators]reg.VecVirtual
	for i := range sum {
		sum[i] = vec()
		VXORPS(sum[i].AsX(), sum[i].AsX(), sum[i].AsX()) // and all above
	}
	at := GP64()
	XORQ(at, at)
	Label("block")
	for i := range sum {
		x := vec()
		VMOVUPS(operand.Mem{Base: rows, Index: at, Scale: 4, Disp: i * bytes}, x)
		VSUBPS(operand.Mem{Base: query, Index: at, Scale: 4, Disp: i * bytes}, x, x)
		VFMADD231PS(x, x, sum[i])
	}
	ADDQ(operand.Imm(uint64(accumulators*bytes/4)), at)
	CMPQ(at, width)
	JLT(operand.LabelRef("block"))

	VADDPS(sum[1], sum[0], sum[0])
	VADDPS(sum[3], sum[2], sum[2])
	VADDPS(sum[2], sum[0], sum[0])
	low := sum[0].AsY()
	if bytes == 64 {
		high := YMM()
		VEXTRACTF64X4(operand.Imm(1), sum[0], high)
		VADDPS(high, low, low)
	}
	half := XMM()
	VEXTRACTF128(operand.Imm(1), low, half)
	x := sum[0].AsX()
	VADDPS(half, x, x)
	VPERMILPS(operand.Imm(0x4e), x, half)
	VADDPS(half, x, x)
	VPERMILPS(operand.Imm(0xb1), x, half)
	VADDPS(half, x, x)
	VMOVSS(x, operand.Mem{Base: dst})

	ADDQ(operand.Imm(4), dst)
	LEAQ(operand.Mem{Base: rows, Index: stride, Scale: 4}, rows)
	DECQ(count)
	JNZ(operand.LabelRef("row"))
	VZEROUPPER()
	RET()
}
