package augment

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// Every level gives what the plain loops give, at every length around its vectors, and writes
// nothing else.
func TestKernels(t *testing.T) { testKernels(t, func(n int) []byte { return make([]byte, n) }) }

// testKernels takes the bytes of pictures from alloc.
func testKernels(t *testing.T, alloc func(n int) []byte) {
	rng := rand.New(rand.NewPCG(5, 5))
	random := func(n int) []byte {
		b := alloc(n)
		for i := range b {
			b[i] = byte(rng.Uint32() >> (8 * rng.IntN(2) * rng.IntN(2)))
		}
		return b
	}
	line := func(n, lo, hi int) []int16 {
		s := make([]int16, n)
		for i := range s {
			s[i] = int16(lo + rng.IntN(hi-lo+1))
		}
		return s
	}
	const guard = 0x5A5A
	for n := 1; n <= 140; n++ {
		for _, l := range levels() {
			what := fmt.Sprintf("%s, %d samples", l, n)

			rows := make([][]byte, 2*(1+rng.IntN(4)))
			for j := range rows {
				rows[j] = random(n)
			}
			weights := make([]int16, len(rows))
			left := 1 << weightBits
			for j := range weights {
				w := min(left, rng.IntN(1<<weightBits+1))
				if j == len(weights)-1 {
					w = left
				}
				weights[j], left = int16(-w), left-w
			}
			got, want := make([]int16, n+64), make([]int16, n)
			for i := range got {
				got[i] = guard
			}
			l.mix(got[:n], rows, weights)
			mixGo(want, rows, weights)
			if !slices.Equal(got[:n], want) {
				t.Fatalf("%s: mix gives %v, want %v", what, got[:n], want)
			}
			for _, v := range got[n:] {
				if v != guard {
					t.Fatalf("%s: mix wrote beyond its samples", what)
				}
			}
			// The twin against the sum it stands for.
			for i := range want {
				sum := 0.0
				for j := range rows {
					sum -= float64(weights[j]) / (1 << weightBits) * float64(rows[j][i])
				}
				if d := math.Abs(float64(want[i])/(1<<downBits) + 128 - sum); d > 0.5/(1<<downBits) {
					t.Fatalf("%s: mix is %g levels off", what, d)
				}
			}

			y, cb, cr := line(n, halfLevel, halfLevel+255<<acrossBits), line(n, -1<<14, 1<<14-1), line(n, -1<<14, 1<<14-1)
			dst, twin := alloc(3*n), make([]byte, 3*n)
			l.packYCbCr(dst, y, cb, cr)
			packYCbCrGo(twin, y, cb, cr)
			if !bytes.Equal(dst, twin) {
				t.Fatalf("%s: packYCbCr gives %v, want %v", what, dst, twin)
			}
			for i := range n {
				l, b, r := float64(y[i]-halfLevel)/(1<<acrossBits), float64(cb[i])/(1<<acrossBits), float64(cr[i])/(1<<acrossBits)
				for c, v := range [3]float64{l + 1.402*r, l - 0.344136*b - 0.714136*r, l + 1.772*b} {
					if d := math.Abs(float64(twin[3*i+c]) - min(max(v, 0), 255)); d > 0.52 {
						t.Fatalf("%s: packYCbCr is %g levels off", what, d)
					}
				}
			}
			b := line(n, halfLevel, halfLevel+255<<acrossBits)
			r, g := slices.Clone(y), line(n, halfLevel, halfLevel+255<<acrossBits)
			l.packRGB(dst, r, g, b)
			packRGBGo(twin, r, g, b)
			if !bytes.Equal(dst, twin) {
				t.Fatalf("%s: packRGB gives %v, want %v", what, dst, twin)
			}

			eight := [3][]byte{random(n), random(n), random(n)}
			l.exact(dst, eight[0], eight[1], eight[2])
			exactGo(twin, eight[0], eight[1], eight[2])
			if !bytes.Equal(dst, twin) {
				t.Fatalf("%s: exact gives %v, want %v", what, dst, twin)
			}

			pix := random(3 * n)
			planes := [3][]byte{alloc(n), alloc(n), alloc(n)}
			l.split(planes[0], planes[1], planes[2], pix)
			for i, v := range pix {
				if planes[i%3][i/3] != v {
					t.Fatalf("%s: split takes channel %d of pixel %d for %d, want %d", what, i%3, i/3, planes[i%3][i/3], v)
				}
			}

			stride := turned + rng.IntN(5)
			side := random((n-1)*stride + turned)
			for _, down := range []bool{true, false} {
				to, by, at, step := 0, n, 0, stride
				if !down {
					to, by = (turned-1)*n, -n
				}
				if rng.IntN(2) == 0 {
					at, step = (n-1)*stride, -stride
				}
				dst, twin := alloc(turned*n), make([]byte, turned*n)
				l.turn(dst, to, by, side, at, step, n)
				turnGo(twin, to, by, side, at, step, n)
				if !bytes.Equal(dst, twin) {
					t.Fatalf("%s: turn gives %v, want %v", what, dst, twin)
				}
			}
		}
	}
}

