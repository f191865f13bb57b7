package enginetest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"sluice/net"
)

// Run tests an engine in every way but speed. newEngine makes one; it is closed
// here.
func Run(t *testing.T, newEngine func() net.Engine) {
	cases := table()
	t.Run("Truth", func(t *testing.T) {
		e := open(t, newEngine)
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) { c.check(t, e, false) })
		}
	})
	t.Run("SharedMemory", func(t *testing.T) {
		e := open(t, newEngine)
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) { c.check(t, e, true) })
		}
	})
	t.Run("Gradient", func(t *testing.T) {
		e := open(t, newEngine)
		for _, c := range cases {
			if c.smooth {
				t.Run(c.name, func(t *testing.T) { c.differences(t, e) })
			}
		}
	})
	t.Run("RandomGeometry", func(t *testing.T) {
		e := open(t, newEngine)
		for seed := range uint64(randomShapes) {
			checkSeed(t, e, seed)
		}
	})
	for _, c := range []struct {
		name string
		f    func(*testing.T, func() net.Engine)
	}{
		{"Border", testBorder},
		{"InPlace", testInPlace},
		{"DropoutOfParts", testDropoutOfParts},
		{"Softmax", testSoftmax},
		{"SGD", testSGD},
		{"Gradients", testGradients},
		{"Input", testInput},
		{"InputErrors", testInputErrors},
		{"Host", testHost},
		{"Memory", testMemory},
		{"Cancel", testCancel},
		{"Misuse", testMisuse},
		{"Allocations", testAllocations},
	} {
		t.Run(c.name, func(t *testing.T) { c.f(t, newEngine) })
	}
}

// RunConvs tests an engine's convolutions alone, and many more of stride 1 with
// the windows that there are short ways to compute.
func RunConvs(t *testing.T, newEngine func() net.Engine) {
	e := open(t, newEngine)
	for i, c := range table() {
		if strings.HasPrefix(c.name, "Conv/") {
			t.Run(c.name, func(t *testing.T) { c.check(t, e, i%2 == 1) })
		}
	}
	for seed := range uint64(60) {
		checkCase(t, e, seed, randomConv(rand.New(rand.NewPCG(seed, 1))))
	}
}

func checkSeed(t *testing.T, e net.Engine, seed uint64) {
	checkCase(t, e, seed, randomCase(rand.New(rand.NewPCG(seed, 0))))
}

func checkCase(t *testing.T, e net.Engine, seed uint64, c opCase) {
	c.check(t, e, seed%2 == 1)
	if t.Failed() {
		t.Fatalf("seed %d: %s", seed, c.name)
	}
}

func open(t testing.TB, newEngine func() net.Engine) net.Engine {
	t.Helper()
	e := newEngine()
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return e
}

func alloc(t testing.TB, e net.Engine, specs ...net.Spec) []*net.Tensor {
	t.Helper()
	ts, err := e.Alloc(specs)
	if err != nil {
		t.Fatal(err)
	}
	return ts
}

func sync(t testing.TB, e net.Engine) {
	t.Helper()
	if err := e.Sync(); err != nil {
		t.Fatal(err)
	}
}

func get(e net.Engine, x *net.Tensor) []float32 {
	v := make([]float32, x.Shape.Len())
	e.Download(v, x)
	return v
}

func normal(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

func wide(v []float32) []float64 {
	d := make([]float64, len(v))
	for i := range v {
		d[i] = float64(v[i])
	}
	return d
}

func filled(n int, v float32) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = v
	}
	return s
}

// compare holds got to want within a relative root mean square error; 0 is
// equality. NaN and infinities must be where they should.
func compare(t testing.TB, what string, got []float32, want []float64, tolerance float64) {
	t.Helper()
	compareSums(t, what, got, want, tolerance, nil)
}

// compareSums allows, beside the tolerance, a rounding of each term of the sums
// that want is: terms are the sums of their sizes. It is for sums that may cancel.
func compareSums(t testing.TB, what string, got []float32, want []float64, tolerance float64, terms []float64) {
	t.Helper()
	var off, size float64
	for i, w := range want {
		g := float64(got[i])
		switch {
		case math.IsNaN(w) != math.IsNaN(g), math.IsInf(w, 0) && w != g,
			tolerance == 0 && !math.IsNaN(w) && g != float64(float32(w)):
			t.Errorf("%s[%d] is %v, want %v", what, i, g, w)
			return
		case math.IsNaN(w), math.IsInf(w, 0):
		default:
			off += (g - w) * (g - w)
			size += w * w
		}
	}
	most := tolerance * math.Sqrt(size)
	if terms != nil {
		sum := 0.0
		for _, v := range terms {
			sum += v * v
		}
		most += tolerance / sum32 * 0x1p-23 * math.Sqrt(sum)
	}
	if e := math.Sqrt(off); !(e <= most) && tolerance > 0 {
		t.Errorf("%s is off by %.2g of its size, allowed is %.2g", what, e/math.Sqrt(size), most/math.Sqrt(size))
	}
}

