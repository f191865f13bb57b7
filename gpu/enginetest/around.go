package enginetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"sluice/net"
)

func mapSpec(name string, n, c, h, w, halo int) net.Spec {
	return net.Spec{Name: name, Shape: net.Shape{N: n, C: c, H: h, W: w}, Kind: net.Map, Halo: halo, To: -1}
}

// testBorder uploads and downloads every kind, halos and tails.
func testBorder(t *testing.T, newEngine func() net.Engine) {
	e := open(t, newEngine)
	specs := []net.Spec{
		mapSpec("map", 2, 5, 3, 4, 0), mapSpec("halo", 3, 3, 4, 2, 2), mapSpec("one", 1, 1, 1, 1, 1),
		{Name: "filter", Shape: net.Shape{N: 7, C: 3, H: 3, W: 3}, Kind: net.Filter, To: -1},
		{Name: "groups", Shape: net.Shape{N: 10, C: 3, H: 2, W: 2}, Kind: net.Filter, Groups: 2, To: -1},
		{Name: "matrix", Shape: net.Shape{N: 9, C: 4, H: 3, W: 2}, Kind: net.Matrix, To: -1},
		vector("vector", 11),
	}
	ts := alloc(t, e, specs...)
	r := rand.New(rand.NewPCG(1, 1))
	var want [][]float32
	for _, x := range ts {
		compare(t, x.Name+" at first", get(e, x), make([]float64, x.Shape.Len()), 0)
		want = append(want, normal(r, x.Shape.Len()))
		e.Upload(x, want[len(want)-1])
	}
	for i, x := range ts {
		compare(t, x.Name, get(e, x), wide(want[i]), 0)
	}
	others := alloc(t, e, specs...)
	for i, x := range ts {
		e.Copy(others[i], x)
		compare(t, x.Name+" copied", get(e, others[i]), wide(want[i]), 0)
	}
	sync(t, e)
}

// testInPlace is what may be the same tensor twice.
func testInPlace(t *testing.T, newEngine func() net.Engine) {
	e := open(t, newEngine)
	ts := alloc(t, e, mapSpec("a", 2, 3, 4, 5, 1), mapSpec("b", 2, 3, 4, 5, 0), mapSpec("c", 2, 3, 4, 5, 0))
	r := rand.New(rand.NewPCG(1, 1))
	a, b := normal(r, ts[0].Shape.Len()), normal(r, ts[0].Shape.Len())
	sum := make([]float64, len(a))
	for i := range sum {
		sum[i] = float64(a[i] + b[i])
	}
	for y := range 2 {
		e.Upload(ts[0], a)
		e.Upload(ts[1], b)
		e.Add(ts[y], ts[0], ts[1])
		compare(t, "sum in place", get(e, ts[y]), sum, 0)
	}
	e.Upload(ts[0], a)
	e.Add(ts[2], ts[0], ts[0])
	for i := range sum {
		sum[i] = 2 * float64(a[i])
	}
	compare(t, "a+a", get(e, ts[2]), sum, 0)
	key := net.RandomKey{Seed: 3, Step: 4, Layer: 5}
	e.Dropout(ts[2], ts[0], 0.5, key)
	e.Dropout(ts[0], ts[0], 0.5, key)
	compare(t, "dropout in place", get(e, ts[0]), wide(get(e, ts[2])), 0)
	for _, act := range []net.Activation{net.ReLU, net.Tanh} {
		e.Upload(ts[0], a)
		e.Activate(ts[2], ts[0], act)
		e.Activate(ts[0], ts[0], act)
		compare(t, fmt.Sprintf("activation %d in place", act), get(e, ts[0]), wide(get(e, ts[2])), 0)
		e.Upload(ts[1], b)
		e.ActivateGrad(ts[2], ts[1], ts[0], act)
		e.ActivateGrad(ts[1], ts[1], ts[0], act)
		compare(t, fmt.Sprintf("slope of activation %d in place", act), get(e, ts[1]), wide(get(e, ts[2])), 0)
	}
	sync(t, e)
}

