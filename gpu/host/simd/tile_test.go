package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// guard is what lies around every buffer and must survive.
const guard = 12345.5

// guarded gives n floats between two guards and a check of them.
func guarded(t *testing.T, n int) []float32 {
	const band = 64
	all := make([]float32, n+2*band)
	for i := range all {
		all[i] = guard
	}
	t.Cleanup(func() {
		for i, v := range all {
			if (i < band || i >= band+n) && v != guard {
				t.Errorf("wrote %g at %d, outside of 0..%d", v, i-band, n)
			}
		}
	})
	return all[band : band+n : band+n]
}

func fill(r *rand.Rand, f []float32) []float32 {
	for i := range f {
		f[i] = float32(r.NormFloat64())
	}
	return f
}

// near holds got to a float64 sum of n products whose magnitudes sum to size.
func near(t *testing.T, what string, got float32, want, size float64, n int) {
	t.Helper()
	if tol := size * float64(n+4) * 0x1p-24; math.Abs(float64(got)-want) > tol {
		t.Fatalf("%s is %g, want %g within %g", what, got, want, tol)
	}
}

func eachTile(t *testing.T, f func(t *testing.T, k *Tiles, rows int, r *rand.Rand)) {
	for _, l := range Levels() {
		for _, k := range TilesOf(l) {
			for rows := 1; rows <= k.Rows; rows++ {
				t.Run(fmt.Sprintf("%v/%dx%d", l, rows, k.Lanes), func(t *testing.T) {
					f(t, k, rows, rand.New(rand.NewPCG(uint64(l), uint64(rows))))
				})
			}
		}
	}
}

func TestProduct(t *testing.T) {
	eachTile(t, func(t *testing.T, tiles *Tiles, rows int, r *rand.Rand) {
		for _, k := range []int{1, 2, 3, 4, 5, 7, 8, 33} {
			for flags := range 8 {
				segments, stride, ldc := 1+r.IntN(3), k+r.IntN(9), tiles.Lanes+r.IntN(20)
				offsets := make([]int, segments+1)
				a := fill(r, guarded(t, segments*40+(rows-1)*stride+k))
				for s := range segments {
					offsets[s] = 4 * 40 * s
				}
				b := fill(r, guarded(t, segments*k*tiles.Lanes))
				c := fill(r, guarded(t, (rows-1)*ldc+tiles.Lanes))
				bias := fill(r, guarded(t, tiles.Lanes))
				was := append([]float32(nil), c...)
				p := Product{A: &a[0], Stride: 4 * stride, Offsets: &offsets[0], Segments: segments, K: k, B: &b[0], C: &c[0], LDC: 4 * ldc, Flags: flags}
				if r.IntN(2) == 0 {
					p.Bias = &bias[0]
				}
				tiles.Product(rows, &p)
				for i, got := range c {
					row, l := i/ldc, i%ldc
					if l >= tiles.Lanes {
						if got != was[i] {
							t.Fatalf("element %d of C between the rows changed", i)
						}
						continue
					}
					var sum, size float64
					add := func(v float64) { sum += v; size += math.Abs(v) }
					if p.Bias != nil {
						add(float64(bias[l]))
					}
					for s := range segments {
						for j := range k {
							add(float64(a[s*40+row*stride+j]) * float64(b[(s*k+j)*tiles.Lanes+l]))
						}
					}
					if flags&Add != 0 {
						add(float64(was[i]))
					}
					if flags&ReLU != 0 {
						sum = max(sum, 0)
					}
					near(t, fmt.Sprintf("k %d flags %d: C[%d][%d]", k, flags, row, l), got, sum, size, segments*k)
				}
			}
		}
	})
}

func TestReLUKeepsNaN(t *testing.T) {
	eachTile(t, func(t *testing.T, tiles *Tiles, rows int, _ *rand.Rand) {
		nan := float32(math.NaN())
		a, b, c := make([]float32, rows), make([]float32, tiles.Lanes), make([]float32, rows*tiles.Lanes)
		for i := range a {
			a[i] = nan
		}
		offsets := []int{0}
		tiles.Product(rows, &Product{A: &a[0], Stride: 4, Offsets: &offsets[0], Segments: 1, K: 1, B: &b[0], C: &c[0], LDC: 4 * tiles.Lanes, Flags: ReLU})
		for i, v := range c {
			if v == v {
				t.Fatalf("element %d is %g, but must be NaN", i, v)
			}
		}
	})
}