// allocate makes the tensors of c with guards between them. With shared, all
// lies where something else was: tensors that live before it, filled with NaN.
func (c *opCase) allocate(t testing.TB, e net.Engine, shared bool) tensors {
	t.Helper()
	var specs []net.Spec
	var where []**net.Tensor
	ts := tensors{shared: shared}
	add := func(s net.Spec, to **net.Tensor) {
		s.From, s.To = 1, -1
		if shared {
			s.To = 2
		}
		specs = append(specs, s)
		where = append(where, to)
	}
	n := len(c.params)
	ts.w, ts.dw, ts.saved = make([]*net.Tensor, n), make([]*net.Tensor, n), make([]*net.Tensor, len(c.saved))
	add(net.Spec{Name: "x", Shape: c.x, Kind: net.Map, Halo: c.halo}, &ts.x)
	add(net.Spec{Name: "dx", Shape: c.x, Kind: net.Map, Halo: c.halo}, &ts.dx)
	add(net.Spec{Name: "y", Shape: c.y, Kind: net.Map, Halo: 1}, &ts.y)
	add(net.Spec{Name: "dy", Shape: c.y, Kind: net.Map}, &ts.dy)
	for i, p := range c.params {
		add(p, &ts.w[i])
		p.Name = "d" + p.Name
		add(p, &ts.dw[i])
	}
	for i, s := range c.saved {
		add(s, &ts.saved[i])
	}
	ts.guards = make([]*net.Tensor, len(specs)+1)
	tested := specs
	oldWhere := where
	specs, where = nil, nil
	for i := range ts.guards {
		g := net.Spec{Name: "guard", Shape: net.Shape{N: 1, C: 5, H: 1, W: 1}, Kind: net.Vector, To: -1}
		specs, where = append(specs, g), append(where, &ts.guards[i])
		if i < len(tested) {
			if s := tested[i]; s.Kind == net.Map && s.Halo > 0 {
				ts.probes = append(ts.probes, newProbe(t, e, s, oldWhere[i]))
			}
			specs, where = append(specs, tested[i]), append(where, oldWhere[i])
		}
	}
	var before []net.Spec
	if shared {
		for _, s := range tested {
			if s.Kind == net.Index {
				continue
			}
			s.Name, s.From, s.To = "before "+s.Name, 0, 0
			// As large as s with its halo, but without one.
			s.Shape.H += 2 * s.Halo
			s.Shape.W += 2 * s.Halo
			s.Halo = 0
			before = append(before, s)
		}
	}
	all, err := e.Alloc(append(specs, before...))
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range where {
		*w = all[i]
	}
	for _, b := range all[len(specs):] {
		e.Upload(b, filled(b.Shape.Len(), float32(math.NaN())))
	}
	for i, g := range ts.guards {
		e.Upload(g, filled(g.Shape.Len(), float32(i)+0.5))
	}
	return ts
}

// probe reads the halo of a tensor, as a convolution of ones does that pads as
// much: with a window of one pixel, so that no engine has a way around the halo.
type probe struct {
	of           **net.Tensor
	y, ones, b   *net.Tensor
	g            net.Conv
	xs, ws, ys   net.Shape
	weights, row []float64
}

func newProbe(t testing.TB, e net.Engine, s net.Spec, of **net.Tensor) probe {
	t.Helper()
	p := probe{of: of, g: net.Conv{Size: 1, Stride: 1, Pad: s.Halo}, xs: s.Shape, ys: s.Shape}
	p.ys.C, p.ys.H, p.ys.W = 1, s.Shape.H+2*s.Halo, s.Shape.W+2*s.Halo
	p.ws = net.Shape{N: 1, C: s.Shape.C, H: 1, W: 1}
	ts := alloc(t, e, net.Spec{Name: "probe", Shape: p.ys, Kind: net.Map, To: -1},
		net.Spec{Name: "ones", Shape: p.ws, Kind: net.Filter, To: -1}, vector("zero", 1))
	p.y, p.ones, p.b = ts[0], ts[1], ts[2]
	ones := filled(p.ws.Len(), 1)
	e.Upload(p.ones, ones)
	p.weights, p.row = wide(ones), []float64{0}
	return p
}

