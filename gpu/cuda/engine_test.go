//go:build cuda && linux

package cuda

import (
	"crypto/sha256"
	"errors"
	flags "flag"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"gorgonia.org/cu"

	"sluice/gpu/enginetest"
	"sluice/gpu/host"
	"sluice/gpu/host/simd"
	"sluice/net"
	"sluice/net/nettest"
)

// card is the first card, which is the emulated one where make test-cuda runs.
func card(t testing.TB) Device {
	t.Helper()
	devices, err := Devices()
	if err != nil {
		t.Skipf("there is nothing to run on: %v; make test-cuda has the emulated driver", err)
	}
	return devices[0]
}

func newEngine(t testing.TB) *Engine {
	t.Helper()
	e, err := New(card(t))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// emulated skips a test of what only the emulated driver can be asked for.
func emulated(t testing.TB) {
	t.Helper()
	if !card(t).Emulated {
		t.Skip("what is injected here only the emulated driver can fail; make test-cuda has it")
	}
}

// open makes an engine that the end of the test closes.
func open(t testing.TB) *Engine {
	t.Helper()
	e := newEngine(t)
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return e
}

func TestEngine(t *testing.T) {
	enginetest.Run(t, func() net.Engine { return newEngine(t) })
}

func TestGolden(t *testing.T) {
	nettest.Golden(t, func() net.Engine { return newEngine(t) }, 2e-5)
}

// inEach runs a benchmark in each precision.
func inEach(b *testing.B, f func(b *testing.B, newEngine func() net.Engine)) {
	b.Run("fp32", func(b *testing.B) { f(b, func() net.Engine { return newEngine(b) }) })
	b.Run("tf32", func(b *testing.B) {
		f(b, func() net.Engine {
			e := newEngine(b)
			e.UseTF32()
			return e
		})
	})
}

func BenchmarkTrainStep(b *testing.B) { inEach(b, enginetest.TrainStep) }
func BenchmarkInfer(b *testing.B)     { inEach(b, enginetest.Infer) }
func BenchmarkDense(b *testing.B)     { inEach(b, enginetest.Dense) }
func BenchmarkConv(b *testing.B) {
	inEach(b, func(b *testing.B, newEngine func() net.Engine) {
		enginetest.Conv(b, enginetest.Variant{Name: "cuda", New: newEngine})
	})
}
func BenchmarkMemory(b *testing.B) {
	enginetest.Memory(b, func() net.Engine { return newEngine(b) })
}

// smallNet is AlexNet's layers, few and narrow, of images of 27x27.
func smallNet(t *testing.T, batch int) *net.NetPlan {
	t.Helper()
	conv := func(out, size, padding, groups int) net.ConvLayer {
		l := net.NewConv(out, size)
		l.Padding, l.Groups = padding, groups
		return l
	}
	lrn := net.LRNLayer{Size: 5, K: 2, Alpha: 1e-2, Beta: 0.75, Groups: 1}
	plan, err := net.Graph{
		Input: net.InputOptions{Mean: net.Mean{RGB: net.Triple{120, 120, 120}}, Scale: net.Triple{.02, .02, .02}, Channels: "rgb"},
		Layers: []net.Node{
			{Name: "conv1", Layer: conv(16, 5, 0, 1)},
			{Name: "norm1", Layer: lrn},
			{Name: "pool1", Layer: net.MaxPoolLayer{Size: 3, Stride: 2}},
			{Name: "conv2", Layer: conv(24, 3, 1, 2)},
			{Name: "pool2", Layer: net.MaxPoolLayer{Size: 3, Stride: 2}},
			{Name: "fc3", Layer: net.NewDense(40)},
			{Name: "drop3", Layer: net.DropoutLayer{Rate: 0.5}},
			{Name: "fc4", Layer: net.NewDense(0)},
			{Name: "softmax", Layer: net.SoftmaxLayer{}},
		},
	}.Def().Plan(batch, 27, 27, 5)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// train runs steps of smallNet on noise, and gives the losses and the weights.
func train(t *testing.T, e net.Engine, steps int) (losses, weights []float32) {
	t.Helper()
	const batch = 8
	plan := smallNet(t, batch)
	n, err := net.New(t.Context(), e, plan, 3, true)
	if err != nil {
		t.Fatal(err)
	}
	var in [2]net.Input
	for i := range in {
		if in[i], err = n.NewInput(); err != nil {
			t.Fatal(err)
		}
	}
	r := rand.New(rand.NewPCG(4, 5))
	load := func(i int) {
		b := net.ImageBatch{N: batch, Pixels: make([]byte, batch*27*27*3), Labels: make([]int32, batch)}
		for k := range b.Labels {
			b.Labels[k] = int32(r.IntN(5))
		}
		for k := range b.Pixels { // the label shows
			b.Pixels[k] = byte(40*int(b.Labels[k/(27*27*3)]) + r.IntN(90))
		}
		if err := in[i].Load(b); err != nil {
			t.Fatal(err)
		}
	}
	load(0)
	for step := range steps {
		if step+1 < steps {
			load((step + 1) % 2)
		}
		if err := n.Forward(t.Context(), in[step%2], step, true); err != nil {
			t.Fatal(err)
		}
		n.Backward(t.Context())
		n.Update(net.SGD{LR: 0.02, Momentum: 0.9, Decay: 5e-4})
		stats, err := n.Stats()
		if err != nil {
			t.Fatal(err)
		}
		losses = append(losses, float32(stats.Loss))
	}
	tensors, err := n.Snapshot(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range tensors {
		weights = append(weights, x.Data...)
	}
	return losses, weights
}

// Training agrees with the CPU's engine: the same dropout, sums in another order. What is
// rounded otherwise grows from step to step, by jumps where another element of a window
// becomes the greatest; a mistake is off by all of its size at once.
func TestAgreesWithCPU(t *testing.T) {
	const steps = 20
	level, err := simd.Choose("")
	if err != nil {
		t.Fatal(err)
	}
	cpu := host.New(0, level)
	defer cpu.Close()
	wantLosses, want := train(t, cpu, steps)
	losses, got := train(t, open(t), steps)
	for i := range losses {
		allowed := 1e-4
		if i >= 5 {
			allowed = 2e-2
		}
		if d := math.Abs(float64(losses[i] - wantLosses[i])); !(d <= allowed) {
			t.Errorf("the loss of step %d is %v, on the CPU %v", i, losses[i], wantLosses[i])
		}
	}
	if losses[steps-1] > 0.8*losses[0] {
		t.Errorf("nothing was learnt: the losses are %v", losses)
	}
	var off, size float64
	for i := range want {
		d := float64(got[i]) - float64(want[i])
		off, size = off+d*d, size+float64(want[i])*float64(want[i])
	}
	if e := math.Sqrt(off / size); !(e < 5e-3) {
		t.Errorf("after %d steps the weights are off by %.2g of their size", steps, e)
	}
}

// digest is the bits of a training run, and of the sizes of products that only larger
// networks have.
func digest(t *testing.T, e *Engine) string {
	t.Helper()
	h := sha256.New()
	write := func(v []float32) { h.Write(unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), 4*len(v))) }
	losses, weights := train(t, e, 6)
	write(losses)
	write(weights)
	for _, c := range []struct{ n, c, side, o, size int }{{2, 68, 14, 100, 3}, {2, 12, 23, 72, 5}, {3, 3, 40, 80, 7}} {
		for _, v := range convolve(t, e, c.n, c.c, c.side, c.o, c.size) {
			write(v)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// convolve gives y, dx, dw and db of a convolution of noise.
func convolve(t *testing.T, e *Engine, n, c, side, o, size int) [][]float32 {
	t.Helper()
	g := net.Conv{Size: size, Stride: 1, Pad: size / 2, Act: net.ReLU}
	spec := func(name string, k net.Kind, n, c, h, w int) net.Spec {
		return net.Spec{Name: name, Kind: k, Shape: net.Shape{N: n, C: c, H: h, W: w}, To: -1}
	}
	ts, err := e.Alloc([]net.Spec{
		spec("x", net.Map, n, c, side, side), spec("y", net.Map, n, o, side, side), spec("dx", net.Map, n, c, side, side), spec("dy", net.Map, n, o, side, side),
		spec("w", net.Filter, o, c, size, size), spec("dw", net.Filter, o, c, size, size), spec("b", net.Vector, 1, o, 1, 1), spec("db", net.Vector, 1, o, 1, 1),
	})
	if err != nil {
		t.Fatal(err)
	}
	x, y, dx, dy, w, dw, b, db := ts[0], ts[1], ts[2], ts[3], ts[4], ts[5], ts[6], ts[7]
	r := rand.New(rand.NewPCG(1, uint64(c)))
	for _, to := range []*net.Tensor{x, dy, w, b} {
		v := make([]float32, to.Shape.Len())
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		e.Upload(to, v)
	}
	e.Conv(y, x, w, b, g)
	e.ConvGrad(dx, dw, db, dy, y, x, w, g)
	var all [][]float32
	for _, from := range []*net.Tensor{y, dx, dw, db} {
		v := make([]float32, from.Shape.Len())
		e.Download(v, from)
		all = append(all, v)
	}
	if err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	return all
}

var update = flags.Bool("update", false, "write testdata/digest.txt anew")

// Two runs give the same bits, and every card, schedule and compiler the same as well: those
// of testdata/digest.txt. scripts/on_gpu.sh compares a card's, which this prints.
func TestDeterminism(t *testing.T) {
	const file = "testdata/digest.txt"
	one := digest(t, open(t))
	if two := digest(t, open(t)); one != two {
		t.Errorf("two runs have the digests %s and %s", one, two)
	}
	t.Logf("digest %s", one)
	if *update {
		if err := os.WriteFile(file, []byte(one+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		t.Logf("%s is not here: compared with itself alone", file) // carried to a card
	case err != nil:
		t.Fatal(err)
	case strings.TrimSpace(string(want)) != one:
		t.Errorf("the digest is %s, that of %s %s: if kernels were changed, run this test with -update", one, file, want)
	}
}

// Batches are loaded from another goroutine while the engine computes: each waits for its
// own answer, and no batch is given back, or changed, before it has been copied.
func TestLoadBesideOps(t *testing.T) {
	e := open(t)
	const n, side, loads = 4, 16, 60
	var in [2]net.Input
	for i := range in {
		var err error
		if in[i], err = e.NewInput(net.InputSpec{N: n, H: side, W: side, Scale: [3]float32{1, 1, 1}}); err != nil {
			t.Fatal(err)
		}
	}
	ts, err := e.Alloc(convSpecs())
	if err != nil {
		t.Fatal(err)
	}
	mem := e.PoolMemory()
	loaded, free := make(chan int, 2), make(chan struct{}, 2)
	free <- struct{}{}
	free <- struct{}{}
	var back [loads]atomic.Bool
	go func() {
		defer close(loaded)
		for i := range loads {
			<-free // nothing computes from the input any more
			pixels := mem.Allocate(n * side * side * 3)
			for k := range pixels {
				pixels[k] = byte(i + 1)
			}
			b := net.ImageBatch{N: n, Pixels: pixels, Labels: make([]int32, n), Release: func() {
				clear(pixels) // as the next batch in it would
				mem.Free(pixels)
				back[i].Store(true)
			}}
			if err := in[i%2].Load(b); err != nil {
				t.Error(err)
				return
			}
			loaded <- i
		}
	}()
	host, got := make([]float32, ts[7].Shape.Len()), make([]float32, n*3*side*side)
	for i := range loaded {
		x, _, err := in[i%2].Tensors()
		if err != nil {
			t.Fatal(err)
		}
		e.ConvGrad(ts[2], ts[5], ts[7], ts[3], ts[1], ts[0], ts[4], net.Conv{Size: 3, Stride: 1, Pad: 1})
		e.Download(host, ts[7])
		e.Download(got, x)
		for k, v := range got {
			if v != float32(i+1) {
				t.Fatalf("number %d of batch %d is %v", k, i, v)
			}
		}
		if err := e.Sync(); err != nil {
			t.Fatal(err)
		}
		free <- struct{}{}
	}
	for i := range in {
		if err := in[i].Close(); err != nil {
			t.Error(err)
		}
	}
	for i := range back {
		if !back[i].Load() {
			t.Errorf("batch %d was not given back", i)
		}
	}
}

// Events keep streams apart: a batch does not come over the one that still computes, and what
// computes waits for its batch.
func TestStreamsWait(t *testing.T) {
	t.Setenv("SLUICE_EMU_KERNEL_US", "2000") // each kernel is slower than a copy
	e := open(t)
	const n, side = 2, 8
	in, err := e.NewInput(net.InputSpec{N: n, H: side, W: side, Scale: [3]float32{1, 1, 1}})
	if err != nil {
		t.Fatal(err)
	}
	m := net.Shape{N: n, C: 3, H: side, W: side}
	ts, err := e.Alloc([]net.Spec{{Name: "busy", Shape: m, To: -1}, {Name: "first", Shape: m, To: -1}, {Name: "second", Shape: m, To: -1}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		b := net.ImageBatch{N: n, Pixels: make([]byte, n*side*side*3), Labels: make([]int32, n)}
		for k := range b.Pixels {
			b.Pixels[k] = byte(i + 1)
		}
		if err := in.Load(b); err != nil {
			t.Fatal(err)
		}
		x, _, err := in.Tensors()
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			for range 3 {
				e.Copy(ts[0], ts[0])
			}
		}
		e.Copy(ts[1+i], x)
	}
	got := make([]float32, m.Len())
	for i := range 2 {
		e.Download(got, ts[1+i])
		for k, v := range got {
			if v != float32(i+1) {
				t.Fatalf("number %d of batch %d is %v", k, i, v)
			}
		}
	}
	if err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
}

// What a card's grid cannot hold is told of the layer, and not computed in part.
func TestTooManyGroups(t *testing.T) {
	e := open(t)
	const c = 1<<16 + 1
	m, v := net.Shape{N: 1, C: c, H: 1, W: 1}, net.Shape{N: 1, C: c, H: 1, W: 1}
	ts, err := e.Alloc([]net.Spec{{Name: "x", Shape: m, To: -1}, {Name: "conv1", Shape: m, To: -1},
		{Name: "w", Shape: net.Shape{N: c, C: 1, H: 1, W: 1}, Kind: net.Filter, Groups: c, To: -1}, {Name: "b", Shape: v, Kind: net.Vector, To: -1}})
	if err != nil {
		t.Fatal(err)
	}
	e.Conv(ts[1], ts[0], ts[2], ts[3], net.Conv{Size: 1, Stride: 1, Groups: c})
	if err := e.Sync(); err == nil || !strings.Contains(err.Error(), "conv1") || !strings.Contains(err.Error(), "too many groups") {
		t.Errorf("a convolution of %d groups: %v", c, err)
	}
}

// A tensor that kernels could not count is refused, and one just as large is not.
func TestLargestTensor(t *testing.T) {
	for n, fits := range map[int]bool{mostElements: true, mostElements + 1: false} {
		_, err := bytesOf(net.Spec{Name: "x", Shape: net.Shape{N: n, C: 1, H: 1, W: 1}})
		if (err == nil) != fits {
			t.Errorf("a tensor of %d numbers: %v", n, err)
		}
	}
}

// Blocks of both sizes give the same bits.
func TestTiles(t *testing.T) {
	for _, c := range []struct{ n, c, side, o, size int }{{1, 68, 13, 100, 3}, {4, 3, 20, 70, 5}} {
		e := open(t)
		e.smallest = 64
		small := convolve(t, e, c.n, c.c, c.side, c.o, c.size)
		e.smallest = 128
		large := convolve(t, e, c.n, c.c, c.side, c.o, c.size)
		for i := range small {
			if !slices.Equal(small[i], large[i]) {
				t.Errorf("%+v: blocks of 64 and 128 differ in tensor %d", c, i)
			}
		}
	}
}

// What goes wrong on the card is told with kernel, op and tensor, and sticks.
func TestFailures(t *testing.T) {
	emulated(t)
	for _, tt := range []struct {
		fail, one string
		late      bool // the next launch is the first to hear of it
		says      []string
	}{
		{"launch:4", "", false, []string{"LaunchFailed", "ConvGrad of", "gemm_weight", "SLUICE_CUDA_SYNC=1", "the context is lost"}},
		{"launch:4", "", true, []string{"LaunchFailed", "ConvGrad of", "gemm_weight", "SLUICE_CUDA_SYNC=1", "the context is lost"}},
		{"launch:4", "1", false, []string{"LaunchFailed", "ConvGrad of", "gemm_weight", "the context is lost"}},
		{"lost:3", "", false, []string{"Unknown", "kernel", "the context is lost"}},
	} {
		t.Run(fmt.Sprint(tt.fail, tt.one, tt.late), func(t *testing.T) {
			t.Setenv("SLUICE_EMU_FAIL", tt.fail)
			t.Setenv("SLUICE_CUDA_SYNC", tt.one)
			e := open(t)
			ts, err := e.Alloc(convSpecs())
			if err != nil {
				t.Fatal(err)
			}
			g := net.Conv{Size: 3, Stride: 1, Pad: 1}
			e.Conv(ts[1], ts[0], ts[4], ts[6], g)
			e.ConvGrad(ts[2], ts[5], ts[7], ts[3], ts[1], ts[0], ts[4], g)
			if tt.late {
				if err := e.call(e.compute.Synchronize); !errors.Is(err, cu.LaunchFailed) {
					t.Errorf("waiting: %v", err)
				}
				e.Conv(ts[1], ts[0], ts[4], ts[6], g)
			}
			err = e.Sync()
			if err == nil {
				t.Fatal("no error")
			}
			for _, s := range tt.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q is not in: %v", s, err)
				}
			}
			e.Begin(t.Context())
			e.Conv(ts[1], ts[0], ts[4], ts[6], g)
			if again := e.Sync(); again == nil || again.Error() != err.Error() {
				t.Errorf("the error does not stick: %v, then %v", err, again)
			}
		})
	}
}

func convSpecs() []net.Spec {
	m, f, v := net.Shape{N: 4, C: 8, H: 9, W: 9}, net.Shape{N: 8, C: 8, H: 3, W: 3}, net.Shape{N: 1, C: 8, H: 1, W: 1}
	var specs []net.Spec
	for i, s := range []net.Spec{{Shape: m}, {Shape: m}, {Shape: m}, {Shape: m}, {Shape: f, Kind: net.Filter}, {Shape: f, Kind: net.Filter},
		{Shape: v, Kind: net.Vector}, {Shape: v, Kind: net.Vector}} {
		s.Name, s.To = []string{"x", "y", "dx", "dy", "w", "dw", "b", "db"}[i], -1
		specs = append(specs, s)
	}
	return specs
}

func TestOutOfMemory(t *testing.T) {
	emulated(t)
	t.Setenv("SLUICE_EMU_MEMORY", fmt.Sprint(1<<20))
	e := open(t)
	specs := []net.Spec{
		{Name: "w", Kind: net.Matrix, Shape: net.Shape{N: 100, C: 500, H: 1, W: 1}, To: -1}, // 200 kB
		{Name: "x", Kind: net.Map, Shape: net.Shape{N: 64, C: 30, H: 16, W: 16}, To: -1},    // 30 kB an image
	}
	_, err := e.Alloc(specs)
	if err == nil {
		t.Fatal("two megabytes fit into one")
	}
	for _, s := range []string{"out of memory", "2.1 MiB are wanted", "1.0 MiB are free", "a batch of 27 instead of 64 would fit", "batch: {size: 27}"} {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%q is not in: %v", s, err)
		}
	}
	specs[1].Shape.N = 27
	if _, err := e.Alloc(specs); err != nil {
		t.Errorf("what would fit does not: %v", err)
	}
	specs[0].Shape.N = 1000
	if _, err := e.Alloc(specs); err == nil || !strings.Contains(err.Error(), "no batch would fit") {
		t.Errorf("weights alone that are too large: %v", err)
	}
}

// Where inputs do not fit beside a network, the batch that would fit is that of all: 31 kB of
// an image, and 69 kB in each of two inputs.
func TestOutOfMemoryOfInputs(t *testing.T) {
	emulated(t)
	t.Setenv("SLUICE_EMU_MEMORY", fmt.Sprint(1<<20))
	e := open(t)
	if _, err := e.Alloc([]net.Spec{{Name: "x", Kind: net.Map, Shape: net.Shape{N: 20, C: 30, H: 16, W: 16}, To: -1}}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.NewInput(net.InputSpec{N: 20, H: 90, W: 64}); err == nil || !strings.Contains(err.Error(), "a batch of 6 instead of 20 would fit") {
		t.Errorf("an input that does not fit beside a network: %v", err)
	}
}

// Batches in pinned memory are copied from where they are, and memory outlives the engine.
func TestPinned(t *testing.T) {
	e := newEngine(t)
	mem := e.PoolMemory().(*Pinned)
	buf := mem.Allocate(3 * 4 * 4 * 3)
	if !mem.holds(buf) || !mem.holds(buf[5:9]) || mem.holds(make([]byte, 4)) || mem.holds(nil) {
		t.Error("pinned memory is not known as such")
	}
	for i, v := range buf {
		if v != 0 {
			t.Fatalf("byte %d of new memory is %d", i, v)
		}
		buf[i] = byte(i)
	}
	in, err := e.NewInput(net.InputSpec{N: 3, H: 4, W: 4, Scale: [3]float32{1, 1, 1}})
	if err != nil {
		t.Fatal(err)
	}
	released := make(chan bool, 1)
	if err := in.Load(net.ImageBatch{N: 3, Pixels: buf, Labels: []int32{0, 1, 2}, Release: func() { released <- true }}); err != nil {
		t.Fatal(err)
	}
	x, _, err := in.Tensors()
	if err != nil {
		t.Fatal(err)
	}
	got := make([]float32, x.Shape.Len())
	e.Download(got, x)
	if got[0] != 0 || got[1] != 3 || got[16] != 1 {
		t.Errorf("the images are %v", got[:20])
	}
	<-released
	larger := mem.Reallocate(1000, buf)
	if larger[7] != 7 || mem.holds(buf) {
		t.Error("reallocation lost what was there, or the old memory")
	}
	// A Release that panics is an error of the engine, not the end of the program.
	if err := in.Load(net.ImageBatch{Release: func() { panic("of the batch") }}); err != nil {
		t.Fatal(err)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if err := e.Sync(); err == nil || !strings.Contains(err.Error(), "of the batch") {
		t.Errorf("a batch whose release panics: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	larger[0] = 1 // it is still there
	mem.Free(larger)
	next := open(t)
	if _, err := next.Alloc(convSpecs()); err != nil {
		t.Errorf("another engine after it: %v", err)
	}
}

func TestOldCard(t *testing.T) {
	d := card(t)
	d.Major, d.Minor = 7, 5
	if _, err := New(d); err == nil || !strings.Contains(err.Error(), "8.0") {
		t.Errorf("a card of compute capability 7.5: %v", err)
	}
}
