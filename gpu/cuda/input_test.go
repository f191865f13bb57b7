//go:build cuda && linux

package cuda

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/net"
)

// ofInput gives y, dw and db of a convolution of a batch's images, what the input's tensor
// holds, and the kernels that ran. The numbers are ones that tensor cores do not round.
func ofInput(t *testing.T, e *Engine, s net.InputSpec, g net.Conv, outputs, images int) (y, dw, db, x []float32, kernels string) {
	t.Helper()
	var b strings.Builder
	if err := e.Trace(func(_, name string, _, _ time.Time) { b.WriteString(name + "\n") }); err != nil {
		t.Fatal(err)
	}
	in, err := e.NewInput(s)
	if err != nil {
		t.Fatal(err)
	}
	spec := func(name string, k net.Kind, shape net.Shape) net.Spec {
		return net.Spec{Name: name, Kind: k, Shape: shape, To: -1}
	}
	xs := s.Shape()
	ys := net.Shape{N: xs.N, C: outputs, H: (xs.H+2*g.Pad-g.Size)/g.Stride + 1, W: (xs.W+2*g.Pad-g.Size)/g.Stride + 1}
	ws, bs := net.Shape{N: outputs, C: 3, H: g.Size, W: g.Size}, net.Shape{N: 1, C: outputs, H: 1, W: 1}
	ts, err := e.Alloc([]net.Spec{spec("y", net.Map, ys), spec("dy", net.Map, ys), spec("w", net.Filter, ws), spec("dw", net.Filter, ws),
		spec("b", net.Vector, bs), spec("db", net.Vector, bs)})
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, uint64(g.Size)))
	for _, i := range []int{1, 2, 4} {
		v := make([]float32, ts[i].Shape.Len())
		for k := range v {
			v[k] = float32(r.NormFloat64())
		}
		if i != 4 {
			v = rounded(v)
		}
		e.Upload(ts[i], v)
	}
	// The second batch is computed: nothing of the first may be left.
	for _, n := range []int{s.N, images} {
		batch := net.ImageBatch{N: n, Pixels: make([]byte, n*s.H*s.W*3), Labels: make([]int32, n)}
		for k := range batch.Pixels {
			batch.Pixels[k] = byte(r.IntN(256))
		}
		if err := in.Load(batch); err != nil {
			t.Fatal(err)
		}
	}
	from, _, err := in.Tensors()
	if err != nil {
		t.Fatal(err)
	}
	e.Conv(ts[0], from, ts[2], ts[4], g)
	e.ConvGrad(nil, ts[3], ts[5], ts[1], ts[0], from, ts[2], g)
	get := func(t *net.Tensor) []float32 {
		v := make([]float32, t.Shape.Len())
		e.Download(v, t)
		return v
	}
	y, dw, db, x = get(ts[0]), get(ts[3]), get(ts[5]), get(from)
	if err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	return y, dw, db, x, b.String()
}