// checkHalos sees whether what is around each tensor is zero.
func (ts *tensors) checkHalos(t testing.TB, e net.Engine) {
	t.Helper()
	for _, p := range ts.probes {
		x := *p.of
		e.Conv(p.y, x, p.ones, p.b, p.g)
		sum, size := 0.0, 0.0 // cancellation makes sums small: allow by the terms
		want := convTruth(p.xs, p.ws, p.ys, p.g, wide(get(e, x)), p.weights, p.row)
		for _, v := range get(e, x) {
			if a := math.Abs(float64(v)); a <= math.MaxFloat32 {
				size += a
			}
		}
		for i, v := range get(e, p.y) {
			if d := math.Abs(float64(v) - want[i]); d > 0 {
				sum = max(sum, d)
			} else if math.IsNaN(want[i]) != math.IsNaN(float64(v)) {
				t.Errorf("the halo of %s is not zero: place %d of a window over it gives %v, want %v", x.Name, i, v, want[i])
				return
			}
		}
		if sum > 1e-6*size {
			t.Errorf("the halo of %s is not zero: a window over it is off by %v", x.Name, sum)
		}
	}
}

func (ts *tensors) checkGuards(t testing.TB, e net.Engine) {
	t.Helper()
	for i, g := range ts.guards {
		for _, v := range get(e, g) {
			if v != float32(i)+0.5 {
				t.Fatalf("the guard after tensor %d was overwritten with %v", i, v)
			}
		}
	}
}

// numbers are the host's side of a case.
type numbers struct {
	x, dy []float32
	w     [][]float32
}

func (c *opCase) numbers(r *rand.Rand) numbers {
	v := numbers{x: normal(r, c.x.Len()), dy: normal(r, c.y.Len())}
	if c.fill != nil {
		c.fill(r, v.x)
	}
	for _, p := range c.params {
		v.w = append(v.w, normal(r, p.Shape.Len()))
	}
	return v
}

func (v *numbers) wide() [][]float64 {
	var w [][]float64
	for _, p := range v.w {
		w = append(w, wide(p))
	}
	return w
}

func (v *numbers) upload(e net.Engine, ts *tensors) {
	e.Upload(ts.x, v.x)
	e.Upload(ts.dy, v.dy)
	for i, w := range v.w {
		e.Upload(ts.w[i], w)
		e.Upload(ts.dw[i], filled(len(w), float32(math.NaN())))
	}
	if !ts.shared { // else they are full of NaN already, the halo too
		e.Upload(ts.y, filled(ts.y.Shape.Len(), float32(math.NaN())))
		e.Upload(ts.dx, filled(ts.dx.Shape.Len(), float32(math.NaN())))
	}
}

// transformed reports whether f computed a convolution by Winograd's algorithm, of
// engines that tell.
func transformed(e net.Engine, f func()) bool {
	p, ok := e.(interface{ Passes() (direct, winograd int) })
	if !ok {
		f()
		return false
	}
	_, before := p.Passes()
	f()
	_, after := p.Passes()
	return after > before
}

// winograd is the error allowed to sums of planes that were transformed.
const winograd = 5e-6

func allowed(tolerance float64, transformed bool) float64 {
	if transformed {
		return max(tolerance, winograd)
	}
	return tolerance
}

// sizes gives, where sums may cancel, those of the sizes of their terms.
func (c *opCase) sizes(in numbers, params int) (y, dx []float64, dw [][]float64) {
	if c.linear == nil || !c.cancels {
		return nil, nil, make([][]float64, params)
	}
	size := func(v []float32) []float64 {
		w := wide(v)
		for i := range w {
			w[i] = math.Abs(w[i])
		}
		return w
	}
	var w [][]float64
	for _, p := range in.w {
		w = append(w, size(p))
	}
	l := c.linear()
	y = l.truth(size(in.x), w)
	dx, dw = l.gradTruth(size(in.x), w, y, size(in.dy))
	return y, dx, dw
}