func TestOuter(t *testing.T) {
	eachTile(t, func(t *testing.T, tiles *Tiles, rows int, r *rand.Rand) {
		for _, n := range []int{1, 2, 3, 13} {
			for add := range 2 {
				lines := 1 + r.IntN(3)
				aStep, bStep, ldc := rows+r.IntN(5), tiles.Lanes+r.IntN(5), tiles.Lanes+r.IntN(20)
				aLine, bLine := n*aStep+r.IntN(7), n*bStep+r.IntN(7)
				a := fill(r, guarded(t, (lines-1)*aLine+(n-1)*aStep+rows))
				b := fill(r, guarded(t, (lines-1)*bLine+(n-1)*bStep+tiles.Lanes))
				c := fill(r, guarded(t, (rows-1)*ldc+tiles.Lanes))
				was := append([]float32(nil), c...)
				tiles.Outer(rows, &Outer{A: &a[0], AStep: 4 * aStep, ALine: 4 * aLine, B: &b[0], BStep: 4 * bStep, BLine: 4 * bLine,
					N: n, Lines: lines, C: &c[0], LDC: 4 * ldc, Add: add})
				for i, got := range c {
					row, l := i/ldc, i%ldc
					if l >= tiles.Lanes {
						if got != was[i] {
							t.Fatalf("element %d of C between the rows changed", i)
						}
						continue
					}
					var sum, size float64
					for j := range lines {
						for k := range n {
							v := float64(a[j*aLine+k*aStep+row]) * float64(b[j*bLine+k*bStep+l])
							sum += v
							size += math.Abs(v)
						}
					}
					if add != 0 {
						sum += float64(was[i])
						size += math.Abs(float64(was[i]))
					}
					near(t, fmt.Sprintf("n %d add %d: C[%d][%d]", n, add, row, l), got, sum, size, lines*n)
				}
			}
		}
	})
}

func TestChoose(t *testing.T) {
	for _, l := range Levels() {
		if got, err := Choose(l.String()); err != nil || got != l {
			t.Errorf("Choose(%q) gives %v, %v", l, got, err)
		}
	}
	if got, err := Choose(""); err != nil || got != best() {
		t.Errorf("Choose of nothing gives %v, %v; want %v", got, err, best())
	}
	if _, err := Choose("sse9"); err == nil {
		t.Error("Choose takes a level that does not exist")
	}
}

func TestTilesFor(t *testing.T) {
	for _, l := range Levels() {
		for _, k := range TilesOf(l) {
			if got := TilesFor(l, k.Lanes); got != k {
				t.Errorf("%v: %d outputs get tiles of %d lanes", l, k.Lanes, got.Lanes)
			}
		}
		for outputs := 1; outputs < 300; outputs++ {
			k, first := TilesFor(l, outputs), TilesOf(l)[0]
			padded := func(k *Tiles) int { return (outputs + k.Lanes - 1) / k.Lanes * k.Lanes }
			if padded(k) > padded(first) {
				t.Errorf("%v: %d outputs take %d lanes, with the first tiles %d", l, outputs, padded(k), padded(first))
			}
		}
	}
}

func TestPeak(t *testing.T) {
	for _, l := range Levels() {
		if p := Peak(l); (p > 0) != (l != Generic) || p > 2000 {
			t.Errorf("a core does %g GFLOP/s at level %v", p, l)
		}
	}
}

func BenchmarkTiles(b *testing.B) {
	for _, l := range Levels() {
		for _, k := range TilesOf(l) {
			const segments, n = 3, 320
			x := make([]float32, segments*1000+k.Rows*96+n)
			w := make([]float32, segments*n*k.Lanes)
			c := make([]float32, k.Rows*k.Lanes)
			offsets := []int{0, 4000, 8000}
			report := func(b *testing.B) {
				flops := float64(b.N) * float64(2*k.Rows*k.Lanes*segments*n) / b.Elapsed().Seconds() / 1e9
				b.ReportMetric(flops, "GFLOP/s")
				if peak := Peak(l); peak > 0 {
					b.ReportMetric(100*flops/peak, "%peak")
				}
			}
			name := fmt.Sprintf("%v/%dx%d/", l, k.Rows, k.Lanes)
			b.Run(name+"Product", func(b *testing.B) {
				p := Product{A: &x[0], Stride: 4 * 96, Offsets: &offsets[0], Segments: segments, K: n, B: &w[0], C: &c[0], LDC: 4 * k.Lanes}
				for b.Loop() {
					k.Product(k.Rows, &p)
				}
				report(b)
			})
			b.Run(name+"Outer", func(b *testing.B) {
				o := Outer{A: &x[0], AStep: 4 * k.Rows, B: &w[0], BStep: 4 * k.Lanes, N: n, Lines: segments, C: &c[0], LDC: 4 * k.Lanes}
				for b.Loop() {
					k.Outer(k.Rows, &o)
				}
				report(b)
			})
		}
	}
}
