//go:build cuda && linux

package cuda

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/net"
)

// These tests copy and convolve few and small images, on a card whose copies and kernels
// both take as long as they are told to.
const overlapSide, overlapBatch = 16, 2

func slowCard(t testing.TB, each time.Duration) {
	emulated(t)
	const bytes = overlapBatch * overlapSide * overlapSide * 3
	t.Setenv("SLUICE_EMU_GBPS", fmt.Sprint(float64(bytes)/float64(each.Nanoseconds())))
	t.Setenv("SLUICE_EMU_KERNEL_US", fmt.Sprint(each.Microseconds()))
}

// overlapped is a network of one convolution with two inputs.
type overlapped struct {
	e       *Engine
	in      [2]net.Input
	y, w, b *net.Tensor
	batch   net.ImageBatch
}

func newOverlapped(t testing.TB, e *Engine) *overlapped {
	t.Helper()
	o := &overlapped{e: e}
	n, side := overlapBatch, overlapSide
	for i := range o.in {
		var err error
		if o.in[i], err = e.NewInput(net.InputSpec{N: n, H: side, W: side, Scale: [3]float32{1, 1, 1}}); err != nil {
			t.Fatal(err)
		}
	}
	ts, err := e.Alloc([]net.Spec{
		{Name: "y", Shape: net.Shape{N: n, C: 32, H: side, W: side}, To: -1},
		{Name: "w", Kind: net.Filter, Shape: net.Shape{N: 32, C: 3, H: 5, W: 5}, To: -1},
		{Name: "b", Kind: net.Vector, Shape: net.Shape{N: 1, C: 32, H: 1, W: 1}, To: -1},
	})
	if err != nil {
		t.Fatal(err)
	}
	o.y, o.w, o.b = ts[0], ts[1], ts[2]
	pixels := e.PoolMemory().Allocate(n * side * side * 3)
	t.Cleanup(func() { e.PoolMemory().Free(pixels) })
	o.batch = net.ImageBatch{N: n, Pixels: pixels, Labels: make([]int32, n)}
	return o
}

func (o *overlapped) load(t testing.TB, i int) {
	if err := o.in[i%2].Load(o.batch); err != nil {
		t.Fatal(err)
	}
}

func (o *overlapped) compute(t testing.TB, i int) {
	x, _, err := o.in[i%2].Tensors()
	if err != nil {
		t.Fatal(err)
	}
	// Two kernels, as long as the copy and the kernel that makes numbers of it.
	for range 2 {
		o.e.Conv(o.y, x, o.w, o.b, net.Conv{Size: 5, Stride: 1, Pad: 2})
	}
	if err := o.e.Sync(); err != nil {
		t.Fatal(err)
	}
}

// run does steps one batch at a time, or with the next one copied meanwhile.
func (o *overlapped) run(t testing.TB, steps int, double bool) time.Duration {
	began := time.Now()
	if double {
		o.load(t, 0)
	}
	for i := range steps {
		switch {
		case !double:
			o.load(t, i)
		case i+1 < steps:
			o.load(t, i+1)
		}
		o.compute(t, i)
	}
	return time.Since(began)
}

// The trace shows batch n+1 copied while batch n computes. The copy begins first, and may be
// over on a busy machine before the test comes to launch anything: then the card is made slower.
func TestOverlap(t *testing.T) {
	for each := 20 * time.Millisecond; ; each *= 2 {
		apart := overlapOf(t, each)
		if apart == "" {
			return
		}
		if each > 2*time.Second {
			t.Fatal(apart)
		}
	}
}

// overlapOf says which batch was not copied while the one before computed.
func overlapOf(t *testing.T, each time.Duration) (apart string) {
	slowCard(t, each)
	e := open(t)
	type spanOf struct {
		track, name string
		from, to    time.Time
	}
	var spans []spanOf
	if err := e.Trace(func(track, name string, from, to time.Time) { spans = append(spans, spanOf{track, name, from, to}) }); err != nil {
		t.Fatal(err)
	}
	const steps = 4
	newOverlapped(t, e).run(t, steps, true)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	var copies, kernels []spanOf
	for _, s := range spans {
		switch {
		case s.track == copyTrack && strings.HasPrefix(s.name, "copy"):
			copies = append(copies, s)
		case s.track == computeTrack && strings.HasPrefix(s.name, "Conv"):
			kernels = append(kernels, s)
		}
	}
	if len(copies) != steps || len(kernels) != 2*steps {
		t.Fatalf("the trace has %d copies and %d convolutions of %d steps", len(copies), len(kernels), steps)
	}
	for i := range steps { // of both kernels of a step, one span
		kernels[i].from, kernels[i].to = kernels[2*i].from, kernels[2*i+1].to
	}
	for i := range steps {
		if kernels[i].from.Before(copies[i].to) {
			t.Errorf("batch %d computes from %v on, and is copied until %v", i, kernels[i].from, copies[i].to)
		}
		if i > 0 && !(copies[i].from.Before(kernels[i-1].to) && kernels[i-1].from.Before(copies[i].to)) {
			apart = fmt.Sprintf("batch %d is copied from %v to %v, batch %d computes from %v to %v: not at the same time",
				i, copies[i].from, copies[i].to, i-1, kernels[i-1].from, kernels[i-1].to)
		}
	}
	return apart
}

// BenchmarkOverlap is how much it is worth to copy the next batch meanwhile, where a copy
// takes as long as a step.
func BenchmarkOverlap(b *testing.B) {
	slowCard(b, 40*time.Millisecond)
	e := newEngine(b)
	defer e.Close()
	o := newOverlapped(b, e)
	var single, double time.Duration
	for b.Loop() {
		single += o.run(b, 10, false)
		double += o.run(b, 10, true)
	}
	b.ReportMetric(float64(single)/float64(double), "single/double")
}
