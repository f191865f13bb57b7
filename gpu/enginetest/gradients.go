package enginetest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"sluice/net"
)

// testGradients is what is done with gradients between the backward pass and the
// update: adding up, norms, scaling; and the peaks of activations.
func testGradients(t *testing.T, newEngine func() net.Engine) {
	e := open(t, newEngine)
	r := rand.New(rand.NewPCG(1, 2))
	out := alloc(t, e, vector("out", 40))[0]
	for _, spec := range []net.Spec{
		{Name: "filter", Shape: net.Shape{N: 10, C: 3, H: 2, W: 2}, Kind: net.Filter, Groups: 2, To: -1},
		{Name: "matrix", Shape: net.Shape{N: 301, C: 70, H: 4, W: 2}, Kind: net.Matrix, To: -1}, // more than a block
		vector("bias", 13),
	} {
		// In memory that was another's: the lanes that are no output count for nothing.
		before := spec
		before.Name, before.From, before.To = "before", 0, 0
		spec.From, spec.To = 1, 2
		ts := alloc(t, e, spec, spec, spec, before, before, before)
		n := spec.Shape.Len()
		for _, b := range ts[3:] {
			e.Upload(b, filled(n, float32(math.NaN())))
		}
		a, b := normal(r, n), normal(r, n)
		e.Upload(ts[0], a)
		e.Upload(ts[1], b)
		sum, scaled, held, square := make([]float64, n), make([]float64, n), make([]float64, n), 0.
		for i := range sum {
			sum[i] = float64(a[i] + b[i])
			scaled[i] = float64(float32(sum[i]) * 0.25)
			held[i] = max(-0.3, min(0.3, scaled[i]))
			square += scaled[i] * scaled[i]
		}
		for i := range held {
			if math.Abs(held[i]) == 0.3 {
				held[i] = math.Copysign(float64(float32(0.3)), held[i])
			}
		}
		e.Add(ts[1], ts[0], ts[1])
		compare(t, spec.Name+" summed", get(e, ts[1]), sum, 0)
		e.Scale(ts[2], ts[1], 0.25, 0)
		compare(t, spec.Name+" scaled", get(e, ts[2]), scaled, 0)
		e.Upload(out, filled(40, -7))
		e.Norm(out, 5, ts[2])
		want := make([]float64, 40)
		for i := range want {
			want[i] = -7
		}
		want[5] = math.Sqrt(square)
		compare(t, spec.Name+" norm and what is beside it", get(e, out), want, 1e-7)
		e.Scale(ts[1], ts[1], 0.25, 0.3)
		compare(t, spec.Name+" held", get(e, ts[1]), held, 0)

		for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
			a[n-1] = float32(bad)
			e.Upload(ts[0], a)
			e.Norm(out, 0, ts[0])
			if v := get(e, out)[0]; v-v == 0 {
				t.Errorf("the norm of %s with a %v is %v", spec.Name, bad, v)
			}
		}
		// Squares beyond float32 have a norm within.
		e.Upload(ts[0], filled(n, 1e30))
		e.Norm(out, 0, ts[0])
		compare(t, spec.Name+" large norm", get(e, out)[:1], []float64{1e30 * math.Sqrt(float64(n))}, 1e-6)
		sync(t, e)
	}

	for _, s := range []net.Spec{mapSpec("map", 3, 7, 4, 5, 2), mapSpec("many", 33, 40, 1, 1, 0), mapSpec("one", 1, 1, 1, 1, 1)} {
		x := alloc(t, e, s)[0]
		v := normal(r, x.Shape.Len())
		for i := range v {
			v[i] = -max(0, v[i]) // none above 0, as padding and what is in no channel must not count
		}
		v[0] = float32(math.NaN())
		e.Upload(x, v)
		e.Upload(out, make([]float32, 40))
		e.Peaks(out, 0, x)
		want := filled(40, 0)
		for c := range x.Shape.C {
			want[c] = float32(math.Inf(-1))
		}
		for i, w := range v {
			if c := i / (s.Shape.H * s.Shape.W) % s.Shape.C; w > want[c] || w != w {
				want[c] = w
			}
		}
		compare(t, fmt.Sprintf("peaks of %s", s.Name), get(e, out), wide(want), 0)
		sync(t, e)
	}
}