func testSoftmax(t *testing.T, newEngine func() net.Engine) {
	e := open(t, newEngine)
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	rows := []struct {
		label float32
		x     [5]float32
	}{
		{0, [5]float32{1, 2, 3, 4, 5}},
		{4, [5]float32{1, 2, 3, 4, 5}},
		{-1, [5]float32{1, 2, 3, 4, 5}},
		{2, [5]float32{7, 7, 7, 7, 7}},           // ties
		{1, [5]float32{1e4, -1e4, 0, 1e4, -1e4}}, // a loss of 2e4
		{0, [5]float32{1e4, -1e4, 0, 0, 0}},      // a loss of 0
		{3, [5]float32{0, 0, -90, -95, 0}},       // too small for a normal float32
		{1, [5]float32{nan, 3, nan, 2, 1}},       // NaN first
		{2, [5]float32{nan, nan, nan, nan, nan}},
		{1, [5]float32{-inf, 3, 2, -inf, 1}},
		{-7, [5]float32{nan, 0, 0, 0, 0}},
	}
	s := net.Shape{N: len(rows), C: 5, H: 1, W: 1}
	ts := alloc(t, e, mapSpec("x", s.N, s.C, 1, 1, 0), mapSpec("prob", s.N, s.C, 1, 1, 0), mapSpec("dx", s.N, s.C, 1, 1, 1),
		vector("loss", s.N), vector("rank", s.N), vector("labels", s.N))
	var x, labels []float32
	for _, r := range rows {
		x, labels = append(x, r.x[:]...), append(labels, r.label)
	}
	e.Upload(ts[0], x)
	e.Upload(ts[5], labels)
	for _, smoothing := range []float32{0, 0.1, 0.75} {
		e.SoftmaxLoss(ts[1], ts[3], ts[4], ts[0], ts[5], smoothing)
		e.SoftmaxLossGrad(ts[2], ts[1], ts[5], smoothing)
		sync(t, e)
		prob, loss, rank := softmaxTruth(s, wide(x), wide(labels), smoothing)
		got := get(e, ts[1])
		compare(t, "prob", got, prob, 2e-7)
		compare(t, "loss", get(e, ts[3]), loss, 2e-7)
		compare(t, "rank", get(e, ts[4]), rank, 0)
		compare(t, "dx", get(e, ts[2]), softmaxGradTruth(s, wide(got), wide(labels), smoothing), 2e-7)

		// Row by row, so that the large losses do not hide the small.
		for i, l := range get(e, ts[3]) {
			if d := math.Abs(float64(l) - loss[i]); d > 1e-6*(1+loss[i]) {
				t.Errorf("smoothing %g: the loss of row %d is %v, want %v", smoothing, i, l, loss[i])
			}
		}
	}

	// The gradient is that of the mean loss, by central differences of the truth.
	y := []float64{0.3, -1, 2, 0.5, 0, 1, 1, -2, 0.1, 0.7}
	two := net.Shape{N: 2, C: 5, H: 1, W: 1}
	l := []float64{3, 0}
	for _, smoothing := range []float32{0, 0.1} {
		p, _, _ := softmaxTruth(two, y, l, smoothing)
		for i, want := range softmaxGradTruth(two, p, l, smoothing) {
			mean := func(by float64) float64 {
				moved := append([]float64(nil), y...)
				moved[i] += by
				_, loss, _ := softmaxTruth(two, moved, l, smoothing)
				return (loss[0] + loss[1]) / 2
			}
			if got := (mean(1e-5) - mean(-1e-5)) / 2e-5; math.Abs(got-want) > 1e-9 {
				t.Errorf("smoothing %g: the gradient of logit %d is %v, the difference %v", smoothing, i, want, got)
			}
		}
	}

	e.Upload(ts[5], filled(s.N, 5))
	e.SoftmaxLoss(ts[1], ts[3], ts[4], ts[0], ts[5], 0)
	if err := e.Sync(); err == nil || !strings.Contains(err.Error(), "label") {
		t.Errorf("a label beyond the classes gives %v", err)
	}
}

