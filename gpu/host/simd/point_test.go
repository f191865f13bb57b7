package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"sluice/net"
)

// odd is numbers that loops may get wrong.
var odd = []float32{0, float32(math.Copysign(0, -1)), 1, -1, tiny, -tiny, tiny / 2, -tiny / 4, math.SmallestNonzeroFloat32,
	math.MaxFloat32, -math.MaxFloat32, float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN())}

// band is the guard around a buffer of any type.
const band = 80

// fenced gives a copy of x that begins at any alignment, with guards that check
// looks at.
func fenced[T float32 | uint16 | byte](t *testing.T, r *rand.Rand, x []T) []T {
	t.Helper()
	from := band + r.IntN(17)
	all := make([]T, from+len(x)+band)
	for i := range all {
		all[i] = 113
	}
	t.Cleanup(func() {
		for i, v := range all {
			if (i < from || i >= from+len(x)) && v != 113 {
				t.Errorf("wrote %v at %d, outside of 0..%d", v, i-from, len(x))
			}
		}
	})
	in := all[from : from+len(x) : from+len(x)]
	copy(in, x)
	return in
}

// numbers is n numbers, one in eight an odd one.
func numbers(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
		if r.IntN(8) == 0 {
			x[i] = odd[r.IntN(len(odd))]
		}
	}
	return x
}

// positive is what scales may be.
func positive(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(math.Exp(6 * r.NormFloat64()))
	}
	return x
}

// same holds two slices to the same bits; one NaN is as good as another.
func same[T float32 | uint16](t *testing.T, what string, got, want []T) {
	t.Helper()
	for i, w := range want {
		g := got[i]
		if g != w && (g == g || w == w) || math.Signbit(float64(g)) != math.Signbit(float64(w)) && g == g {
			t.Fatalf("%s[%d] of %d is %v, want %v", what, i, len(want), g, w)
		}
	}
}

// eachPoints runs f with the loops of every level and those of Go. What f makes
// of the same numbers must be the same.
func eachPoints(t *testing.T, f func(t *testing.T, p *Points, r *rand.Rand) [][]float32) {
	want := f(t, &genericPoints, rand.New(rand.NewPCG(1, 1)))
	for _, l := range Levels() {
		t.Run(l.String(), func(t *testing.T) {
			got := f(t, PointsOf(l), rand.New(rand.NewPCG(1, 1)))
			for i := range want {
				same(t, fmt.Sprintf("result %d", i), got[i], want[i])
			}
		})
	}
}

func TestPointwise(t *testing.T) {
	eachPoints(t, func(t *testing.T, p *Points, r *rand.Rand) (results [][]float32) {
		for n := range 101 {
			buf := func() []float32 { return fenced(t, r, numbers(r, n)) }
			y, a, b := buf(), buf(), buf()
			p.Add(y, a, b)
			p.Add(a, a, b)
			same(t, "a sum in place", a, y)
			dy, z := buf(), buf()
			p.ReLUGrad(dy, z)
			dz := buf()
			p.TanhGrad(dz, z)
			results = append(results, y, dy, dz)
			th := buf()
			p.Tanh(th)
			results = append(results, th)
			if sum := p.SquareSum(z); sum == sum { // in float64, where float32 has room for it
				results = append(results, []float32{float32(sum), float32(sum - float64(float32(sum)))})
			}
			for form := net.PaperMomentum; form <= net.NesterovMomentum; form++ {
				w, v, dw := buf(), buf(), buf()
				p.SGD(w, v, dw, net.SGD{LR: 0.01, Momentum: 0.9, Decay: 0.0005, Form: form})
				results = append(results, w, v)
			}
		}
		return results
	})
}

// Tanh is within 2.5 units in the last place of float64's, of every size of number, odd, and
// rising but for as much. The step passes through numbers of all last bits; SLUICE_TANH_STEP=1 takes every one.
func TestTanh(t *testing.T) {
	step := uint32(1009)
	if s := os.Getenv("SLUICE_TANH_STEP"); s != "" {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil || n == 0 {
			t.Fatalf("SLUICE_TANH_STEP is %q", s)
		}
		step = uint32(n)
	}
	p := PointsOf(best())
	var worst, at float64
	var x, y, z [1024]float32
	last := float32(0)
	for b := uint32(0); b < 0x7f800000-1024*step; {
		for i := range x {
			x[i], b = math.Float32frombits(b), b+step
		}
		y = x
		p.Tanh(y[:])
		for i, v := range x {
			z[i] = -v
		}
		p.Tanh(z[:])
		for i, v := range x {
			if z[i] != -y[i] {
				t.Fatalf("tanh(%v) is %v, and of its negative %v", v, y[i], z[i])
			}
			if v > 9.5 {
				if y[i] != 1 {
					t.Fatalf("tanh(%v) is %v", v, y[i])
				}
				continue
			}
			want := math.Tanh(float64(v))
			f := float32(want)
			unit := float64(math.Nextafter32(f, 2) - f)
			if d := math.Abs(float64(y[i])-want) / unit; d > worst {
				worst, at = d, float64(v)
			}
			if y[i] < last-5*float32(unit) || y[i] > 1 {
				t.Fatalf("tanh(%v) is %v after %v", v, y[i], last)
			}
			last = y[i]
		}
	}
	t.Logf("at most %.3f units off, at %v", worst, at)
	if !(worst <= 2.5) {
		t.Errorf("tanh(%v) is %.3f units in the last place off", at, worst)
	}
}

