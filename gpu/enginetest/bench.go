package enginetest

import (
	"math"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/net"
)

// BatchVariable names the environment variable that sets the batch of every
// benchmark. Without it the batch is the paper's 128, 256 for alexnet_small; a
// step of alexnet is then half a minute in plain Go on two cores.
const BatchVariable = "SLUICE_BENCH_BATCH"

func batchSize(b *testing.B, otherwise int) int {
	b.Helper()
	s := os.Getenv(BatchVariable)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		b.Fatalf("%s must be a number of images, is %q", BatchVariable, s)
	}
	return n
}

// TrainStep times loading, forward, backward and update of preset networks, and
// reports images/s and GFLOP/s (of the multiply-adds of all three passes, less
// the input gradient of the first layer), and the most memory that the process
// took.
func TrainStep(b *testing.B, newEngine func() net.Engine) {
	for _, p := range presets {
		b.Run(p.name, func(b *testing.B) { p.run(b, newEngine, true) })
	}
}

// Infer times loading and forward of preset networks.
func Infer(b *testing.B, newEngine func() net.Engine) {
	for _, p := range presets {
		b.Run(p.name, func(b *testing.B) { p.run(b, newEngine, false) })
	}
}

// warmUp is how many steps are not timed, as of the peers: the first pay for memory
// that the system has yet to give, which for alexnet takes most of a step's time.
const warmUp = 2

type preset struct {
	name               string
	batch, side, width int // width: classes, 0 the preset's own
}

var presets = []preset{{"alexnet", 128, 224, 0}, {"alexnet_torchvision", 128, 224, 0}, {"alexnet_small", 256, 64, 10}}

// steps gives an engine with a preset network for batches of n, and a function that
// does a step.
func (p preset) steps(b *testing.B, newEngine func() net.Engine, n int, train bool) (e net.Engine, plan *net.NetPlan, step func()) {
	b.Helper()
	plan, err := net.Preset(p.name).Plan(n, p.side, p.side, p.width)
	if err != nil {
		b.Fatal(err)
	}
	e = open(b, newEngine)
	network, err := net.New(b.Context(), e, plan, 1, train)
	if err != nil {
		b.Fatal(err)
	}
	in, err := network.NewInput()
	if err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	batch := net.ImageBatch{N: n, Pixels: make([]byte, n*p.side*p.side*3), Labels: make([]int32, n)}
	for i := range batch.Pixels {
		batch.Pixels[i] = byte(r.IntN(256))
	}
	for i := range batch.Labels {
		batch.Labels[i] = int32(r.IntN(10))
	}
	return e, plan, func() {
		b.Helper()
		if err := in.Load(batch); err != nil {
			b.Fatal(err)
		}
		if err := network.Forward(b.Context(), in, 1, train); err != nil {
			b.Fatal(err)
		}
		if train {
			network.Backward(b.Context())
			network.Update(net.SGD{LR: 1e-4, Momentum: 0.9, Decay: 0.0005})
		}
		sync(b, e)
	}
}

func (p preset) run(b *testing.B, newEngine func() net.Engine, train bool) {
	n := batchSize(b, p.batch)
	resident := peakMemory()
	e, plan, step := p.steps(b, newEngine, n, train)
	for range warmUp {
		step()
	}
	b.ReportAllocs()
	for b.Loop() {
		step()
	}
	macs := int64(0)
	for _, w := range plan.Work(train) {
		macs += w.Forward + w.Backward
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "images/s")
	reportFlops(b, e, float64(b.N)*2*float64(macs)/b.Elapsed().Seconds()/1e9)
	if bytes, ok := resident(); ok {
		b.ReportMetric(bytes/1e6, "peak-MB")
	}
	b.Logf("%s, batch %d", e.Name(), n)
}

// peakMemory gives a function that tells the most bytes that this process has had
// in memory since, where the system counts them (Linux).
func peakMemory() func() (bytes float64, ok bool) {
	debug.FreeOSMemory()
	reset := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
	return func() (float64, bool) {
		status, err := os.ReadFile("/proc/self/status")
		if reset != nil || err != nil {
			return 0, false
		}
		for line := range strings.Lines(string(status)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
				kB, err := strconv.ParseFloat(f[1], 64)
				return 1024 * kB, err == nil
			}
		}
		return 0, false
	}
}