func testSGD(t *testing.T, newEngine func() net.Engine) {
	e := open(t, newEngine)
	r := rand.New(rand.NewPCG(1, 1))
	for _, spec := range []net.Spec{
		{Name: "filter", Shape: net.Shape{N: 10, C: 3, H: 2, W: 2}, Kind: net.Filter, Groups: 2, To: -1},
		{Name: "matrix", Shape: net.Shape{N: 301, C: 70, H: 2, W: 2}, Kind: net.Matrix, To: -1},
		vector("bias", 13),
	} {
		ts := alloc(t, e, spec, spec, spec)
		n := spec.Shape.Len()
		w, v := normal(r, n), normal(r, n)
		s := net.SGD{LR: 0.01, Momentum: 0.9, Decay: 0.0005}
		for _, form := range []net.MomentumForm{net.TorchMomentum, net.NesterovMomentum, net.PaperMomentum} {
			s.Form = form
			e.Upload(ts[0], w)
			e.Upload(ts[1], v)
			wantW, wantV := wide(w), wide(v)
			for step := range 3 {
				s.LR = 0.01 / float32(step+1)
				m, lr := float64(s.Momentum), float64(s.LR)
				dw := normal(r, n)
				e.Upload(ts[2], dw)
				e.SGD(ts[0], ts[1], ts[2], s)
				for i := range wantW {
					g := float64(dw[i]) + float64(s.Decay)*wantW[i]
					switch form {
					case net.PaperMomentum:
						wantV[i] = m*wantV[i] - lr*g
						wantW[i] += wantV[i]
					case net.TorchMomentum:
						wantV[i] = m*wantV[i] - g
						wantW[i] += lr * wantV[i]
					case net.NesterovMomentum:
						wantV[i] = m*wantV[i] - g
						wantW[i] += lr * (m*wantV[i] - g)
					}
				}
			}
			compare(t, fmt.Sprint("w of form ", form), get(e, ts[0]), wantW, 3e-7)
			compare(t, fmt.Sprint("v of form ", form), get(e, ts[1]), wantV, 3e-7)
		}

		// Momentum that nothing feeds ends at zero, not among the denormals.
		e.Upload(ts[0], make([]float32, n))
		e.Upload(ts[1], filled(n, 0x1p-125))
		e.Upload(ts[2], make([]float32, n))
		for range 20 {
			e.SGD(ts[0], ts[1], ts[2], s)
		}
		compare(t, "old momentum", get(e, ts[1]), make([]float64, n), 0)
	}
	sync(t, e)
}