func BenchmarkPointwise(b *testing.B) {
	x := make([]float32, 1<<14)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	y := make([]float32, len(x))
	for _, l := range Levels() {
		p := PointsOf(l)
		b.Run("Tanh/"+l.String(), func(b *testing.B) {
			b.SetBytes(int64(4 * len(x)))
			for b.Loop() {
				copy(y, x)
				p.Tanh(y)
			}
		})
		b.Run("SquareSum/"+l.String(), func(b *testing.B) {
			b.SetBytes(int64(4 * len(x)))
			for b.Loop() {
				p.SquareSum(x)
			}
		})
	}
}

func TestSGDTwin(t *testing.T) {
	// Momentum that is not fed ends at zero.
	for _, l := range Levels() {
		w, v, dw := make([]float32, 37), make([]float32, 37), make([]float32, 37)
		for i := range v {
			v[i] = -0x1p-125
		}
		for range 20 {
			PointsOf(l).SGD(w, v, dw, net.SGD{LR: 0.01, Momentum: 0.9})
		}
		same(t, l.String(), v, make([]float32, 37))
	}
}

// norms are the geometries of every number of channels up to 100.
func norms(r *rand.Rand) (all []Norm) {
	for c := 1; c <= 100; c++ {
		size := 1 + r.IntN(9)
		beta := float32(0.75)
		if c%10 == 0 {
			beta = 0.6
		}
		all = append(all, Norm{C: c, Size: size, Stride: c + size - 1 + r.IntN(4), K: 1 + r.Float32(), Alpha: r.Float32(), Beta: beta})
	}
	return all
}

func TestNorm(t *testing.T) {
	eachPoints(t, func(t *testing.T, p *Points, r *rand.Rand) (results [][]float32) {
		for _, n := range norms(r) {
			pixels := 1 + r.IntN(4)
			buf := func(x []float32) []float32 { return fenced(t, r, x) }
			x := buf(numbers(r, pixels*n.C))
			blank := make([]float32, len(x))
			terms := buf(make([]float32, pixels*n.Stride))
			y, scale, without := buf(blank), buf(blank), buf(blank)
			p.Squares(terms[n.Size/2:], x, n)
			p.Norm(y, scale, x, terms, n)
			p.Norm(without, nil, x, terms, n)
			same(t, "y without its scale", without, y)

			dy, s := buf(numbers(r, len(x))), buf(positive(r, len(x)))
			d, dx, ratios := buf(blank), buf(blank), buf(make([]float32, len(terms)))
			p.Ratios(ratios[n.Size-1-n.Size/2:], d, dy, x, s, n)
			p.NormGrad(dx, d, x, ratios, n)
			results = append(results, terms, y, scale, d, ratios, dx)
		}
		return results
	})
}

// TestNormTruth holds y and both halves of the gradient to float64.
func TestNormTruth(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for range 10000 {
		x, s, dy := float32(r.NormFloat64()), float32(math.Exp(4*r.NormFloat64())), float32(r.NormFloat64())
		n := Norm{C: 1, Size: 1, Stride: 1, K: s, Beta: 0.75}
		for _, l := range Levels() {
			var y, d, term [1]float32
			PointsOf(l).Norm(y[:], nil, []float32{x}, []float32{0}, n)
			PointsOf(l).Ratios(term[:], d[:], []float32{dy}, []float32{x}, []float32{s}, n)
			p := math.Pow(float64(s), -0.75)
			for i, c := range []struct{ got, want, tolerance float64 }{
				{float64(y[0]), float64(x) * p, 2.2e-7},
				{float64(d[0]), float64(dy) * p, 2.2e-7},
				{float64(term[0]), float64(dy) * p * float64(x) / float64(s), 3.4e-7},
			} {
				if math.Abs(c.got-c.want) > c.tolerance*math.Abs(c.want) {
					t.Fatalf("%v: number %d is %g, want %g (x %g, s %g)", l, i, c.got, c.want, x, s)
				}
			}
		}
	}
}