// Speedup times training steps of alexnet on two engines in turn, and reports the
// images/s of both and how many times faster the second is, by their medians.
func Speedup(b *testing.B, slow, fast func() net.Engine) {
	n := batchSize(b, presets[0].batch)
	var steps [2]func()
	var times [2][]float64
	for i, newEngine := range []func() net.Engine{slow, fast} {
		var e net.Engine
		e, _, steps[i] = presets[0].steps(b, newEngine, n, true)
		for range warmUp {
			steps[i]()
		}
		b.Logf("%s, batch %d", e.Name(), n)
	}
	for b.Loop() {
		for i, step := range steps {
			start := time.Now()
			step()
			times[i] = append(times[i], time.Since(start).Seconds())
		}
	}
	for i := range times {
		slices.Sort(times[i])
		b.ReportMetric(float64(n)/times[i][len(times[i])/2], [...]string{"images/s", "faster-images/s"}[i])
	}
	b.ReportMetric(times[0][len(times[0])/2]/times[1][len(times[1])/2], "times")
}

// reportFlops reports GFLOP/s, and of engines that can tell the most they could
// do (Peak, measured here and now), what part of it that is.
func reportFlops(b *testing.B, e net.Engine, gflops float64) {
	b.ReportMetric(gflops, "GFLOP/s")
	p, ok := e.(interface{ Peak() float64 })
	if !ok {
		return
	}
	if peak := p.Peak(); peak > 0 {
		b.ReportMetric(100*gflops/peak, "%peak")
	}
}

// Conv times the passes of AlexNet's convolutions: dgrad the input's gradient,
// wgrad the weights' (and bias's). An engine computes both gradients in one op,
// so dgrad counts the time of ConvGrad less that of wgrad alone.
func Conv(b *testing.B, variants ...Variant) {
	n := batchSize(b, 32)
	for _, l := range []struct {
		name string
		c    opCase
	}{
		{"conv1", convCase(n, 3, 227, 227, 96, net.Conv{Size: 11, Stride: 4, Act: net.ReLU})},
		{"conv2", convCase(n, 96, 27, 27, 256, net.Conv{Size: 5, Stride: 1, Pad: 2, Groups: 2, Act: net.ReLU})},
		{"conv3", convCase(n, 256, 13, 13, 384, net.Conv{Size: 3, Stride: 1, Pad: 1, Act: net.ReLU})},
		{"conv4", convCase(n, 384, 13, 13, 384, net.Conv{Size: 3, Stride: 1, Pad: 1, Groups: 2, Act: net.ReLU})},
		{"conv5", convCase(n, 384, 13, 13, 256, net.Conv{Size: 3, Stride: 1, Pad: 1, Groups: 2, Act: net.ReLU})},
	} {
		b.Run(l.name, func(b *testing.B) { l.c.passes(b, variants) })
	}
}

// Dense times the passes of AlexNet's dense layers, like Conv.
func Dense(b *testing.B, newEngine func() net.Engine) {
	n := batchSize(b, 128)
	for _, l := range []struct {
		name string
		c    opCase
	}{
		{"fc6", denseCase(n, 256, 6, 6, 4096, net.ReLU)},
		{"fc7", denseCase(n, 4096, 1, 1, 4096, net.ReLU)},
		{"fc8", denseCase(n, 4096, 1, 1, 1000, net.None)},
	} {
		b.Run(l.name, func(b *testing.B) { l.c.passes(b, []Variant{{New: newEngine}}) })
	}
}

// A Variant is one of several engines that are measured side by side; its name is
// the last of its benchmarks'.
type Variant struct {
	Name string
	New  func() net.Engine
}

func (c opCase) passes(b *testing.B, variants []Variant) {
	for _, pass := range []struct {
		name string
		f    func(*testing.B, opCase, net.Engine, tensors)
	}{{"forward", benchForward}, {"wgrad", benchWeightGrad}, {"dgrad", benchDataGrad}} {
		b.Run(pass.name, func(b *testing.B) {
			for _, v := range variants {
				run := func(b *testing.B) {
					e := open(b, v.New)
					pass.f(b, c, e, c.benchTensors(b, e))
				}
				if v.Name == "" {
					run(b)
				} else {
					b.Run(v.Name, run)
				}
			}
		})
	}
}

func benchForward(b *testing.B, c opCase, e net.Engine, ts tensors) {
	timed(b, e, func() { c.forward(e, ts) })
	reportFlops(b, e, 2*float64(c.macs)*float64(b.N)/b.Elapsed().Seconds()/1e9)
}