const halfLevel = 1 << (acrossBits - 1)

// The pass across, at reductions around those where its kernels change, mirrored and not.
func TestSqueeze(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	for _, in := range []int{40, 100, 199, 200, 201, 203, 250, 400, 799, 1000, 1605, 5000} {
		for _, out := range []int{1, 7, 16, 57, 100, 333} {
			count := 1 + rng.IntN(out)
			at := span{in, out, rng.IntN(out - count + 1), count}
			ord := order{mirrored: rng.IntN(2) == 0, reversed: rng.IntN(2) == 0}
			s := sampling{n: in, every: 1}
			if rng.IntN(2) == 0 {
				s = sampling{n: (in + 1) / 2, every: 2, shift: rng.IntN(2) * (in % 2)}
			}
			var a axis
			a.build(s, at, ord, Bilinear)
			if a.lo < 0 || a.hi > s.n || a.hi-a.lo < a.taps {
				t.Fatalf("%+v: inputs %d..%d of %d, %d an output", at, a.lo, a.hi, s.n, a.taps)
			}
			for o := range count {
				sum := 0
				for j, w := range a.weights[o*a.stride:][:a.stride] {
					if sum -= int(w); w > 0 || j >= a.taps && w != 0 {
						t.Fatalf("%+v, output %d: weights %v", at, o, a.weights[o*a.stride:][:a.stride])
					}
				}
				if first := int(a.first[o]); sum != 1<<weightBits || first < 0 || first+a.taps > a.hi-a.lo {
					t.Fatalf("%+v, output %d: weights sum to %d, inputs from %d of %d", at, o, sum, first, a.hi-a.lo)
				}
			}
			src := make([]int16, a.hi-a.lo+overrun)
			for i := range src {
				src[i] = int16(rng.Uint32())
			}
			want := make([]int16, count)
			for _, bias := range []int32{levelBias, centredBias} {
				squeezeGo(want, src, &a, bias)
				for _, l := range levels() {
					got := make([]int16, len(a.first))
					if l.squeeze(got[:count], src, &a, bias); !slices.Equal(got[:count], want) {
						t.Fatalf("%s, %+v, %+v, %+v: got %v, want %v", l, s, at, ord, got[:count], want)
					}
				}
			}
		}
	}
}

// All colours there are.
func TestExact(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: 16 million colours take seconds; without -short they are all tried")
	}
	y, cb, cr := make([]byte, 256), make([]byte, 256), make([]byte, 256)
	got, want := make([]byte, 768), make([]byte, 768)
	for i := range y {
		y[i] = byte(i)
	}
	for b := range 256 {
		for r := range 256 {
			for i := range cb {
				cb[i], cr[i] = byte(b), byte(r)
			}
			exactGo(want, y, cb, cr)
			for _, l := range levels()[1:] {
				if l.exact(got, y, cb, cr); !bytes.Equal(got, want) {
					t.Fatalf("%s: Cb %d, Cr %d: got %v, want %v", l, b, r, got, want)
				}
			}
		}
	}
}
