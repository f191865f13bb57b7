package host

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"sluice/gpu/host/simd"
	"sluice/net"
)

// Scratch memory is there once tensors are, and Size has counted it.
func TestWinogradIsPlanned(t *testing.T) {
	for _, level := range simd.Levels() {
		e := New(3, level, WithWinograd(Everywhere))
		defer e.Close()
		strided := net.NewConv(10, 6)
		strided.Stride, strided.Padding = 2, 2
		plan, err := (net.Graph{Input: net.InputOptions{Scale: net.Triple{1, 1, 1}, Channels: "rgb"}, Layers: []net.Node{
			{Name: "conv0", Layer: strided}, {Name: "conv1", Layer: net.NewConv(20, 5)}, {Name: "conv2", Layer: net.NewConv(40, 3)}, {Name: "conv3", Layer: net.NewConv(30, 5)},
			{Name: "fc4", Layer: net.NewDense(0)}, {Name: "softmax", Layer: net.SoftmaxLayer{}},
		}}).Def().Plan(6, 60, 60, 5)
		if err != nil {
			t.Fatal(err)
		}
		specs := plan.Specs(true)
		with := e.Size(specs)
		n, err := net.New(t.Context(), e, plan, 1, true)
		if err != nil {
			t.Fatal(err)
		}
		scratch := func() (floats int) {
			floats = len(e.scratch)
			for _, w := range e.workers {
				floats += len(w.buf) + len(w.alt)
			}
			return floats
		}
		before := scratch()
		e.winograd = Nowhere
		if without := e.Size(specs); with < without+4*int64(before) {
			t.Errorf("%v: Size is %d, of which %d are tensors and %d scratch memory", level, with, without, 4*before)
		}
		e.winograd = Everywhere
		in, err := n.NewInput()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if err := in.Load(net.ImageBatch{N: 6, Pixels: make([]byte, 6*60*60*3), Labels: make([]int32, 6)}); err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		step := func() {
			if err := n.Forward(ctx, in, 0, true); err != nil {
				t.Fatal(err)
			}
			n.Backward(ctx)
		}
		step()
		if _, err := n.Stats(); err != nil {
			t.Fatal(err)
		}
		if _, transformed := e.Passes(); transformed != 11 { // none for the images' gradient
			t.Errorf("%v: %d passes by Winograd's algorithm", level, transformed)
		}
		if after := scratch(); after > before {
			t.Errorf("%v: %d floats of scratch memory were planned, and a step took %d", level, before, after)
		}
		if allocs := testing.AllocsPerRun(5, step); allocs > 0 {
			t.Errorf("%v: a step allocates %g times", level, allocs)
		}
	}
}

// The form is the one with the least work: of few channels the transforms are all
// there is to do, and for 16 outputs a side no tile of 5 is left half empty.
func TestWinogradWhereItPays(t *testing.T) {
	e := New(1, simd.Generic)
	defer e.Close()
	for _, c := range []struct {
		n, side, in, out int
		g                net.Conv
		want             int // outputs of a tile; 0: direct
	}{
		{128, 27, 48, 128, net.Conv{Size: 5, Stride: 1, Groups: 2}, 3},
		{128, 13, 256, 384, net.Conv{Size: 3, Stride: 1}, 5},
		{128, 16, 64, 64, net.Conv{Size: 3, Stride: 1}, 4},
		{128, 13, 256, 384, net.Conv{Size: 3, Stride: 2}, 0},
		{128, 55, 3, 96, net.Conv{Size: 11, Stride: 1}, 0},
		{128, 55, 3, 96, net.Conv{Size: 11, Stride: 4}, 5},
		{128, 55, 3, 96, net.Conv{Size: 11, Stride: 3}, 0}, // 4 cells
		{128, 55, 48, 96, net.Conv{Size: 11, Stride: 4, Groups: 2}, 0},
		{128, 14, 64, 64, net.Conv{Size: 5, Stride: 4}, 0},
		{128, 32, 3, 8, net.Conv{Size: 3, Stride: 1}, 0},
		{128, 1, 64, 64, net.Conv{Size: 3, Stride: 1}, 0},
		{1, 13, 256, 384, net.Conv{Size: 3, Stride: 1}, 0}, // the filters would be transformed for one image
	} {
		groups := max(1, c.g.Groups)
		f := e.form(net.Shape{N: c.n, C: c.out * groups, H: c.side, W: c.side}, c.g, net.Shape{N: c.out * groups, C: c.in, H: c.g.Size, W: c.g.Size})
		got := 0
		if f != nil {
			got = f.Out
		}
		if got != c.want {
			t.Errorf("%+v: tiles of %d, want %d", c, got, c.want)
		}
	}
}