func benchWeightGrad(b *testing.B, c opCase, e net.Engine, ts tensors) {
	ts.dx = nil
	timed(b, e, func() { c.backward(e, ts) })
	reportFlops(b, e, 2*float64(c.macs)*float64(b.N)/b.Elapsed().Seconds()/1e9)
}

// timed times an op once its memory is there.
func timed(b *testing.B, e net.Engine, op func()) {
	b.Helper()
	for range warmUp {
		op()
	}
	sync(b, e)
	for b.Loop() {
		op()
		sync(b, e)
	}
}

// benchDataGrad reports the fastest of both gradients, less the fastest of the
// weights' alone.
func benchDataGrad(b *testing.B, c opCase, e net.Engine, ts tensors) {
	noDX := ts
	noDX.dx = nil
	both, alone := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
	for b.Loop() {
		start := time.Now()
		c.backward(e, noDX)
		sync(b, e)
		middle := time.Now()
		c.backward(e, ts)
		sync(b, e)
		alone, both = min(alone, middle.Sub(start)), min(both, time.Since(middle))
	}
	if both <= alone {
		b.Log("the machine is too busy to tell the two gradients apart; run it longer")
		return
	}
	reportFlops(b, e, 2*float64(c.macs)/(both-alone).Seconds()/1e9)
}

func (c *opCase) benchTensors(b *testing.B, e net.Engine) tensors {
	b.Helper()
	ts := c.allocate(b, e, false)
	in := c.numbers(rand.New(rand.NewPCG(1, 1)))
	in.upload(e, &ts)
	c.forward(e, ts)
	c.backward(e, ts)
	sync(b, e)
	return ts
}

// Memory times the ops that are bound by memory, at AlexNet's sizes, beside a
// copy. GB/s counts each number once that an op must read or write.
func Memory(b *testing.B, newEngine func() net.Engine) {
	n := batchSize(b, 32)
	lrn, pool := net.LRN{Size: 5, K: 2, Alpha: 1e-4, Beta: 0.75}, net.Pool{Size: 3, Stride: 2}
	shape := net.Shape{N: n, C: 96, H: 55, W: 55}
	bytes := func(shapes ...net.Shape) (sum float64) {
		for _, s := range shapes {
			sum += 4 * float64(s.Len())
		}
		return sum
	}
	for _, l := range []struct {
		name string
		c    opCase
	}{
		{"copy", copyCase(shape)},
		{"norm1", lrnCase(n, 96, 55, 55, lrn)},
		{"norm2", lrnCase(n, 256, 27, 27, lrn)},
		{"pool1", poolCase(n, 96, 55, 55, pool)},
		{"pool2", poolCase(n, 256, 27, 27, pool)},
		{"drop6", dropoutCase(net.Shape{N: n, C: 4096, H: 1, W: 1}, 0.5, net.RandomKey{Seed: 1})},
	} {
		b.Run(l.name, func(b *testing.B) {
			e := open(b, newEngine)
			ts := l.c.benchTensors(b, e)
			both := bytes(l.c.x, l.c.y)
			for _, s := range l.c.saved {
				if s.Kind == net.Index {
					both += 2 * float64(s.Shape.Len()) // of 16 bits, say
				} else {
					both += bytes(s.Shape)
				}
			}
			backward := both
			if strings.HasPrefix(l.c.name, "LRN/") { // reads x too
				backward += bytes(l.c.x)
			}
			for _, pass := range []struct {
				name  string
				f     func(net.Engine, tensors)
				bytes float64
			}{{"forward", l.c.forward, both}, {"backward", l.c.backward, backward}} {
				b.Run(pass.name, func(b *testing.B) {
					timed(b, e, func() { pass.f(e, ts) })
					b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "images/s")
					b.ReportMetric(pass.bytes*float64(b.N)/b.Elapsed().Seconds()/1e9, "GB/s")
				})
			}
		})
	}
	b.Run("sgd/fc7", func(b *testing.B) {
		e := open(b, newEngine)
		s := net.Spec{Name: "fc7", Shape: net.Shape{N: 4096, C: 4096, H: 1, W: 1}, Kind: net.Matrix, To: -1}
		ts := alloc(b, e, s, s, s)
		timed(b, e, func() { e.SGD(ts[0], ts[1], ts[2], net.SGD{LR: 0.01, Momentum: 0.9, Decay: 0.0005}) })
		b.ReportMetric(5*4*float64(s.Shape.Len())*float64(b.N)/b.Elapsed().Seconds()/1e9, "GB/s")
	})
}