// windows are geometries of every number of channels up to 100.
func windows(r *rand.Rand) (all []Windows) {
	for c := 1; c <= 100; c++ {
		w := Windows{C: c, Pixel: c + r.IntN(3), N: 1 + r.IntN(3), Rows: 1 + r.IntN(4), Cols: 1 + r.IntN(4)}
		w.Stride, w.Size = 1+r.IntN(3), w.Cols+r.IntN(3)
		w.Row, w.RowArg, w.Step = (w.Cols+3)*w.Pixel, (w.Cols+2)*w.Pixel, w.Stride*w.Pixel
		w.Place = r.IntN(5)
		all = append(all, w)
	}
	all[99].Place = math.MaxUint16 - all[99].Rows*all[99].Size // the greatest places
	return all
}

func TestPool(t *testing.T) {
	var places [][]uint16
	eachPoints(t, func(t *testing.T, p *Points, r *rand.Rand) (results [][]float32) {
		var args [][]uint16
		for _, w := range windows(r) {
			x := numbers(r, (w.N-1)*w.Step+(w.Rows-1)*w.Row+(w.Cols-1)*w.Pixel+w.C)
			for i := range x {
				if r.IntN(2) == 0 { // ties
					x[i] = float32(r.IntN(3))
				}
			}
			x = fenced(t, r, x)
			n := (w.N-1)*w.Pixel + w.C
			y, alone, arg := fenced(t, r, make([]float32, n)), fenced(t, r, make([]float32, n)), fenced(t, r, make([]uint16, n))
			p.Pool(y, arg, x, w)
			p.Pool(alone, nil, x, w)
			same(t, "y without places", alone, y)
			for o := range w.N {
				for i := range w.C {
					v, at := y[o*w.Pixel+i], int(arg[o*w.Pixel+i])-w.Place
					if u := x[o*w.Step+at/w.Size*w.Row+at%w.Size*w.Pixel+i]; u != v && u == u {
						t.Fatalf("place %d of a window holds %v, not its greatest %v", at, u, v)
					}
				}
			}
			results, args = append(results, y), append(args, arg)
		}
		if places == nil {
			places = args
		}
		for i := range args {
			same(t, "arg", args[i], places[i])
		}
		return results
	})
}

func TestPoolGrad(t *testing.T) {
	eachPoints(t, func(t *testing.T, p *Points, r *rand.Rand) (results [][]float32) {
		for _, w := range windows(r) {
			if w.Place < 1000 { // as it must be: no place is below zero
				w.Place = ((w.Rows-1)*w.Size + w.Cols - 1) * w.Stride
			}
			last := (w.N+w.Cols-2)*w.Pixel + w.C
			dy, arg := fenced(t, r, numbers(r, last+(w.Rows-1)*w.Row)), fenced(t, r, make([]uint16, last+(w.Rows-1)*w.RowArg))
			for i := range arg {
				arg[i] = uint16(w.Place - (r.IntN(w.Rows)*w.Size+r.IntN(w.Cols))*w.Stride)
			}
			dx := fenced(t, r, numbers(r, (w.N-1)*w.Step+w.C))
			p.PoolGrad(dx, dy, arg, w)
			results = append(results, dx)
		}
		return results
	})
}

func TestMean(t *testing.T) {
	eachPoints(t, func(t *testing.T, p *Points, r *rand.Rand) (results [][]float32) {
		for _, w := range windows(r) {
			w.Next, w.Divisor = w.C+r.IntN(3), float32(1+r.IntN(9))
			x := fenced(t, r, numbers(r, (w.N-1)*w.Step+(w.Rows-1)*w.Row+(w.Cols-1)*w.Pixel+w.C))
			y := fenced(t, r, make([]float32, (w.N-1)*w.Next+w.C))
			p.Mean(y, x, w)
			// Windows of one element may be divided where they are.
			z := fenced(t, r, x)
			alone := Windows{C: w.C, Pixel: w.C, N: 1, Rows: 1, Cols: 1, Divisor: w.Divisor}
			p.Mean(z, z, alone)
			for i, v := range z[:w.C] {
				if v != x[i]/w.Divisor && v == v {
					t.Fatalf("%v divided by %v is %v", x[i], w.Divisor, v)
				}
			}
			results = append(results, y, z)
		}
		return results
	})
}

