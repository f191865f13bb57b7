//go:build cuda && linux

package cuda

import (
	"math"
	"math/rand/v2"
	"testing"

	"sluice/net"
)

// rounded is v as tensor cores take it: ten bits after the point, to nearest.
func rounded(v []float32) []float32 {
	r := make([]float32, len(v))
	for i, x := range v {
		r[i] = math.Float32frombits((math.Float32bits(x) + 0x1000) &^ 0x1fff)
	}
	return r
}

// layer is a convolution, or a dense layer where g has no size.
type layer struct {
	n, c, h, w, o int
	g             net.Conv
}

// pass computes all passes of l from the same numbers, rounded or not.
func (l layer) pass(t *testing.T, e *Engine, round bool) [][]float32 {
	t.Helper()
	x, wKind := net.Shape{N: l.n, C: l.c, H: l.h, W: l.w}, net.Filter
	y, w := net.Shape{N: l.n, C: l.o, H: 1, W: 1}, net.Shape{N: l.o, C: l.c, H: l.h, W: l.w}
	if g := l.g; g.Size > 0 {
		y.H, y.W = (l.h+2*g.Pad-g.Size)/g.Stride+1, (l.w+2*g.Pad-g.Size)/g.Stride+1
		w = net.Shape{N: l.o, C: l.c / max(g.Groups, 1), H: g.Size, W: g.Size}
	} else {
		wKind = net.Matrix
	}
	b := net.Shape{N: 1, C: l.o, H: 1, W: 1}
	var specs []net.Spec
	for _, s := range []net.Spec{{Shape: x}, {Shape: y}, {Shape: x}, {Shape: y}, {Shape: w, Kind: wKind, Groups: l.g.Groups}, {Shape: w, Kind: wKind, Groups: l.g.Groups},
		{Shape: b, Kind: net.Vector}, {Shape: b, Kind: net.Vector}} {
		s.Name, s.To = []string{"x", "y", "dx", "dy", "w", "dw", "b", "db"}[len(specs)], -1
		specs = append(specs, s)
	}
	ts, err := e.Alloc(specs)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(7, uint64(l.c)))
	for _, i := range []int{0, 3, 4, 6} {
		v := make([]float32, ts[i].Shape.Len())
		for k := range v {
			v[k] = float32(r.NormFloat64())
		}
		if round && i != 6 { // a bias is added as it is
			v = rounded(v)
		}
		e.Upload(ts[i], v)
	}
	if l.g.Size > 0 {
		e.Conv(ts[1], ts[0], ts[4], ts[6], l.g)
		e.ConvGrad(ts[2], ts[5], ts[7], ts[3], ts[1], ts[0], ts[4], l.g)
	} else {
		e.Dense(ts[1], ts[0], ts[4], ts[6], net.None)
		e.DenseGrad(ts[2], ts[5], ts[7], ts[3], ts[1], ts[0], ts[4], net.None)
	}
	var all [][]float32
	for _, i := range []int{1, 2, 5, 7} {
		v := make([]float32, ts[i].Shape.Len())
		e.Download(v, ts[i])
		all = append(all, v)
	}
	if err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	return all
}

// Tensor cores give, of any numbers, what float32 gives of the rounded ones: products of
// such are exact in both, and the sums differ in their order alone.
func TestTF32(t *testing.T) {
	layers := []layer{
		{2, 3, 23, 23, 12, net.Conv{Size: 7, Stride: 2}},                   // numbers one at a time
		{2, 16, 9, 9, 24, net.Conv{Size: 5, Stride: 1, Pad: 2, Groups: 2}}, // four at a time
		{1, 72, 10, 9, 80, net.Conv{Size: 3, Stride: 1, Pad: 1}},           // tiles of 128, with edges
		{1, 67, 10, 9, 70, net.Conv{Size: 3, Stride: 1, Pad: 1}},           // and one at a time
		{3, 8, 12, 12, 12, net.Conv{Size: 3, Stride: 2, Pad: 1}},           // gradients with holes
		{70, 24, 2, 3, 66, net.Conv{}}, {9, 5, 1, 1, 7, net.Conv{}},        // dense
		{4, 4, 30, 30, 8, net.Conv{Size: 3, Stride: 1, Pad: 1, Act: net.None}},  // sums of weights in parts
		{1, 1, 1, 1, 1, net.Conv{Size: 1, Stride: 1}},                           // nothing smaller
		{2, 20, 3, 3, 130, net.Conv{Size: 3, Stride: 1, Pad: 1, Act: net.Tanh}}, // more outputs than a tile
	}
	for _, l := range layers {
		exact, fast := open(t), open(t)
		fast.UseTF32()
		want := l.pass(t, exact, true)
		for _, round := range []bool{true, false} {
			if !round && l.g.Act == net.Tanh {
				continue // whose slope, told by y, is not rounded alike
			}
			got := l.pass(t, fast, round)
			for i, name := range []string{"y", "dx", "dw"} {
				var off, size float64
				for k, v := range want[i] {
					d := float64(got[i][k]) - float64(v)
					off, size = off+d*d, size+float64(v)*float64(v)
				}
				if e := math.Sqrt(off / size); !(e <= 2e-6) && !(l.g.Act == net.Tanh && e <= 1e-3) {
					t.Errorf("%+v: %s is off by %.2g of its size", l, name, e)
				}
			}
		}
		again := l.pass(t, fast, false)
		for i, v := range l.pass(t, fast, false) {
			for k := range v {
				if v[k] != again[i][k] {
					t.Fatalf("%+v: two runs differ", l)
				}
			}
		}
	}
	e := open(t)
	e.UseTF32()
	if e.Name() != "cuda ("+e.device.Name+", tf32)" {
		t.Errorf("the engine is %q", e.Name())
	}
	// It learns, and not to the bits of float32.
	losses, _ := train(t, e, 20)
	if losses[19] > 0.8*losses[0] {
		t.Errorf("nothing was learnt: the losses are %v", losses)
	}
}