func testInput(t *testing.T, newEngine func() net.Engine) {
	e := open(t, newEngine)
	for _, s := range []net.InputSpec{
		{N: 3, H: 4, W: 5, Mean: [3]float32{100, 110, 120}, Scale: [3]float32{1, 1, 1}},
		{N: 2, H: 3, W: 3, Top: 1, Bottom: 2, Left: 3, Right: 0, Mean: [3]float32{123.5, 117, 104}, Scale: [3]float32{0.5, 0.017, 2}, BGR: true, Halo: 2},
		{N: 3, H: 4, W: 11, MeanImage: meanImage(7, 14), Scale: [3]float32{0.5, 2, 1}},
		{N: 3, H: 4, W: 19, Top: 1, Right: 2, MeanImage: meanImage(4, 19), Scale: [3]float32{1, 1, 1}, BGR: true, Halo: 1},
	} {
		in, err := e.NewInput(s)
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(1, 1))
		for _, n := range []int{s.N, s.N - 1, 0, s.N} {
			b := net.ImageBatch{N: n, Pixels: make([]byte, n*s.H*s.W*3), Labels: make([]int32, n)}
			for i := range b.Pixels {
				b.Pixels[i] = byte(r.IntN(256))
			}
			for i := range b.Labels {
				b.Labels[i] = int32(r.IntN(9) - 1)
			}
			if n%2 == 1 {
				b.Shift = normal(r, 3*n)
			}
			if m := s.MeanImage; m != nil {
				for range n {
					b.Origin = append(b.Origin, int32(r.IntN(m.W-s.W+1)), int32(r.IntN(m.H-s.H+1)))
				}
				if n == s.N {
					for i := range n {
						b.Flip = append(b.Flip, i%2 == 1)
					}
				}
			}
			shape := s.Shape()
			want, labels := make([]float64, shape.Len()), make([]float64, s.N)
			for i := range labels {
				labels[i] = -1
				if i < n {
					labels[i] = float64(b.Labels[i])
				}
			}
			for i := range b.Pixels {
				image, h, w, rgb := i/(s.H*s.W*3), i/(s.W*3)%s.H, i/3%s.W, i%3
				c := rgb
				if s.BGR {
					c = 2 - rgb
				}
				mean := s.Mean[rgb]
				if m := s.MeanImage; m != nil {
					x := w
					if b.Flip != nil && b.Flip[image] {
						x = s.W - 1 - w
					}
					mean = m.Pixels[((int(b.Origin[2*image+1])+h)*m.W+int(b.Origin[2*image])+x)*3+rgb]
				}
				v := float32(b.Pixels[i]) - mean
				if b.Shift != nil {
					v += b.Shift[3*image+rgb]
				}
				want[((image*3+c)*shape.H+h+s.Top)*shape.W+w+s.Left] = float64(v * s.Scale[rgb])
			}
			released := make(chan struct{}, 2)
			b.Release = func() { released <- struct{}{} }
			if err := in.Load(b); err != nil {
				t.Fatal(err)
			}
			x, l, err := in.Tensors()
			if err != nil {
				t.Fatal(err)
			}
			if x.Shape != shape || l.Shape != (net.Shape{N: 1, C: s.N, H: 1, W: 1}) || in.N() != n {
				t.Fatalf("the input is %v, labels %v, rows %d", x.Shape, l.Shape, in.N())
			}
			compare(t, "x", get(e, x), want, 0)
			compare(t, "labels", get(e, l), labels, 0)
			sync(t, e)
			select {
			case <-released:
			case <-time.After(2 * time.Second):
				t.Fatal("the batch was not released")
			}
			if len(released) != 0 {
				t.Error("the batch was released twice")
			}
		}
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// meanImage is one whose numbers all differ.
func meanImage(h, w int) *net.MeanImage {
	m := &net.MeanImage{H: h, W: w, Pixels: make([]float32, h*w*3)}
	for i := range m.Pixels {
		m.Pixels[i] = 100 + 0.37*float32(i)
	}
	return m
}

func testInputErrors(t *testing.T, newEngine func() net.Engine) {
	e := open(t, newEngine)
	in, err := e.NewInput(net.InputSpec{N: 2, H: 2, W: 2, Scale: [3]float32{1, 1, 1}})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []net.ImageBatch{
		{N: 3, Pixels: make([]byte, 36), Labels: make([]int32, 3)},
		{N: 2, Pixels: make([]byte, 23), Labels: make([]int32, 2)},
		{N: 2, Pixels: make([]byte, 24), Labels: make([]int32, 1)},
		{N: 2, Pixels: make([]byte, 24), Labels: make([]int32, 2), Shift: make([]float32, 5)},
		{N: -1},
	} {
		released := 0
		b.Release = func() { released++ }
		if err := in.Load(b); err == nil || released != 1 {
			t.Errorf("a wrong batch of %d: error %v, released %d times", b.N, err, released)
		}
	}
	if _, err := e.NewInput(net.InputSpec{N: 0, H: 2, W: 2}); err == nil {
		t.Error("an input without rows was made")
	}
	for _, m := range []*net.MeanImage{meanImage(1, 9), meanImage(9, 1), {H: 2, W: 2, Pixels: make([]float32, 11)}} {
		if _, err := e.NewInput(net.InputSpec{N: 1, H: 2, W: 2, MeanImage: m}); err == nil {
			t.Errorf("an input with a mean image of %dx%d was made", m.W, m.H)
		}
	}
	over, err := e.NewInput(net.InputSpec{N: 1, H: 2, W: 2, Scale: [3]float32{1, 1, 1}, MeanImage: meanImage(3, 4)})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []net.ImageBatch{
		{}, {Origin: []int32{0}}, {Origin: []int32{-1, 0}}, {Origin: []int32{0, -1}}, {Origin: []int32{3, 0}}, {Origin: []int32{0, 2}},
		{Origin: []int32{0, 0}, Flip: []bool{true, false}},
	} {
		b.N, b.Pixels, b.Labels = 1, make([]byte, 12), make([]int32, 1)
		released := 0
		b.Release = func() { released++ }
		if err := over.Load(b); err == nil || released != 1 {
			t.Errorf("a batch with origins %v, mirrored %v: error %v, released %d times", b.Origin, b.Flip, err, released)
		}
	}
	if err := over.Close(); err != nil {
		t.Fatal(err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	released := 0
	b := net.ImageBatch{N: 1, Pixels: make([]byte, 12), Labels: make([]int32, 1), Release: func() { released++ }}
	if err := in.Load(b); err == nil || released != 1 {
		t.Errorf("loading into a closed input: error %v, released %d times", err, released)
	}
}

func testHost(t *testing.T, newEngine func() net.Engine) {
	e := open(t, newEngine)
	ts := alloc(t, e, mapSpec("y", 2, 3, 4, 5, 1), mapSpec("x", 2, 3, 4, 5, 2), vector("b", 3))
	r := rand.New(rand.NewPCG(1, 1))
	x, b := normal(r, 120), normal(r, 3)
	e.Upload(ts[1], x)
	e.Upload(ts[2], b)
	double := func(outs, ins [][]float32) {
		for i := range outs[0] {
			outs[0][i] = 2*ins[0][i] + ins[1][i/20%3]
		}
	}
	want := make([]float64, len(x))
	for i := range x {
		want[i] = float64(2*x[i] + b[i/20%3])
	}
	for range 2 {
		e.Host(ts[:1], ts[1:], double)
		compare(t, "y", get(e, ts[0]), want, 0)
	}
	sync(t, e)
	e.Host(ts[:1], ts[1:], func(_, _ [][]float32) { panic("of the layer") })
	if err := e.Sync(); err == nil || !strings.Contains(err.Error(), "of the layer") {
		t.Errorf("a panic in a host function gives %v", err)
	}
	called := false
	e.Host(ts[:1], ts[1:], func(_, _ [][]float32) { called = true })
	if called {
		t.Error("a host function ran after an error")
	}
}

// testMemory checks sizes, and that sharing saves memory.
func testMemory(t *testing.T, newEngine func() net.Engine) {
	e := open(t, newEngine)
	var specs []net.Spec
	for i := range 10 {
		s := mapSpec(fmt.Sprint("step ", i), 1, 16, 32, 32, 0)
		s.From, s.To = i, i+1
		specs = append(specs, s)
	}
	one := e.Size(specs[:1])
	if least := int64(4 * 16 * 32 * 32); one < least {
		t.Errorf("a tensor of %d bytes has the size %d", least, one)
	}
	if all := e.Size(specs); all > 3*one || all < 2*one {
		t.Errorf("ten tensors of which two live at a time take %d bytes, one %d", all, one)
	}
	for i := range specs {
		specs[i].To = -1
	}
	if all := e.Size(specs); all < 10*one {
		t.Errorf("ten tensors take %d bytes, one %d", all, one)
	}
	for _, s := range []net.Spec{{Name: "empty", Kind: net.Map}, mapSpec("negative", 1, -1, 1, 1, 0), {Name: "huge", Shape: net.Shape{N: 1 << 40, C: 1 << 40, H: 1, W: 1}, Kind: net.Map},
		{Name: "groups", Shape: net.Shape{N: 5, C: 1, H: 1, W: 1}, Kind: net.Filter, Groups: 2}} {
		if _, err := e.Alloc([]net.Spec{s}); err == nil || !strings.Contains(err.Error(), s.Name) {
			t.Errorf("allocating %q gives %v", s.Name, err)
		}
	}

	// Random lifetimes: what a tensor holds survives until its last op.
	r := rand.New(rand.NewPCG(3, 3))
	specs = nil
	const ops = 12
	for i := range 40 {
		s := mapSpec(fmt.Sprint(i), 1+r.IntN(3), 1+r.IntN(9), 1+r.IntN(6), 1+r.IntN(6), r.IntN(3))
		s.From = r.IntN(ops)
		s.To = min(ops-1, s.From+r.IntN(4))
		if r.IntN(8) == 0 {
			s.From, s.To = 0, -1
		}
		specs = append(specs, s)
	}
	ts := alloc(t, e, specs...)
	for op := range ops {
		for i, s := range specs {
			if s.From == op {
				e.Upload(ts[i], filled(s.Shape.Len(), float32(i)))
			}
		}
		for i, s := range specs {
			if s.From <= op && (op <= s.To || s.To < 0) {
				compare(t, s.Name, get(e, ts[i]), wide(filled(s.Shape.Len(), float32(i))), 0)
			}
		}
	}
	sync(t, e)
}

func testCancel(t *testing.T, newEngine func() net.Engine) {
	e := open(t, newEngine)
	g := net.Conv{Size: 3, Stride: 1, Pad: 1}
	// An op that takes a while on this engine, be it a processor or an emulated card.
	var ts []*net.Tensor
	for side, took := 10, time.Duration(0); side <= 160 && took < 20*time.Millisecond; side *= 2 {
		ts = alloc(t, e, mapSpec("y", 8, 64, side, side, 1), mapSpec("x", 8, 64, side, side, 1),
			net.Spec{Name: "w", Shape: net.Shape{N: 64, C: 64, H: 3, W: 3}, Kind: net.Filter, To: -1}, vector("b", 64))
		start := time.Now()
		e.Conv(ts[0], ts[1], ts[2], ts[3], g)
		sync(t, e)
		took = time.Since(start)
	}
	stop := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(20*time.Millisecond, func() { cancel(stop) })
	e.Begin(ctx)
	start := time.Now()
	for range 1000 {
		e.Conv(ts[0], ts[1], ts[2], ts[3], g)
	}
	err := e.Sync()
	if !errors.Is(err, stop) {
		t.Errorf("a cancelled step ends with %v", err)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("it took %v to stop", d)
	}
	if err := e.Sync(); !errors.Is(err, stop) {
		t.Errorf("the cancellation does not last: %v", err)
	}
	// The next step is a new one.
	e.Begin(t.Context())
	e.Upload(ts[3], filled(64, 7))
	compare(t, "b", get(e, ts[3]), wide(filled(64, 7)), 0)
	sync(t, e)

	// Already done: nothing runs.
	done, cancel2 := context.WithCancel(t.Context())
	cancel2()
	e.Begin(done)
	e.Upload(ts[3], filled(64, 8))
	if err := e.Sync(); !errors.Is(err, context.Canceled) {
		t.Errorf("a step that was cancelled before it began ends with %v", err)
	}
	e.Begin(t.Context())
	compare(t, "b", get(e, ts[3]), wide(filled(64, 7)), 0)
}

// testMisuse is errors that name the op and the tensor, and stick.
func testMisuse(t *testing.T, newEngine func() net.Engine) {
	specs := []net.Spec{mapSpec("apple", 2, 4, 5, 5, 1), mapSpec("pear", 2, 6, 5, 5, 0), vector("plum", 6),
		{Name: "fig", Shape: net.Shape{N: 6, C: 4, H: 3, W: 3}, Kind: net.Filter, To: -1},
		{Name: "date", Shape: net.Shape{N: 6, C: 4, H: 5, W: 5}, Kind: net.Matrix, To: -1},
		vector("two", 2)}
	conv := net.Conv{Size: 3, Stride: 1, Pad: 1}
	lrn := net.LRN{Size: 5, K: 1, Alpha: 1, Beta: 0.75}
	for _, c := range []struct {
		name string
		says []string
		f    func(e net.Engine, t []*net.Tensor)
	}{
		{"short upload", []string{"Upload", "apple"}, func(e net.Engine, t []*net.Tensor) { e.Upload(t[0], make([]float32, 3)) }},
		{"long download", []string{"Download", "apple"}, func(e net.Engine, t []*net.Tensor) { e.Download(make([]float32, 300), t[0]) }},
		{"nil", []string{"Conv", "nil"}, func(e net.Engine, t []*net.Tensor) { e.Conv(t[1], t[0], nil, t[2], conv) }},
		{"conv output", []string{"Conv", "pear"}, func(e net.Engine, t []*net.Tensor) {
			e.Conv(t[1], t[0], t[3], t[2], net.Conv{Size: 3, Stride: 1})
		}},
		{"conv bias", []string{"Conv", "two"}, func(e net.Engine, t []*net.Tensor) { e.Conv(t[1], t[0], t[3], t[5], conv) }},
		{"conv kind", []string{"Conv", "date"}, func(e net.Engine, t []*net.Tensor) { e.Conv(t[1], t[0], t[4], t[2], conv) }},
		{"conv groups", []string{"Conv", "groups"}, func(e net.Engine, t []*net.Tensor) {
			e.Conv(t[1], t[0], t[3], t[2], net.Conv{Size: 3, Stride: 1, Pad: 1, Groups: 2})
		}},
		{"conv window", []string{"Conv", "apple"}, func(e net.Engine, t []*net.Tensor) { e.Conv(t[1], t[0], t[3], t[2], net.Conv{Size: 9, Stride: 1}) }},
		{"conv stride", []string{"Conv"}, func(e net.Engine, t []*net.Tensor) { e.Conv(t[1], t[0], t[3], t[2], net.Conv{Size: 3, Pad: 1}) }},
		{"conv gradient", []string{"ConvGrad", "apple"}, func(e net.Engine, t []*net.Tensor) {
			e.ConvGrad(nil, t[3], t[2], t[0], t[1], t[0], t[3], conv)
		}},
		{"dense", []string{"Dense", "pear"}, func(e net.Engine, t []*net.Tensor) { e.Dense(t[1], t[0], t[4], t[2], net.None) }},
		{"pool", []string{"MaxPool", "apple"}, func(e net.Engine, t []*net.Tensor) {
			e.MaxPool(t[0], nil, t[0], net.Pool{Size: 3, Stride: 2})
		}},
		{"pool padding", []string{"MaxPool"}, func(e net.Engine, t []*net.Tensor) {
			e.MaxPool(t[0], nil, t[0], net.Pool{Size: 3, Stride: 2, Pad: 3})
		}},
		{"mean pool", []string{"AvgPool", "apple"}, func(e net.Engine, t []*net.Tensor) {
			e.AvgPool(t[0], t[0], net.Pool{Size: 3, Stride: 2})
		}},
		{"mean pool gradient", []string{"AvgPoolGrad", "pear"}, func(e net.Engine, t []*net.Tensor) {
			e.AvgPoolGrad(t[0], t[1], net.Pool{Size: 1, Stride: 1})
		}},
		{"mean pool window", []string{"AvgPool"}, func(e net.Engine, t []*net.Tensor) {
			e.AvgPool(t[0], t[0], net.Pool{Size: 0, Stride: 1})
		}},
		{"channels", []string{"CopyChannels", "pear", "apple"}, func(e net.Engine, t []*net.Tensor) { e.CopyChannels(t[0], t[1], 0, 0, 5) }},
		{"channels from", []string{"CopyChannels", "pear"}, func(e net.Engine, t []*net.Tensor) { e.CopyChannels(t[0], t[1], 0, 4, 3) }},
		{"no channels", []string{"CopyChannels", "pear"}, func(e net.Engine, t []*net.Tensor) { e.CopyChannels(t[0], t[1], 0, 0, 0) }},
		{"channels kind", []string{"CopyChannels", "plum"}, func(e net.Engine, t []*net.Tensor) { e.CopyChannels(t[0], t[2], 0, 0, 1) }},
		{"lrn", []string{"LRN", "pear"}, func(e net.Engine, t []*net.Tensor) { e.LRN(t[1], t[0], lrn) }},
		{"lrn groups", []string{"LRN", "apple"}, func(e net.Engine, t []*net.Tensor) {
			e.LRN(t[0], t[0], net.LRN{Size: 5, Groups: 3})
		}},
		{"dropout", []string{"Dropout", "pear"}, func(e net.Engine, t []*net.Tensor) { e.Dropout(t[1], t[0], 0.5, net.RandomKey{}) }},
		{"dropout keep", []string{"Dropout"}, func(e net.Engine, t []*net.Tensor) { e.Dropout(t[0], t[0], 0, net.RandomKey{}) }},
		{"activation", []string{"Activate", "pear"}, func(e net.Engine, t []*net.Tensor) { e.Activate(t[1], t[0], net.ReLU) }},
		{"activation unknown", []string{"Activate", "7"}, func(e net.Engine, t []*net.Tensor) { e.Activate(t[0], t[0], 7) }},
		{"slope", []string{"ActivateGrad", "pear"}, func(e net.Engine, t []*net.Tensor) { e.ActivateGrad(t[0], t[1], t[0], net.ReLU) }},
		{"copy", []string{"Copy", "pear"}, func(e net.Engine, t []*net.Tensor) { e.Copy(t[1], t[0]) }},
		{"add", []string{"Add", "pear"}, func(e net.Engine, t []*net.Tensor) { e.Add(t[0], t[0], t[1]) }},
		{"softmax", []string{"SoftmaxLoss", "apple"}, func(e net.Engine, t []*net.Tensor) { e.SoftmaxLoss(t[0], t[5], t[5], t[0], t[5], 0) }},
		{"smoothing", []string{"SoftmaxLoss", "smoothing"}, func(e net.Engine, t []*net.Tensor) { e.SoftmaxLoss(t[0], t[5], t[5], t[0], t[5], 1) }},
		{"add parameters", []string{"Add", "date"}, func(e net.Engine, t []*net.Tensor) { e.Add(t[3], t[3], t[4]) }},
		{"norm of a map", []string{"Norm", "apple"}, func(e net.Engine, t []*net.Tensor) { e.Norm(t[2], 0, t[0]) }},
		{"norm place", []string{"Norm", "plum"}, func(e net.Engine, t []*net.Tensor) { e.Norm(t[2], 6, t[3]) }},
		{"scale", []string{"Scale", "date"}, func(e net.Engine, t []*net.Tensor) { e.Scale(t[3], t[4], 1, 0) }},
		{"scale limit", []string{"Scale", "fig"}, func(e net.Engine, t []*net.Tensor) { e.Scale(t[3], t[3], 1, -1) }},
		{"peaks", []string{"Peaks", "two"}, func(e net.Engine, t []*net.Tensor) { e.Peaks(t[5], 0, t[0]) }},
		{"half a gradient", []string{"ConvGrad", "nil"}, func(e net.Engine, t []*net.Tensor) {
			e.ConvGrad(nil, t[3], nil, t[1], t[1], t[0], t[3], conv)
		}},
		{"sgd", []string{"SGD", "plum"}, func(e net.Engine, t []*net.Tensor) { e.SGD(t[3], t[3], t[2], net.SGD{}) }},
		{"sgd kind", []string{"SGD", "apple"}, func(e net.Engine, t []*net.Tensor) { e.SGD(t[0], t[0], t[0], net.SGD{}) }},
		{"stranger", []string{"Upload", "engine"}, func(e net.Engine, t []*net.Tensor) {
			e.Upload(&net.Tensor{Spec: t[0].Spec}, make([]float32, t[0].Shape.Len()))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := open(t, newEngine)
			ts := alloc(t, e, specs...)
			e.Upload(ts[2], filled(6, 3))
			c.f(e, ts)
			err := e.Sync()
			if err == nil {
				t.Fatal("no error")
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("the error does not say %q: %v", s, err)
				}
			}
			e.Begin(t.Context())
			e.Upload(ts[2], filled(6, 4))
			e.Upload(ts[0], nil)
			if again := e.Sync(); again == nil || again.Error() != err.Error() {
				t.Errorf("the first error does not stick: %v, then %v", err, again)
			}
		})
	}
}

// testAllocations runs a small step of every op: after the first it allocates
// nothing.
func testAllocations(t *testing.T, newEngine func() net.Engine) {
	e := open(t, newEngine)
	var s []*net.Tensor
	var steps []func()
	for _, c := range []opCase{
		convCase(2, 4, 9, 9, 6, net.Conv{Size: 3, Stride: 1, Pad: 1, Groups: 2, Act: net.ReLU}),
		convCase(2, 3, 11, 11, 6, net.Conv{Size: 5, Stride: 2, Act: net.Tanh}),
		denseCase(3, 6, 3, 3, 20, net.ReLU),
		poolCase(2, 3, 9, 9, net.Pool{Size: 3, Stride: 2}),
		avgPoolCase(2, 3, 9, 9, net.Pool{Size: 3, Stride: 2}),
		concatCase(2, 3, 3, 4, 5),
		lrnCase(2, 8, 3, 3, net.LRN{Size: 5, K: 2, Alpha: 1e-4, Beta: 0.75}),
		dropoutCase(net.Shape{N: 2, C: 30, H: 1, W: 1}, 0.5, net.RandomKey{Seed: 1}),
		activateCase(net.Shape{N: 2, C: 3, H: 4, W: 4}, net.ReLU),
		addCase(net.Shape{N: 2, C: 3, H: 4, W: 4}),
	} {
		ts := c.allocate(t, e, true)
		in := c.numbers(rand.New(rand.NewPCG(1, 1)))
		in.upload(e, &ts)
		steps = append(steps, func() {
			c.forward(e, ts)
			c.backward(e, ts)
			for i := range ts.w {
				if ts.w[i].Kind != net.Map {

					e.Add(ts.dw[i], ts.dw[i], ts.dw[i])
					e.Scale(ts.dw[i], ts.dw[i], 0.5, 1)
					e.Norm(s[5], i, ts.dw[i])
					e.SGD(ts.w[i], ts.dw[i], ts.dw[i], net.SGD{LR: 1e-9, Momentum: 0.9})
				}
			}
		})
	}
	s = alloc(t, e, mapSpec("x", 4, 10, 1, 1, 0), mapSpec("prob", 4, 10, 1, 1, 0), vector("loss", 4), vector("rank", 4), vector("labels", 4), vector("numbers", 10))
	host := make([]float32, 40)
	in, err := e.NewInput(net.InputSpec{N: 4, H: 8, W: 8, Scale: [3]float32{1, 1, 1}, MeanImage: meanImage(9, 9)})
	if err != nil {
		t.Fatal(err)
	}
	batch := net.ImageBatch{N: 4, Pixels: make([]byte, 4*8*8*3), Labels: make([]int32, 4), Origin: make([]int32, 8), Flip: make([]bool, 4)}
	ctx := t.Context()
	step := func() {
		e.Begin(ctx)
		if in.Load(batch) != nil {
			t.Error("Load failed")
		}
		if _, _, err := in.Tensors(); err != nil {
			t.Error(err)
		}
		for _, f := range steps {
			f()
		}
		e.Upload(s[0], host)
		e.SoftmaxLoss(s[1], s[2], s[3], s[0], s[4], 0.1)
		e.SoftmaxLossGrad(s[0], s[1], s[4], 0.1)
		e.Peaks(s[5], 0, s[1])
		e.Download(host, s[0])
	}
	// Which thread takes which task is chance, and so is when each has the
	// memory it needs: a few steps come first.
	for range 20 {
		step()
	}
	if n := testing.AllocsPerRun(20, step); n != 0 {
		t.Errorf("a step allocates %v times", n)
	}
	sync(t, e)
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
}
