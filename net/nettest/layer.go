package nettest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"sluice/net"
)

// TestLayer checks a layer of one input, of 2 x 3 x 4 x 5 numbers: that Forward gives the
// same twice, and that Backward gives the gradient of what Forward computes, for the input and
// for every parameter, within a hundredth. No number lies near 0, where a layer may have a corner.
func TestLayer(t testing.TB, layer net.Layer) {
	t.Helper()
	if err := checkLayer(layer); err != nil {
		t.Error(err)
	}
}

func checkLayer(layer net.Layer) error {
	shape := net.Shape{N: 2, C: 3, H: 4, W: 5}
	plan, err := layer.Plan([]net.Shape{shape})
	if err != nil {
		return fmt.Errorf("the plan for an input of %v: %w", shape, err)
	}
	e := NewReference()
	specs := []net.Spec{{Shape: shape, To: -1}, {Shape: shape, To: -1}, {Shape: plan.Out, To: -1}, {Shape: plan.Out, To: -1}}
	for range 2 { // values, gradients
		for _, p := range plan.Params {
			specs = append(specs, net.Spec{Shape: p.Shape, Kind: p.Kind, Groups: p.Groups, To: -1})
		}
	}
	for _, s := range plan.Saved {
		s.To = -1
		specs = append(specs, s)
	}
	ts, err := e.Alloc(specs)
	if err != nil {
		return err
	}
	n := len(plan.Params)
	f := &net.Frame{X: ts[:1], DX: ts[1:2], Y: ts[2], DY: ts[3], W: ts[4 : 4+n], DW: ts[4+n : 4+2*n], Saved: ts[4+2*n:], Train: true}

	rng := rand.New(rand.NewPCG(1, 2))
	random := func(to *net.Tensor) []float32 {
		v := make([]float32, to.Shape.Len())
		for i := range v {
			v[i] = (0.1 + 2*rng.Float32()) * float32(1-2*rng.IntN(2))
		}
		e.Upload(to, v)
		return v
	}
	wanted := append(slices.Clone(f.X), f.W...)
	var values [][]float32
	for _, to := range wanted {
		values = append(values, random(to))
	}
	dy := random(f.DY)
	y := make([]float32, len(dy))
	forward := func() (loss float64) { // whose gradient at Y is DY
		layer.Forward(e, f)
		e.Download(y, f.Y)
		for i, v := range y {
			loss += float64(v) * float64(dy[i])
		}
		return loss
	}
	if first := forward(); forward() != first {
		return fmt.Errorf("%T: Forward gives different numbers for the same input", layer)
	}
	layer.Backward(e, f)
	const step = 1. / 64
	for k, got := range append(slices.Clone(f.DX), f.DW...) {
		what := "the input"
		if k > 0 {
			what = plan.Params[k-1].Name
		}
		gradient := make([]float32, got.Shape.Len())
		e.Download(gradient, got)
		moved := slices.Clone(values[k])
		for i, v := range values[k] {
			moved[i] = v + step
			e.Upload(wanted[k], moved)
			up := forward()
			moved[i] = v - step
			e.Upload(wanted[k], moved)
			down := forward()
			moved[i] = v
			want := (up - down) / (2 * step)
			if g := float64(gradient[i]); !(math.Abs(g-want) <= 0.01*(1+math.Abs(want))) {
				return fmt.Errorf("%T: the gradient of number %d of %s is %g by Backward, and Forward's output changes by %g", layer, i, what, g, want)
			}
		}
		e.Upload(wanted[k], values[k])
	}
	return e.Sync()
}
