package host_test

import (
	"math"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"sluice/gpu/host"
	"sluice/gpu/host/simd"
	"sluice/net"
	"sluice/net/nettest"
)

func TestGolden(t *testing.T) {
	eachLevel(t, func(t *testing.T, newEngine func() net.Engine) { nettest.Golden(t, newEngine, 2e-5) })
}

// shrunken is AlexNet's layers, few and narrow, but wide enough that every op is
// cut into several tasks.
func shrunken() net.Graph {
	conv := func(name string, out, size, stride, padding, groups int) net.Node {
		l := net.NewConv(out, size)
		l.Stride, l.Padding, l.Groups = stride, padding, groups
		return net.Node{Name: name, Layer: l}
	}
	norm := net.LRNLayer{Size: 5, K: 2, Alpha: 1e-2, Beta: 0.75, Groups: 1}
	pool := net.MaxPoolLayer{Size: 3, Stride: 2}
	return net.Graph{
		Input: net.InputOptions{Mean: net.Mean{RGB: net.Triple{120, 110, 100}}, Scale: net.Triple{1. / 64, 1. / 64, 1. / 64}, Channels: "rgb"},
		Layers: []net.Node{
			conv("conv1", 10, 7, 2, 0, 1),
			{Name: "norm1", Layer: norm},
			{Name: "pool1", Layer: pool},
			conv("conv2", 36, 5, 1, 2, 2),
			{Name: "norm2", Layer: norm},
			{Name: "pool2", Layer: pool},
			conv("conv3", 24, 3, 1, 1, 1),
			{Name: "fc4", Layer: net.NewDense(100)},
			{Name: "drop4", Layer: net.DropoutLayer{Rate: 0.5}},
			{Name: "fc5", Layer: net.NewDense(0)},
			{Name: "softmax", Layer: net.SoftmaxLayer{}},
		},
	}
}

// train gives the weights and momentum after 20 steps, and every loss.
func train(t *testing.T, threads int, level simd.Level, way host.Winograd) (weights []net.NamedTensor, losses []float64) {
	t.Helper()
	const n, side = 7, 41
	e := host.New(threads, level, host.WithWinograd(way))
	defer e.Close()
	plan, err := shrunken().Def().Plan(n, side, side, 5)
	if err != nil {
		t.Fatal(err)
	}
	network, err := net.New(t.Context(), e, plan, 3, true)
	if err != nil {
		t.Fatal(err)
	}
	var in [2]net.Input
	for i := range in {
		if in[i], err = network.NewInput(); err != nil {
			t.Fatal(err)
		}
		defer in[i].Close()
	}
	r := rand.New(rand.NewPCG(1, 1))
	load := func(step int) {
		b := net.ImageBatch{N: n, Pixels: make([]byte, n*side*side*3), Labels: make([]int32, n), Shift: make([]float32, 3*n)}
		for i := range b.Pixels {
			b.Pixels[i] = byte(r.IntN(256))
		}
		for i := range b.Labels {
			b.Labels[i] = int32(r.IntN(5))
		}
		for i := range b.Shift {
			b.Shift[i] = 10 * r.Float32()
		}
		if err := in[step%2].Load(b); err != nil {
			t.Fatal(err)
		}
	}
	load(0)
	for step := range 20 {
		if step < 19 { // while this step computes
			load(step + 1)
		}
		if err := network.Forward(t.Context(), in[step%2], step, true); err != nil {
			t.Fatal(err)
		}
		network.Backward(t.Context())
		network.Update(net.SGD{LR: 0.01, Momentum: 0.9, Decay: 0.0005})
		s, err := network.Stats()
		if err != nil {
			t.Fatal(err)
		}
		losses = append(losses, s.Loss)
	}
	weights, err = network.Snapshot(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	return weights, losses
}

func TestWeightsDoNotDependOnThreads(t *testing.T) {
	for _, level := range simd.Levels() {
		t.Run(level.String(), func(t *testing.T) { sameWeights(t, level, host.Nowhere) })
		t.Run(level.String()+"/winograd", func(t *testing.T) { sameWeights(t, level, host.Everywhere) })
	}
}

func sameWeights(t *testing.T, level simd.Level, way host.Winograd) {
	want, losses := train(t, 1, level, way)
	if losses[0] == losses[19] || math.IsNaN(losses[19]) {
		t.Fatalf("the network does not train: losses %v", losses)
	}
	for _, threads := range []int{2, 5} {
		got, _ := train(t, threads, level, way)
		if len(got) != len(want) {
			t.Fatalf("%d tensors, want %d", len(got), len(want))
		}
		for i, w := range want {
			for k, v := range w.Data {
				if math.Float32bits(v) != math.Float32bits(got[i].Data[k]) {
					t.Fatalf("%s %s[%d] is %v at 1 thread and %v at %d", w.Role, w.Name, k, v, got[i].Data[k], threads)
				}
			}
		}
	}
}

func TestCloseEndsItsGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	e := host.New(4, simd.Generic)
	if _, err := e.NewInput(net.InputSpec{N: 1, H: 2, W: 2}); err != nil { // left open
		t.Fatal(err)
	}
	for range 2 {
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	after := runtime.NumGoroutine()
	for i := 0; i < 6000 && after > before; i++ { // one that has told of its end may still be there
		time.Sleep(10 * time.Millisecond)
		after = runtime.NumGoroutine()
	}
	if after > before {
		t.Errorf("%d goroutines before, %d after", before, after)
	}
	if e.Sync() == nil {
		t.Error("a closed engine has no error")
	}
}

// Winograd's algorithm rounds otherwise, and no more: the losses of the first steps
// are those of the direct way.
func TestWinogradTrainsAlike(t *testing.T) {
	for _, level := range simd.Levels() {
		_, want := train(t, 2, level, host.Nowhere)
		_, got := train(t, 2, level, host.Everywhere)
		same := true
		for i, w := range want {
			same = same && got[i] == w
			if math.Abs(got[i]-w) > 1e-3*w {
				t.Errorf("%v: the loss of step %d is %g, directly %g", level, i, got[i], w)
			}
		}
		if same {
			t.Errorf("%v: every loss is the same: both ways are one", level)
		}
	}
}
