package host

import (
	"math"
	"math/rand/v2"
	"testing"
)

func random(r *rand.Rand, n int) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = float32(r.NormFloat64())
	}
	return s
}

func TestKernelsAgainstTheLoopsTheyDocument(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 40 {
		a0, a1, b := random(r, n), random(r, n), random(r, n*lanes)
		a := make([]float32, 0, n*rows)
		for k := range n {
			a = append(a, a0[k], a1[k])
		}
		var start acc
		copy(start[:], random(r, len(start)))
		got, packed := start, start
		tile(&got, a0, a1, b)
		outer(&packed, a, b)
		if got != packed {
			t.Fatalf("n %d: tile gives %v, outer %v: they sum in the same order", n, got, packed)
		}
		for l := range lanes {
			for row, x := range [][]float32{a0, a1} {
				want := float64(start[row*lanes+l])
				for k := range n {
					want += float64(x[k]) * float64(b[k*lanes+l])
				}
				if d := math.Abs(float64(got[row*lanes+l]) - want); d > 1e-5 {
					t.Errorf("n %d row %d lane %d: %v, want %v", n, row, l, got[row*lanes+l], want)
				}
			}
		}
	}
}

func BenchmarkKernel(b *testing.B) {
	const k = 512
	a0, a1, w := make([]float32, k), make([]float32, k), make([]float32, k*lanes)
	var c acc
	b.Run("tile", func(b *testing.B) {
		for b.Loop() {
			tile(&c, a0, a1, w)
		}
		b.ReportMetric(float64(b.N)*2*rows*lanes*k/b.Elapsed().Seconds()/1e9, "GFLOP/s")
	})
	a := make([]float32, k*rows)
	b.Run("outer", func(b *testing.B) {
		for b.Loop() {
			outer(&c, a, w)
		}
		b.ReportMetric(float64(b.N)*2*rows*lanes*k/b.Elapsed().Seconds()/1e9, "GFLOP/s")
	})
}