// check compares both passes with the truth, twice with the same bits, and once
// as inference and without dx.
func (c *opCase) check(t testing.TB, e net.Engine, shared bool) {
	t.Helper()
	r := rand.New(rand.NewPCG(11, uint64(len(c.name))))
	ts := c.allocate(t, e, shared)
	in := c.numbers(r)
	params := in.wide()

	in.upload(e, &ts)
	forward := transformed(e, func() { c.forward(e, ts) })
	y := get(e, ts.y)
	backward := transformed(e, func() { c.backward(e, ts) })
	dx := get(e, ts.dx)
	var dw [][]float32
	for _, d := range ts.dw {
		dw = append(dw, get(e, d))
	}
	sync(t, e)
	ts.checkHalos(t, e)
	wantDX, wantDW := c.gradTruth(wide(in.x), params, wide(y), wide(in.dy))
	termsY, termsDX, termsDW := c.sizes(in, len(wantDW))
	compareSums(t, "y", y, c.truth(wide(in.x), params), allowed(c.tolerance, forward), termsY)
	compareSums(t, "dx", dx, wantDX, allowed(c.gradTolerance, backward), termsDX)
	for i := range wantDW {
		compareSums(t, "d"+c.params[i].Name, dw[i], wantDW[i], allowed(c.gradTolerance, backward), termsDW[i])
	}
	compare(t, "x afterwards", get(e, ts.x), wide(in.x), 0)
	for i := range in.w {
		compare(t, c.params[i].Name+" afterwards", get(e, ts.w[i]), params[i], 0)
	}

	in.upload(e, &ts)
	ts.inference = true
	c.forward(e, ts)
	compare(t, "y the second time", get(e, ts.y), wide(y), 0)
	ts.inference = false
	c.forward(e, ts)
	if len(c.params) > 0 && c.params[0].Kind != net.Map { // conv and dense
		e.Upload(ts.dy, in.dy)
		frozen := ts // wants dx alone
		frozen.dw = make([]*net.Tensor, len(ts.dw))
		e.Upload(ts.dx, filled(ts.dx.Shape.Len(), float32(math.NaN())))
		c.backward(e, frozen)
		compare(t, "dx alone", get(e, ts.dx), wide(dx), 0)
		e.Upload(ts.dy, in.dy)
		again := ts
		again.dx = nil
		c.backward(e, again)
	} else {
		c.backward(e, ts)
		compare(t, "dx the second time", get(e, ts.dx), wide(dx), 0)
	}
	for i := range dw {
		compare(t, fmt.Sprintf("d%s the second time", c.params[i].Name), get(e, ts.dw[i]), wide(dw[i]), 0)
	}
	ts.checkGuards(t, e)
	sync(t, e)
}

// differences compares the truth's gradient with central differences of the
// truth, and with one directional difference of the engine.
func (c *opCase) differences(t *testing.T, e net.Engine) {
	r := rand.New(rand.NewPCG(5, 6))
	in := c.numbers(r)
	x, params, dy := wide(in.x), in.wide(), wide(in.dy)
	y := c.truth(x, params)
	dx, dparams := c.gradTruth(x, params, y, dy)
	loss := func() float64 {
		sum := 0.0
		for i, v := range c.truth(x, params) {
			sum += v * dy[i]
		}
		return sum
	}
	groups, grads := append([][]float64{x}, params...), append([][]float64{dx}, dparams...)
	const h = 1e-5
	for g, values := range groups {
		for range min(12, len(values)) {
			i := r.IntN(len(values))
			v := values[i]
			values[i] = v + h
			up := loss()
			values[i] = v - h
			down := loss()
			values[i] = v
			got, want := grads[g][i], (up-down)/(2*h)
			if math.Abs(got-want) > 1e-6*(1+math.Abs(want)) {
				t.Errorf("gradient %d of group %d is %v, the difference %v", i, g, got, want)
			}
		}
	}

	// The engine: along its own gradient, the loss must rise by |gradient|^2.
	ts := c.allocate(t, e, false)
	in.upload(e, &ts)
	c.forward(e, ts)
	c.backward(e, ts)
	grad := [][]float32{get(e, ts.dx)}
	for _, d := range ts.dw {
		grad = append(grad, get(e, d))
	}
	size := 0.0
	for _, g := range grad {
		for _, v := range g {
			size += float64(v) * float64(v)
		}
	}
	if size == 0 {
		return
	}
	step := 3e-3 / math.Sqrt(size)
	along := func(by float64) float64 {
		for i, v := range append([][]float32{in.x}, in.w...) {
			moved := make([]float32, len(v))
			for k := range v {
				moved[k] = v[k] + float32(by*float64(grad[i][k]))
			}
			e.Upload(append([]*net.Tensor{ts.x}, ts.w...)[i], moved)
		}
		c.forward(e, ts)
		sum := 0.0
		for i, v := range get(e, ts.y) {
			sum += float64(v) * dy[i]
		}
		return sum
	}
	got := (along(step) - along(-step)) / (2 * step)
	sync(t, e)
	if math.Abs(got-size) > 1e-2*size {
		t.Errorf("along the engine's gradient its loss rises by %v, not %v", got, size)
	}
}
