package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

func eachWinograd(t *testing.T, f func(t *testing.T, w *Winograd, r *rand.Rand)) {
	for _, l := range Levels() {
		for _, w := range Winograds(l) {
			t.Run(fmt.Sprintf("%v/F(%d,%d)", l, w.Out, w.Size), func(t *testing.T) {
				f(t, w, rand.New(rand.NewPCG(uint64(l), uint64(w.Out))))
			})
		}
	}
}

// square is side x side places of n numbers between guards, step numbers apart,
// and a Patch of it.
type square struct {
	f             []float32
	side, step, n int
}

func newSquare(t *testing.T, side, n, gap int) *square {
	return &square{f: guarded(t, (side*side-1)*(n+gap)+n), side: side, step: n + gap, n: n}
}

func (s *square) at(i, j, c int) *float32 { return &s.f[(i*s.side+j)*s.step+c] }

func (s *square) patch(planes *square) *Patch {
	p := &Patch{Step: 4 * s.step, To: s.side, High: s.side, Planes: &planes.f[0], Plane: 4 * planes.step, N: s.n, Low: float32(math.Inf(-1))}
	for i := range s.side {
		p.Rows[i] = s.at(i, 0, 0)
	}
	return p
}

// winoTolerance is what one product, not a sum, may be off by, of its size.
const winoTolerance = 2e-5

// What a filter's and an image's planes multiply to is the convolution, and the
// gradients' are its gradients. Numbers of channels that are no whole vectors are
// done, and nothing beside them is touched.
func TestWinogradIsConvolution(t *testing.T) {
	eachWinograd(t, func(t *testing.T, w *Winograd, r *rand.Rand) {
		for _, n := range []int{1, 7, 8, 15, 16, 17, 33, 48} {
			gap := r.IntN(3)
			x, filter, dy := newSquare(t, w.Side, n, gap), newSquare(t, w.Size, n, 0), newSquare(t, w.Out, n, gap)
			var planes [3]*square
			for i := range planes {
				planes[i] = newSquare(t, w.Side, n, gap)
			}
			v, u, d := planes[0], planes[1], planes[2]
			for _, s := range []*square{x, filter, dy} {
				fill(r, s.f)
			}
			w.Image(x.patch(v))
			w.Filter(filter.patch(u))
			w.OutputGrad(dy.patch(d))
			y, dw := newSquare(t, w.Out, n, 1), newSquare(t, w.Size, n, 2)
			m, dm := newSquare(t, w.Side, n, 0), newSquare(t, w.Side, n, 3)
			for i := range w.Side {
				for j := range w.Side {
					for c := range n {
						*dm.at(i, j, c) = *v.at(i, j, c) * *d.at(i, j, c)
						*m.at(i, j, c) = *v.at(i, j, c) * *u.at(i, j, c)
					}
				}
			}
			w.Output(y.patch(m))
			w.FilterGrad(dw.patch(dm))
			sum := func(a, b *square, i, j, side, c int) (sum, size float64) {
				for h := range side {
					for k := range side {
						p := float64(*a.at(i+h, j+k, c)) * float64(*b.at(h, k, c))
						sum, size = sum+p, size+math.Abs(p)
					}
				}
				return sum, size
			}
			for c := range n {
				for i := range w.Out {
					for j := range w.Out {
						if want, size := sum(x, filter, i, j, w.Size, c); math.Abs(float64(*y.at(i, j, c))-want) > winoTolerance*(1+size) {
							t.Fatalf("%d channels: y[%d][%d][%d] is %g, want %g", n, i, j, c, *y.at(i, j, c), want)
						}
					}
				}
				for i := range w.Size {
					for j := range w.Size {
						if want, size := sum(x, dy, i, j, w.Out, c); math.Abs(float64(*dw.at(i, j, c))-want) > winoTolerance*(1+size) {
							t.Fatalf("%d channels: dw[%d][%d][%d] is %g, want %g", n, i, j, c, *dw.at(i, j, c), want)
						}
					}
				}
			}
		}
	})
}

