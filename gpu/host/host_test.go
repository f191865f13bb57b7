package host_test

import (
	"os"
	"runtime"
	"testing"

	"sluice/gpu/enginetest"
	"sluice/gpu/host"
	"sluice/gpu/host/simd"
	"sluice/net"
)

// newEngine is of the level that SLUICE_CPU says, like gpu.Open's.
func newEngine() net.Engine { return with()() }

// with makes engines of that level with some options.
func with(options ...host.Option) func() net.Engine {
	level, err := simd.Choose(os.Getenv("SLUICE_CPU"))
	if err != nil {
		panic(err)
	}
	return func() net.Engine { return host.New(0, level, options...) }
}

// eachLevel runs f at every level that this machine has.
func eachLevel(t *testing.T, f func(t *testing.T, newEngine func() net.Engine)) {
	for _, level := range simd.Levels() {
		t.Run(level.String(), func(t *testing.T) {
			f(t, func() net.Engine { return host.New(2, level) })
		})
	}
}

func BenchmarkTrainStep(b *testing.B) { enginetest.TrainStep(b, newEngine) }
func BenchmarkInfer(b *testing.B)     { enginetest.Infer(b, newEngine) }
func BenchmarkDense(b *testing.B)     { enginetest.Dense(b, newEngine) }
func BenchmarkMemory(b *testing.B)    { enginetest.Memory(b, newEngine) }

// BenchmarkConv computes each layer directly and, all but conv1, by Winograd's
// algorithm: GFLOP/s are those of the direct way, so that %peak may be over 100.
func BenchmarkConv(b *testing.B) {
	enginetest.Conv(b, enginetest.Variant{Name: "direct", New: with(host.WithWinograd(host.Nowhere))}, enginetest.Variant{Name: "winograd", New: newEngine})
}

// BenchmarkThreads is how much two threads are worth.
func BenchmarkThreads(b *testing.B) {
	if runtime.GOMAXPROCS(0) < 2 {
		b.Skip("two threads cannot be compared with one on one processor: run it with -cpu 2 or more")
	}
	level, err := simd.Choose(os.Getenv("SLUICE_CPU"))
	if err != nil {
		b.Fatal(err)
	}
	enginetest.Speedup(b, func() net.Engine { return host.New(1, level) }, func() net.Engine { return host.New(2, level) })
}

func TestEngine(t *testing.T) { eachLevel(t, enginetest.Run) }

// counted keeps, of each convolution's shape, which ways its passes were computed.
type counted struct {
	*host.Engine
	ways map[geometry]*[2]int
}

type geometry struct {
	x, w net.Shape
	g    net.Conv
}

// forms says whether there is a form of Winograd's algorithm for a pass: the window is 3
// or 5 cells of stride x stride pixels, which no groups share.
func (c geometry) forms() bool {
	cells := (c.g.Size + c.g.Stride - 1) / c.g.Stride
	return (cells == 3 || cells == 5) && (c.g.Stride == 1 || c.g.Groups <= 1)
}

func (c counted) pass(x, w *net.Tensor, g net.Conv, pass func()) {
	direct, winograd := c.Passes()
	pass()
	d, t := c.Passes()
	g.Act = net.None
	key := geometry{x.Shape, w.Shape, g}
	if c.ways[key] == nil {
		c.ways[key] = new([2]int)
	}
	c.ways[key][0] += d - direct
	c.ways[key][1] += t - winograd
}

func (c counted) Conv(y, x, w, b *net.Tensor, g net.Conv) {
	c.pass(x, w, g, func() { c.Engine.Conv(y, x, w, b, g) })
}

func (c counted) ConvGrad(dx, dw, db, dy, y, x, w *net.Tensor, g net.Conv) {
	c.pass(x, w, g, func() { c.Engine.ConvGrad(dx, dw, db, dy, y, x, w, g) })
}

// Every convolution is right both ways, if there are two.
func TestWinograd(t *testing.T) {
	for _, level := range simd.Levels() {
		t.Run(level.String(), func(t *testing.T) {
			ways := map[geometry]*[2]int{}
			for _, w := range []host.Winograd{host.Nowhere, host.Everywhere} {
				enginetest.RunConvs(t, func() net.Engine {
					return counted{host.New(2, level, host.WithWinograd(w)), ways}
				})
			}
			both, strided := 0, 0
			for c, n := range ways {
				if n[0] == 0 || c.forms() != (n[1] > 0) {
					t.Errorf("%+v: %d passes directly, %d by Winograd's algorithm", c, n[0], n[1])
				}
				if c.forms() {
					both++
					if c.g.Stride > 1 {
						strided++
					}
				}
			}
			if both < 60 || strided < 10 {
				t.Errorf("only %d shapes were computed both ways, %d of them with a stride", both, strided)
			}
		})
	}
}

// TestManyShapes is thousands of geometries, at every level.
func TestManyShapes(t *testing.T) {
	eachLevel(t, func(t *testing.T, newEngine func() net.Engine) { enginetest.Shapes(t, newEngine, 1000) })
}

func FuzzConv(f *testing.F)  { enginetest.FuzzConv(f, newEngine) }
func FuzzDense(f *testing.F) { enginetest.FuzzDense(f, newEngine) }
func FuzzPool(f *testing.F)  { enginetest.FuzzPool(f, newEngine) }
func FuzzLRN(f *testing.F)   { enginetest.FuzzLRN(f, newEngine) }

// FuzzWinograd is FuzzConv by Winograd's algorithm, wherever there is a form.
func FuzzWinograd(f *testing.F) {
	enginetest.FuzzConv(f, with(host.WithWinograd(host.Everywhere)))
}
