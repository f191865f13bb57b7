package host

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"sluice/gpu/host/simd"
	"sluice/net"
)

// What an op finds in scratch memory is nothing to it, and the lanes of weight
// gradients beyond the last output stay zero: an update carries them into the
// weights, and the data gradient multiplies with those.
func TestScratchIsOverwrittenAndTailsAreZero(t *testing.T) {
	for _, level := range simd.Levels() {
		t.Run(level.String(), func(t *testing.T) { overwritten(t, New(2, level, WithWinograd(Nowhere))) })
		t.Run(level.String()+"/winograd", func(t *testing.T) { overwritten(t, New(2, level, WithWinograd(Everywhere))) })
	}
}

func overwritten(t *testing.T, e *Engine) {
	defer e.Close()
	vector := func(n int) net.Spec {
		return net.Spec{Shape: net.Shape{N: 1, C: n, H: 1, W: 1}, Kind: net.Vector, To: -1}
	}
	image := func(n, c, side, halo int) net.Spec {
		return net.Spec{Shape: net.Shape{N: n, C: c, H: side, W: side}, Kind: net.Map, Halo: halo, To: -1}
	}
	filter := func(o, c, side, groups int) net.Spec {
		return net.Spec{Shape: net.Shape{N: o, C: c, H: side, W: side}, Kind: net.Filter, Groups: groups, To: -1}
	}
	matrix := func(o, c, side int) net.Spec {
		s := filter(o, c, side, 0)
		s.Kind = net.Matrix
		return s
	}
	small, large := net.Conv{Size: 3, Stride: 2, Pad: 1, Groups: 2, Act: net.ReLU}, net.Conv{Size: 3, Stride: 1, Pad: 1}
	r := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		name           string
		x, y, w, b     net.Spec
		forward, delta func(dx, dw, db, dy, y, x, w, b *net.Tensor)
	}{
		{"conv of few weights", image(3, 14, 7, 0), image(3, 10, 4, 0), filter(10, 7, 3, 2), vector(10),
			func(_, _, _, _, y, x, w, b *net.Tensor) { e.Conv(y, x, w, b, small) },
			func(dx, dw, db, dy, y, x, w, _ *net.Tensor) { e.ConvGrad(dx, dw, db, dy, y, x, w, small) }},
		{"conv of many weights", image(2, 120, 4, 1), image(2, 70, 4, 1), filter(70, 120, 3, 0), vector(70),
			func(_, _, _, _, y, x, w, b *net.Tensor) { e.Conv(y, x, w, b, large) },
			func(dx, dw, db, dy, y, x, w, _ *net.Tensor) { e.ConvGrad(dx, dw, db, dy, y, x, w, large) }},
		{"dense", image(5, 30, 5, 1), image(5, 45, 1, 0), matrix(45, 30, 5), vector(45),
			func(_, _, _, _, y, x, w, b *net.Tensor) { e.Dense(y, x, w, b, net.Tanh) },
			func(dx, dw, db, dy, y, x, w, _ *net.Tensor) { e.DenseGrad(dx, dw, db, dy, y, x, w, net.Tanh) }},
	} {
		ts, err := e.Alloc([]net.Spec{c.x, c.x, c.y, c.y, c.w, c.w, c.b, c.b})
		if err != nil {
			t.Fatal(err)
		}
		x, dx, y, dy, w, dw, b, db := ts[0], ts[1], ts[2], ts[3], ts[4], ts[5], ts[6], ts[7]
		deltas := random(r, c.y.Shape.Len())
		e.Upload(x, random(r, c.x.Shape.Len()))
		e.Upload(w, random(r, c.w.Shape.Len()))
		run := func() (all []float32) {
			e.Upload(dy, deltas)
			c.forward(dx, dw, db, dy, y, x, w, b)
			c.delta(dx, dw, db, dy, y, x, w, b)
			for _, t := range []*net.Tensor{y, dx, dw, db} {
				all = append(all, t.Mem.(*memory).f...)
			}
			return all
		}
		run()
		want := run()
		poison(e, dw)
		got := run()
		if err := e.Sync(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) { // NaN equals nothing
			t.Errorf("%s: what was in scratch memory changes the result", c.name)
		}
		panels := openWeight(dw)
		lanes := panels.tiles.Lanes
		for i, v := range panels.f {
			if o := i/(panels.k*lanes)%panels.panels*lanes + i%lanes; o >= panels.o && v != 0 {
				t.Fatalf("%s: element %d of dw, beyond the last output, is %g", c.name, i, v)
			}
		}
	}
}

func random(r *rand.Rand, n int) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = float32(r.NormFloat64())
	}
	return s
}

// poison fills all that an op may overwrite with NaN.
func poison(e *Engine, tensors ...*net.Tensor) {
	buffers := [][]float32{e.scratch, e.flatX, e.bias}
	for _, w := range e.workers {
		buffers = append(buffers, w.buf, w.alt, w.tile)
	}
	for _, t := range tensors {
		buffers = append(buffers, t.Mem.(*memory).f)
	}
	for _, b := range buffers {
		for i := range b {
			b[i] = float32(math.NaN())
		}
	}
}