// A patch that lies over the border has zeros where there is no image, which it
// does not read, and writes only outputs that there are.
func TestWinogradOverTheBorder(t *testing.T) {
	eachWinograd(t, func(t *testing.T, w *Winograd, r *rand.Rand) {
		const n = 19
		for range 40 {
			top, bottom, from, to := r.IntN(w.Side), 1+r.IntN(w.Side), r.IntN(w.Side), r.IntN(w.Side+1)
			to = max(to, from)
			zeros := guarded(t, (w.Side-1)*n+n)
			clear(zeros)
			whole := newSquare(t, w.Side, n, 0)
			part := guarded(t, max(1, (to-from-1)*n+n))
			got, want := newSquare(t, w.Side, n, 1), newSquare(t, w.Side, n, 1)
			clear(whole.f)
			fill(r, part)
			p := whole.patch(want)
			q := *p
			q.Planes, q.From, q.To = &got.f[0], from, to
			for i := range w.Side {
				q.Rows[i] = &zeros[0]
				if i >= top && i < bottom {
					q.Rows[i] = &part[0] // one row does for all
					for j := from; j < to; j++ {
						copy(whole.f[(i*w.Side+j)*n:][:n], part[(j-from)*n:])
					}
				}
			}
			w.Image(p)
			w.Image(&q)
			for i := range got.f {
				if got.f[i] != want.f[i] {
					t.Fatalf("rows %d to %d, columns %d to %d: number %d is %g, want %g", top, bottom, from, to, i, got.f[i], want.f[i])
				}
			}

			high, wide := 1+r.IntN(w.Out), 1+r.IntN(w.Out)
			out, all := newSquare(t, w.Out, n, 0), newSquare(t, w.Out, n, 0)
			bias := fill(r, guarded(t, n))
			for i := range out.f {
				out.f[i] = guard
			}
			for i := range got.f { // gaps too, which are never read
				got.f[i] = float32(r.NormFloat64())
			}
			*got.at(2, 3, 5) = float32(math.NaN())
			q = *out.patch(got)
			w.Output(all.patch(got))
			q.High, q.To, q.Bias, q.Low = high, wide, &bias[0], 0
			w.Output(&q)
			for i := range w.Out {
				for j := range w.Out {
					for c := range n {
						want := *all.at(i, j, c) + bias[c]
						switch {
						case i >= high || j >= wide:
							want = guard
						case want < 0:
							want = 0
						}
						if v := *out.at(i, j, c); v != want && (v == v || want == want) {
							t.Fatalf("%d x %d outputs: %d,%d,%d is %g, want %g", high, wide, i, j, c, v, want)
						}
					}
				}
			}
			if v := *out.at(0, 0, 5); v == v {
				t.Fatalf("of a NaN came %g", v)
			}
		}
	})
}

func BenchmarkWinograd(b *testing.B) {
	const n = 256
	for _, l := range Levels() {
		for _, w := range Winograds(l) {
			patch, planes := make([]float32, w.Side*w.Side*n), make([]float32, w.Side*w.Side*(n+16))
			p := &Patch{Step: 4 * n, Planes: &planes[0], Plane: 4 * (n + 16), N: n, Low: float32(math.Inf(-1))}
			for i := range w.Side {
				p.Rows[i] = &patch[i*w.Side*n]
			}
			for _, f := range []struct {
				name string
				side int
				f    func(*Patch)
			}{{"image", w.Side, w.Image}, {"filter", w.Size, w.Filter}, {"output", w.Out, w.Output}, {"output grad", w.Out, w.OutputGrad}, {"filter grad", w.Size, w.FilterGrad}} {
				b.Run(fmt.Sprintf("%v/F(%d,%d)/%s", l, w.Out, w.Size, f.name), func(b *testing.B) {
					p.To, p.High = f.side, f.side
					for b.Loop() {
						f.f(p)
					}
				})
			}
		}
	}
}