// What is not a number stays in the tiles that hold it, in every plane of them.
func TestWinogradKeepsNaN(t *testing.T) {
	for _, level := range simd.Levels() {
		e := New(2, level, WithWinograd(Everywhere))
		defer e.Close()
		image := net.Spec{Name: "x", Shape: net.Shape{N: 2, C: 3, H: 20, W: 20}, Kind: net.Map, To: -1}
		ts, err := e.Alloc([]net.Spec{image, image,
			{Name: "w", Shape: net.Shape{N: 3, C: 3, H: 3, W: 3}, Kind: net.Filter, To: -1}, {Name: "b", Shape: net.Shape{N: 1, C: 3, H: 1, W: 1}, Kind: net.Vector, To: -1}})
		if err != nil {
			t.Fatal(err)
		}
		x, w := make([]float32, image.Shape.Len()), make([]float32, 81)
		for i := range w {
			w[i] = 1
		}
		x[10*20+10] = float32(math.NaN())
		e.Upload(ts[0], x)
		e.Upload(ts[2], w)
		e.Conv(ts[1], ts[0], ts[2], ts[3], net.Conv{Size: 3, Stride: 1, Pad: 1, Act: net.ReLU})
		e.Download(x, ts[1])
		if err := e.Sync(); err != nil {
			t.Fatal(err)
		}
		lost := 0
		for i, v := range x {
			h, w := i/20%20, i%20
			touched := i < 1200 && h >= 9 && h <= 11 && w >= 9 && w <= 11
			if touched && v == v || v != v && (i >= 1200 || h < 4 || h > 15 || w < 4 || w > 15) {
				lost++
			}
		}
		if lost > 0 {
			t.Errorf("%v: a NaN in the image is lost, or lies elsewhere, in %d places", level, lost)
		}
	}
}

// The planes of weights are kept while nothing changes them: that they are used is
// seen by changing the weights behind the engine's back.
func TestWinogradKeepsPlanes(t *testing.T) {
	for _, level := range simd.Levels() {
		e := New(2, level, WithWinograd(Everywhere))
		defer e.Close()
		x := net.Spec{Shape: net.Shape{N: 2, C: 8, H: 9, W: 9}, Kind: net.Map, To: -1}
		w := net.Spec{Shape: net.Shape{N: 8, C: 8, H: 3, W: 3}, Kind: net.Filter, To: -1}
		b := net.Spec{Shape: net.Shape{N: 1, C: 8, H: 1, W: 1}, Kind: net.Vector, To: -1}
		ts, err := e.Alloc([]net.Spec{x, x, w, w, w, b})
		if err != nil {
			t.Fatal(err)
		}
		y, w1, w2, w3 := ts[1], ts[2], ts[3], ts[4]
		e.Upload(ts[0], random(rand.New(rand.NewPCG(1, 1)), x.Shape.Len()))
		forward := func() []float32 {
			e.Conv(y, ts[0], w1, ts[5], net.Conv{Size: 3, Stride: 1, Pad: 1})
			out := make([]float32, x.Shape.Len())
			e.Download(out, y)
			return out
		}
		weights := func(seed uint64) []float32 { return random(rand.New(rand.NewPCG(seed, 2)), w.Shape.Len()) }
		e.Upload(w1, weights(1))
		e.Upload(w2, weights(2))
		e.Upload(w3, weights(3))
		first := forward()
		f := w1.Mem.(*memory).f
		was := slices.Clone(f)
		clear(f)
		e.Download(make([]float32, w.Shape.Len()), w1)
		if !slices.Equal(forward(), first) {
			t.Errorf("%v: the planes of weights that did not change were made again", level)
		}
		copy(f, was)
		last := first
		for name, change := range map[string]func(){
			"Upload": func() { e.Upload(w1, weights(4)) },
			"Copy":   func() { e.Copy(w1, w2) },
			"Add":    func() { e.Add(w1, w1, w2) },
			"Scale":  func() { e.Scale(w1, w1, 0.5, 0) },
			"SGD":    func() { e.SGD(w1, w2, w3, net.SGD{LR: 0.1, Momentum: 0.9}) },
			"ConvGrad": func() {
				e.ConvGrad(nil, w1, ts[5], y, y, ts[0], w2, net.Conv{Size: 3, Stride: 1, Pad: 1})
			},
			"Host": func() {
				e.Host([]*net.Tensor{w1}, nil, func(outs, _ [][]float32) { copy(outs[0], weights(5)) })
			},
		} {
			change()
			now := forward()
			if slices.Equal(now, last) {
				t.Errorf("%v: %s changed the weights, and their planes are the old ones", level, name)
			}
			last = now
		}
		if err := e.Sync(); err != nil {
			t.Fatal(err)
		}
	}
}

// A pass ends with its step, in the middle of its blocks.
func TestWinogradIsCancelled(t *testing.T) {
	for _, level := range simd.Levels() {
		e := New(2, level, WithWinograd(Everywhere))
		defer e.Close()
		x := net.Spec{Shape: net.Shape{N: 4, C: 32, H: 100, W: 100}, Kind: net.Map, To: -1}
		w := net.Spec{Shape: net.Shape{N: 32, C: 32, H: 3, W: 3}, Kind: net.Filter, To: -1}
		b := net.Spec{Shape: net.Shape{N: 1, C: 32, H: 1, W: 1}, Kind: net.Vector, To: -1}
		ts, err := e.Alloc([]net.Spec{x, x, x, x, w, w, b, b})
		if err != nil {
			t.Fatal(err)
		}
		enough := errors.New("enough")
		for range 3 {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(5*time.Millisecond, func() { cancel(enough) })
			e.Begin(ctx)
			for e.Sync() == nil {
				g := net.Conv{Size: 3, Stride: 1, Pad: 1}
				e.Conv(ts[0], ts[1], ts[4], ts[6], g)
				e.ConvGrad(ts[2], ts[5], ts[7], ts[3], ts[0], ts[1], ts[4], g)
			}
			if err := e.Sync(); !errors.Is(err, enough) {
				t.Errorf("%v: a cancelled step ends with %v", level, err)
			}
			cancel(nil)
		}
	}
}