// Tensor cores take an input four channels at a time, and give what float32 gives of the
// three: at any stride, padding and border, and of a batch that is not full.
func TestInputOfFourChannels(t *testing.T) {
	for _, c := range []struct {
		s       net.InputSpec
		g       net.Conv
		outputs int
		images  int
	}{
		{net.InputSpec{N: 3, H: 32, W: 33, Bottom: 3, Right: 2}, net.Conv{Size: 11, Stride: 4}, 12, 3},
		{net.InputSpec{N: 2, H: 19, W: 17, Top: 1, Left: 2, BGR: true, Halo: 2}, net.Conv{Size: 5, Stride: 2, Pad: 2, Act: net.ReLU}, 68, 1},
		{net.InputSpec{N: 1, H: 14, W: 14, Halo: 1}, net.Conv{Size: 9, Stride: 1, Pad: 1}, 72, 1}, // sums of forward in parts, tiles of 128
		{net.InputSpec{N: 2, H: 9, W: 8}, net.Conv{Size: 3, Stride: 1}, 6, 2},                     // outputs that are not loaded four at a time
	} {
		c.s.Mean, c.s.Scale = [3]float32{120, 110, 100}, [3]float32{1, 1, 1}
		exact, fast := open(t), open(t)
		fast.UseTF32()
		wantY, wantDW, wantDB, wantX, _ := ofInput(t, exact, c.s, c.g, c.outputs, c.images)
		y, dw, db, x, kernels := ofInput(t, fast, c.s, c.g, c.outputs, c.images)
		if !slices.Equal(x, wantX) {
			t.Errorf("%+v: the input's tensor differs", c)
		}
		for _, v := range []struct {
			name      string
			got, want []float32
		}{{"y", y, wantY}, {"dw", dw, wantDW}, {"db", db, wantDB}} {
			var off, size float64
			for i, w := range v.want {
				d := float64(v.got[i]) - float64(w)
				off, size = off+d*d, size+float64(w)*float64(w)
			}
			if e := math.Sqrt(off / size); !(e <= 2e-6) {
				t.Errorf("%+v: %s is off by %.2g of its size", c, v.name, e)
			}
		}
		if !strings.Contains(kernels, "(four_channels)") || !strings.Contains(kernels, "gemm_tf32_forward") {
			t.Errorf("%+v: forward does not take four channels at a time:\n%s", c, kernels)
		}
		if copied := strings.Contains(kernels, "(copy_channels)"); copied != (c.outputs%4 == 0) {
			t.Errorf("%+v: the weights' gradient is of four channels: %v:\n%s", c, copied, kernels)
		}
		for line := range strings.Lines(kernels) {
			if strings.Contains(line, "gemm_tf32_forward") && !strings.HasSuffix(line, "_4)\n") {
				t.Errorf("%+v: forward is by %s", c, line)
			}
		}
		again, againDW, _, _, _ := ofInput(t, fast, c.s, c.g, c.outputs, c.images)
		if !slices.Equal(again, y) || !slices.Equal(againDW, dw) {
			t.Errorf("%+v: two runs differ", c)
		}
	}
}

// A dense layer right after the input has its own order of numbers, and no fourth channel.
func TestDenseOfInput(t *testing.T) {
	var all [2][]float32
	for i := range all {
		e := open(t)
		if i == 1 {
			e.UseTF32()
		}
		s := net.InputSpec{N: 2, H: 4, W: 5, Scale: [3]float32{1, 1, 1}}
		in, err := e.NewInput(s)
		if err != nil {
			t.Fatal(err)
		}
		ts, err := e.Alloc([]net.Spec{
			{Name: "y", Shape: net.Shape{N: 2, C: 8, H: 1, W: 1}, To: -1},
			{Name: "w", Kind: net.Matrix, Shape: net.Shape{N: 8, C: 3, H: 4, W: 5}, To: -1},
			{Name: "b", Kind: net.Vector, Shape: net.Shape{N: 1, C: 8, H: 1, W: 1}, To: -1},
		})
		if err != nil {
			t.Fatal(err)
		}
		batch := net.ImageBatch{N: 2, Pixels: make([]byte, 2*4*5*3), Labels: make([]int32, 2)}
		w := make([]float32, ts[1].Shape.Len())
		for k := range batch.Pixels {
			batch.Pixels[k] = byte(7 * k)
		}
		for k := range w {
			w[k] = float32(k%13 - 6)
		}
		e.Upload(ts[1], w)
		if err := in.Load(batch); err != nil {
			t.Fatal(err)
		}
		x, _, err := in.Tensors()
		if err != nil {
			t.Fatal(err)
		}
		e.Dense(ts[0], x, ts[1], ts[2], net.None)
		all[i] = make([]float32, ts[0].Shape.Len())
		e.Download(all[i], ts[0])
		if err := e.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(all[0], all[1]) { // whole numbers, whose sums are exact
		t.Errorf("tf32 gives %v, float32 %v", all[1], all[0])
	}
}

// The memory that check tells is what an input takes.
func TestInputSize(t *testing.T) {
	s := net.InputSpec{N: 64, H: 16, W: 16, Scale: [3]float32{1, 1, 1}}
	e := open(t)
	three := e.InputSize(s)
	e.UseTF32()
	if got, want := e.InputSize(s)-three, int64(4*64*16*16*4); got != want {
		t.Errorf("an input for tensor cores takes %d bytes more, want %d", got, want)
	}
}