func TestDropout(t *testing.T) {
	key := net.RandomKey{Seed: 0xfedcba9876543210, Step: 0x0123456789abcdef, Layer: 0x80000001}
	for _, l := range Levels() {
		t.Run(l.String(), func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 1))
			for n := range 101 {
				for _, keep := range []float32{0.5, 0.9, 1e-12, 1 - 0x1p-24} {
					block := r.IntN(1000)
					if n%2 == 1 {
						block = 1<<32 - 1 - n/8 // the block's number turns over
					}
					x := fenced(t, r, numbers(r, n))
					y, want, mask := fenced(t, r, x), make([]float32, n), make([]float32, n)
					if n%2 == 0 {
						net.DropoutMask(mask, 4*block, keep, key)
					} else {
						for i := range mask {
							if uint64(key.Block(uint32(block + i/4))[i%4]) < net.KeepLimit(keep) {
								mask[i] = 1 / keep
							}
						}
					}
					for i, m := range mask {
						if m != 0 {
							want[i] = x[i] * m
						}
					}
					PointsOf(l).Dropout(y, x, key, uint32(block), uint32(net.KeepLimit(keep)), 1/keep)
					same(t, "y", y, want)
					PointsOf(l).Dropout(x, x, key, uint32(block), uint32(net.KeepLimit(keep)), 1/keep)
					same(t, "y in place", x, want)
				}
			}
		})
	}
}

func TestAffine(t *testing.T) {
	mean, shift, scale := [3]float32{123.68, 116.78, 103.94}, [3]float32{-7.3, 0.1, 5}, [3]float32{1. / 58.4, 1, 0.017}
	for _, l := range Levels() {
		t.Run(l.String(), func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 1))
			for _, swap := range []bool{false, true} {
				var a Affine
				a.Set(mean, shift, scale, swap)
				for pixels := range 101 {
					bytes := make([]byte, 3*pixels)
					for i := range bytes {
						bytes[i] = byte(r.IntN(256))
					}
					src, dst := fenced(t, r, bytes), fenced(t, r, make([]float32, 3*pixels))
					image := fenced(t, r, make([]float32, 3*pixels))
					for i := range image {
						image[i] = 255 * r.Float32()
					}
					for _, own := range []bool{false, true} {
						if own {
							PointsOf(l).AffineImage(dst, src, image, &a)
						} else {
							PointsOf(l).Affine(dst, src, &a)
						}
						for i, v := range dst {
							c := i % 3
							if swap {
								c = 2 - c
							}
							less := mean[c]
							if own {
								less = image[i]
							}
							if want := (float32(bytes[i-i%3+c]) - less + shift[c]) * scale[c]; v != want {
								t.Fatalf("number %d of %d pixels is %v, want %v", i, pixels, v, want)
							}
						}
					}
					if !slices.Equal(src, bytes) {
						t.Fatal("the bytes changed")
					}
				}
			}
		})
	}
}

// TestShortSlices holds every loop to its slices: too short a one panics before
// anything is written outside.
func TestShortSlices(t *testing.T) {
	f := func(n int) []float32 { return make([]float32, n) }
	n := Norm{C: 8, Size: 5, Stride: 12, Beta: 0.75}
	w := Windows{C: 8, Pixel: 8, N: 2, Rows: 2, Cols: 2, Row: 40, RowArg: 40, Step: 8, Size: 2, Stride: 1}
	mean := w
	mean.Next = 8
	for _, l := range Levels() {
		p := PointsOf(l)
		for name, call := range map[string]func(){
			"Add":         func() { p.Add(f(20), f(20), f(19)) },
			"ReLUGrad":    func() { p.ReLUGrad(f(20), f(19)) },
			"SGD":         func() { p.SGD(f(20), f(19), f(20), net.SGD{}) },
			"Squares":     func() { p.Squares(f(19), f(16), n) },
			"Norm":        func() { p.Norm(f(16), nil, f(16), f(23), n) },
			"Norm scale":  func() { p.Norm(f(16), f(15), f(16), f(24), n) },
			"Norm pixels": func() { p.Norm(f(15), nil, f(15), f(60), n) },
			"Ratios":      func() { p.Ratios(f(24), f(16), f(16), f(16), f(15), n) },
			"NormGrad":    func() { p.NormGrad(f(16), f(15), f(16), f(24), n) },
			"Pool":        func() { p.Pool(f(16), nil, f(63), w) },
			"Pool arg":    func() { p.Pool(f(16), make([]uint16, 15), f(64), w) },
			"PoolGrad":    func() { p.PoolGrad(f(16), f(63), make([]uint16, 64), w) },
			"Mean":        func() { p.Mean(f(16), f(63), mean) },
			"Mean y":      func() { p.Mean(f(15), f(64), mean) },
			"Dropout":     func() { p.Dropout(f(40), f(39), net.RandomKey{}, 0, 1, 1) },
			"Affine":      func() { p.Affine(f(24), make([]byte, 23), &Affine{}) },
			"AffineImage": func() { p.AffineImage(f(24), make([]byte, 24), f(23), &Affine{}) },
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%v: %s took too short a slice", l, name)
					}
				}()
				call()
			}()
		}
	}
}
