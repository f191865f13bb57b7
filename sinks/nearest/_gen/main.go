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

// together is how many rows are read side by side, so that the query, which takes
// as much of the first cache as a row does, is read once for all of them.
const together = 4

// distances is the squared distance of each row to the query, over a width that is
// a whole number of blocks; rows lie stride floats apart.
func distances(level string, bytes int, vec func() reg.VecVirtual) {
	TEXT(level+"Distances", NOSPLIT, "func(dst, rows, query []float32, stride int)")
	Doc(level+"Distances is distances over a query whose length is a multiple of block, and not 0, and of",
		"rows stride floats apart, of which dst says how many.")
	Pragma("noescape")
	dst := Load(Param("dst").Base(), GP64()).(reg.GPVirtual)
	rows := Load(Param("rows").Base(), GP64()).(reg.GPVirtual)
	query := Load(Param("query").Base(), GP64()).(reg.GPVirtual)
	count := Load(Param("dst").Len(), GP64()).(reg.GPVirtual)
	width := Load(Param("query").Len(), GP64()).(reg.GPVirtual)
	stride := Load(Param("stride"), GP64()).(reg.GPVirtual)
	SHLQ(operand.Imm(2), stride) // bytes

	// sweep does n rows, as long as there are as many.
	sweep := func(n int, name, done string) {
		Label(name)
		CMPQ(count, operand.Imm(uint64(n)))
		JLT(operand.LabelRef(done))
		row := []reg.Register{rows}
		for range n - 1 {
			next := GP64()
			LEAQ(operand.Mem{Base: row[len(row)-1], Index: stride, Scale: 1}, next)
			row = append(row, next)
		}
		// Two sums a row hide the latency of an FMA.
		sum := make([][2]reg.VecVirtual, n)
		for i := range sum {
			for j := range sum[i] {
				sum[i][j] = vec()
				VXORPS(sum[i][j].AsX(), sum[i][j].AsX(), sum[i][j].AsX()) // and all above
			}
		}
		at := GP64()
		XORQ(at, at)
		Label(name + "block")
		for j := range 2 {
			q := vec()
			VMOVUPS(operand.Mem{Base: query, Index: at, Scale: 4, Disp: j * bytes}, q)
			for i := range sum {
				d := vec()
				VSUBPS(operand.Mem{Base: row[i], Index: at, Scale: 4, Disp: j * bytes}, q, d)
				VFMADD231PS(d, d, sum[i][j])
			}
		}
		ADDQ(operand.Imm(uint64(2*bytes/4)), at)
		CMPQ(at, width)
		JLT(operand.LabelRef(name + "block"))
		for i, s := range sum {
			VADDPS(s[1], s[0], s[0])
			add(s[0], bytes)
			VMOVSS(s[0].AsX(), operand.Mem{Base: dst, Disp: 4 * i})
		}
		ADDQ(operand.Imm(uint64(4*n)), dst)
		LEAQ(operand.Mem{Base: row[n-1], Index: stride, Scale: 1}, rows)
		SUBQ(operand.Imm(uint64(n)), count)
		JMP(operand.LabelRef(name))
	}
	sweep(together, "some", "one")
	sweep(1, "one", "end")
	Label("end")
	VZEROUPPER()
	RET()
}

// add sums the lanes of a vector into its first.
func add(v reg.VecVirtual, bytes int) {
	if bytes == 64 {
		high := YMM()
		VEXTRACTF64X4(operand.Imm(1), v, high)
		VADDPS(high, v.AsY(), v.AsY())
	}
	half := XMM()
	VEXTRACTF128(operand.Imm(1), v.AsY(), half)
	x := v.AsX()
	VADDPS(half, x, x)
	VPERMILPS(operand.Imm(0x4e), x, half)
	VADDPS(half, x, x)
	VPERMILPS(operand.Imm(0xb1), x, half)
	VADDPS(half, x, x)
}
