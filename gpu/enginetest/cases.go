package enginetest

import (
	"fmt"
	"math"
	"math/rand/v2"

	"sluice/net"
)

// opCase is one row of the table: an op and its backward pass on tensors of
// some shape.
type opCase struct {
	name   string
	x, y   net.Shape
	halo   int        // around x and dx
	params []net.Spec // w and b, or the second term of a sum
	saved  []net.Spec // what forward leaves for backward
	// fill makes x (and may make anything odd in it); nil is normal numbers.
	fill func(r *rand.Rand, x []float32)

	forward  func(e net.Engine, t tensors)
	backward func(e net.Engine, t tensors)
	truth    func(x []float64, params [][]float64) []float64
	// gradTruth is told the y that the engine computed, so that both agree on
	// which side of ReLU's corner it lies.
	gradTruth func(x []float64, params [][]float64, y, dy []float64) (dx []float64, dparams [][]float64)

	// Relative root mean square errors allowed; 0 is every bit.
	tolerance, gradTolerance float64
	// smooth says that central differences make sense.
	smooth bool
	macs   int
	// linear is the same op without an activation, for ops that are sums; cancels says
	// that these may cancel more than those of the table do.
	linear  func() opCase
	cancels bool
}

// tensors are those of one opCase.
type tensors struct {
	x, dx, y, dy *net.Tensor
	w, dw, saved []*net.Tensor
	inference    bool
	shared       bool // memory, with others that were there before
	guards       []*net.Tensor
	probes       []probe
}

// sum32 is the error allowed to sums of some thousand products in float32.
const sum32 = 1.5e-6

func vector(name string, n int) net.Spec {
	return net.Spec{Name: name, Shape: net.Shape{N: 1, C: n, H: 1, W: 1}, Kind: net.Vector, To: -1}
}

func convCase(n, c, h, w, o int, g net.Conv) opCase {
	groups := max(g.Groups, 1)
	xs := net.Shape{N: n, C: c, H: h, W: w}
	ys := net.Shape{N: n, C: o, H: (h+2*g.Pad-g.Size)/g.Stride + 1, W: (w+2*g.Pad-g.Size)/g.Stride + 1}
	ws := net.Shape{N: o, C: c / groups, H: g.Size, W: g.Size}
	return opCase{
		name: fmt.Sprintf("Conv/%v/to%d/size%d,stride%d,pad%d,groups%d,act%d", xs, o, g.Size, g.Stride, g.Pad, g.Groups, g.Act),
		x:    xs, y: ys, halo: g.Pad,
		params:  []net.Spec{{Name: "w", Shape: ws, Kind: net.Filter, Groups: g.Groups, To: -1}, vector("b", o)},
		forward: func(e net.Engine, t tensors) { e.Conv(t.y, t.x, t.w[0], t.w[1], g) },
		backward: func(e net.Engine, t tensors) {
			e.ConvGrad(t.dx, t.dw[0], t.dw[1], t.dy, t.y, t.x, t.w[0], g)
		},
		truth: func(x []float64, p [][]float64) []float64 { return convTruth(xs, ws, ys, g, x, p[0], p[1]) },
		gradTruth: func(x []float64, p [][]float64, y, dy []float64) ([]float64, [][]float64) {
			dx, dw, db := convGradTruth(xs, ws, ys, g, x, p[0], y, dy)
			return dx, [][]float64{dw, db}
		},
		tolerance: sum32, gradTolerance: sum32,
		smooth: g.Act != net.ReLU,
		macs:   ys.Len() * ws.Image(),
		linear: func() opCase {
			plain := g
			plain.Act = net.None
			return convCase(n, c, h, w, o, plain)
		},
	}
}

func denseCase(n, c, h, w, o int, a net.Activation) opCase {
	xs, ys, ws := net.Shape{N: n, C: c, H: h, W: w}, net.Shape{N: n, C: o, H: 1, W: 1}, net.Shape{N: o, C: c, H: h, W: w}
	// A dense layer is a convolution as large as its input; the truth has square
	// windows, so it is told of one row as long as the image.
	line, kernel := net.Shape{N: n, C: xs.Image(), H: 1, W: 1}, net.Shape{N: o, C: xs.Image(), H: 1, W: 1}
	g := net.Conv{Size: 1, Stride: 1, Act: a}
	return opCase{
		name: fmt.Sprintf("Dense/%v/to%d/act%d", xs, o, a),
		x:    xs, y: ys,
		params:   []net.Spec{{Name: "w", Shape: ws, Kind: net.Matrix, To: -1}, vector("b", o)},
		forward:  func(e net.Engine, t tensors) { e.Dense(t.y, t.x, t.w[0], t.w[1], a) },
		backward: func(e net.Engine, t tensors) { e.DenseGrad(t.dx, t.dw[0], t.dw[1], t.dy, t.y, t.x, t.w[0], a) },
		truth:    func(x []float64, p [][]float64) []float64 { return convTruth(line, kernel, ys, g, x, p[0], p[1]) },
		gradTruth: func(x []float64, p [][]float64, y, dy []float64) ([]float64, [][]float64) {
			dx, dw, db := convGradTruth(line, kernel, ys, g, x, p[0], y, dy)
			return dx, [][]float64{dw, db}
		},
		tolerance: sum32, gradTolerance: sum32,
		smooth: a != net.ReLU,
		macs:   ys.Len() * xs.Image(),
		linear: func() opCase { return denseCase(n, c, h, w, o, net.None) },
	}
}

// poolSize is how many windows fit, see net.Pool.
func poolSize(n int, g net.Pool) int {
	count := 0
	for at := -g.Pad; at < n+g.Pad; at += g.Stride {
		if at+g.Size > n+g.Pad && (!g.Ceil || at >= n || count > 0 && at-g.Stride+g.Size >= n+g.Pad) {
			break
		}
		count++
	}
	return count
}

func poolCase(n, c, h, w int, g net.Pool) opCase {
	xs := net.Shape{N: n, C: c, H: h, W: w}
	ys := net.Shape{N: n, C: c, H: poolSize(h, g), W: poolSize(w, g)}
	return opCase{
		name: fmt.Sprintf("MaxPool/%v/size%d,stride%d,pad%d,ceil=%v", xs, g.Size, g.Stride, g.Pad, g.Ceil),
		x:    xs, y: ys,
		saved: []net.Spec{{Name: "arg", Shape: ys, Kind: net.Index, To: -1}},
		fill: func(r *rand.Rand, x []float32) { // few values: many ties
			for i := range x {
				x[i] = float32(r.IntN(5)) - 3
			}
		},
		forward: func(e net.Engine, t tensors) {
			if t.inference {
				e.MaxPool(t.y, nil, t.x, g)
				return
			}
			e.MaxPool(t.y, t.saved[0], t.x, g)
		},
		backward: func(e net.Engine, t tensors) { e.MaxPoolGrad(t.dx, t.dy, t.saved[0], g) },
		truth: func(x []float64, _ [][]float64) []float64 {
			y, _ := poolTruth(xs, ys, g, x)
			return y
		},
		gradTruth: func(x []float64, _ [][]float64, _, dy []float64) ([]float64, [][]float64) {
			dx := make([]float64, len(x))
			_, from := poolTruth(xs, ys, g, x)
			for i, v := range dy {
				dx[from[i]] += v
			}
			return dx, nil
		},
		gradTolerance: 2e-7, // of sums of a few dy
	}
}

func nanPoolCase() opCase {
	c := poolCase(2, 3, 6, 5, net.Pool{Size: 3, Stride: 2, Pad: 1})
	c.name = "MaxPool/NaN"
	fill := c.fill
	c.fill = func(r *rand.Rand, x []float32) {
		fill(r, x)
		for range len(x) / 8 {
			x[r.IntN(len(x))] = float32(math.NaN())
		}
		x[0], x[1] = float32(math.Inf(-1)), float32(math.Inf(1))
	}
	return c
}

// lowPoolCase has nothing greater than the padding would be, were it to win.
func lowPoolCase() opCase {
	c := poolCase(1, 2, 3, 3, net.Pool{Size: 3, Stride: 1, Pad: 1})
	c.name = "MaxPool/below zero"
	c.fill = func(r *rand.Rand, x []float32) {
		for i := range x {
			x[i] = float32(math.Inf(-1))
			if i%2 == 0 {
				x[i] = -1e30 * (1 + r.Float32())
			}
		}
	}
	return c
}

func avgPoolCase(n, c, h, w int, g net.Pool) opCase {
	xs := net.Shape{N: n, C: c, H: h, W: w}
	ys := net.Shape{N: n, C: c, H: poolSize(h, g), W: poolSize(w, g)}
	return opCase{
		name: fmt.Sprintf("AvgPool/%v/size%d,stride%d,pad%d,ceil=%v,countpad=%v", xs, g.Size, g.Stride, g.Pad, g.Ceil, g.CountPad),
		x:    xs, y: ys,
		forward:  func(e net.Engine, t tensors) { e.AvgPool(t.y, t.x, g) },
		backward: func(e net.Engine, t tensors) { e.AvgPoolGrad(t.dx, t.dy, g) },
		truth: func(x []float64, _ [][]float64) []float64 {
			from, divisors := avgPoolTruth(xs, ys, g)
			y := make([]float64, len(from))
			for o := range y {
				for _, i := range from[o] {
					y[o] += x[i] / divisors[o]
				}
			}
			return y
		},
		gradTruth: func(x []float64, _ [][]float64, _, dy []float64) ([]float64, [][]float64) {
			dx := make([]float64, len(x))
			from, divisors := avgPoolTruth(xs, ys, g)
			for o := range dy {
				for _, i := range from[o] {
					dx[i] += dy[o] / divisors[o]
				}
			}
			return dx, nil
		},
		tolerance: 5e-7, gradTolerance: 3e-7,
		smooth: true,
		linear: func() opCase { return avgPoolCase(n, c, h, w, g) },
	}
}

// concatCase joins as many inputs as there are channel counts, x the first.
func concatCase(n, h, w int, channels ...int) opCase {
	shape := func(c int) net.Shape { return net.Shape{N: n, C: c, H: h, W: w} }
	var params []net.Spec
	total := channels[0]
	for i, c := range channels[1:] {
		s := mapSpec(fmt.Sprint("x", i+1), n, c, h, w, i%2)
		params = append(params, s)
		total += c
	}
	ys := shape(total)
	// parts calls f with the first channel of each part, its number and its size.
	parts := func(f func(at, part, c int)) {
		at := 0
		for part, c := range channels {
			f(at, part, c)
			at += c
		}
	}
	return opCase{
		name: fmt.Sprintf("CopyChannels/%v of %v", ys, channels),
		x:    shape(channels[0]), y: ys, halo: 1,
		params: params,
		forward: func(e net.Engine, t tensors) {
			parts(func(at, part, c int) {
				x := t.x
				if part > 0 {
					x = t.w[part-1]
				}
				e.CopyChannels(t.y, x, at, 0, c)
			})
		},
		backward: func(e net.Engine, t tensors) {
			parts(func(at, part, c int) {
				dx := t.dx
				if part > 0 {
					dx = t.dw[part-1]
				}
				e.CopyChannels(dx, t.dy, 0, at, c)
			})
		},
		truth: func(x []float64, p [][]float64) []float64 {
			var y []float64
			for image := range n {
				for part, c := range channels {
					from := x
					if part > 0 {
						from = p[part-1]
					}
					y = append(y, from[image*c*h*w:][:c*h*w]...)
				}
			}
			return y
		},
		gradTruth: func(_ []float64, _ [][]float64, _, dy []float64) ([]float64, [][]float64) {
			d := make([][]float64, len(channels))
			for len(dy) > 0 {
				for part, c := range channels {
					d[part] = append(d[part], dy[:c*h*w]...)
					dy = dy[c*h*w:]
				}
			}
			return d[0], d[1:]
		},
		smooth: true,
	}
}

func lrnCase(n, c, h, w int, g net.LRN) opCase {
	xs := net.Shape{N: n, C: c, H: h, W: w}
	return opCase{
		name: fmt.Sprintf("LRN/%v/size%d,k%v,alpha%v,beta%v,groups%d", xs, g.Size, g.K, g.Alpha, g.Beta, g.Groups),
		x:    xs, y: xs,
		forward:  func(e net.Engine, t tensors) { e.LRN(t.y, t.x, g) },
		backward: func(e net.Engine, t tensors) { e.LRNGrad(t.dx, t.dy, t.x, g) },
		truth:    func(x []float64, _ [][]float64) []float64 { return lrnTruth(xs, g, x) },
		gradTruth: func(x []float64, _ [][]float64, _, dy []float64) ([]float64, [][]float64) {
			return lrnGradTruth(xs, g, x, dy), nil
		},
		tolerance: 3e-7, gradTolerance: 5e-7,
		smooth: true,
	}
}

func dropoutCase(s net.Shape, keep float32, key net.RandomKey) opCase {
	mask := func() []float64 { return dropoutTruth(s.Len(), keep, key) }
	return opCase{
		name: fmt.Sprintf("Dropout/%v/keep%v,%v", s, keep, key),
		x:    s, y: s,
		forward:  func(e net.Engine, t tensors) { e.Dropout(t.y, t.x, keep, key) },
		backward: func(e net.Engine, t tensors) { e.Dropout(t.dx, t.dy, keep, key) },
		truth: func(x []float64, _ [][]float64) []float64 {
			y := mask()
			for i := range y {
				y[i] *= x[i]
			}
			return y
		},
		gradTruth: func(_ []float64, _ [][]float64, _, dy []float64) ([]float64, [][]float64) {
			dx := mask()
			for i := range dx {
				dx[i] *= dy[i]
			}
			return dx, nil
		},
		smooth: true,
	}
}

func activateCase(s net.Shape, a net.Activation) opCase {
	return opCase{
		name: fmt.Sprintf("Activate/%v/act%d", s, a),
		x:    s, y: s, halo: 1,
		forward:  func(e net.Engine, t tensors) { e.Activate(t.y, t.x, a) },
		backward: func(e net.Engine, t tensors) { e.ActivateGrad(t.dx, t.dy, t.y, a) },
		truth: func(x []float64, _ [][]float64) []float64 {
			y := make([]float64, len(x))
			for i, v := range x {
				y[i] = act(a, v)
			}
			return y
		},
		gradTruth: func(_ []float64, _ [][]float64, y, dy []float64) ([]float64, [][]float64) {
			dx := make([]float64, len(dy))
			for i, d := range dy {
				dx[i] = d * slope(a, y[i])
			}
			return dx, nil
		},
		tolerance: 2e-7, gradTolerance: 3e-7,
		smooth: a != net.ReLU,
	}
}

func copyCase(s net.Shape) opCase {
	return opCase{
		name: fmt.Sprintf("Copy/%v", s),
		x:    s, y: s, halo: 1,
		forward:  func(e net.Engine, t tensors) { e.Copy(t.y, t.x) },
		backward: func(e net.Engine, t tensors) { e.Copy(t.dx, t.dy) },
		truth:    func(x []float64, _ [][]float64) []float64 { return x },
		gradTruth: func(_ []float64, _ [][]float64, _, dy []float64) ([]float64, [][]float64) {
			return dy, nil
		},
		smooth: true,
	}
}

func addCase(s net.Shape) opCase {
	return opCase{
		name: fmt.Sprintf("Add/%v", s),
		x:    s, y: s, halo: 2,
		params: []net.Spec{{Name: "b", Shape: s, Kind: net.Map, To: -1}},
		forward: func(e net.Engine, t tensors) {
			e.Add(t.y, t.x, t.w[0])
		},
		backward: func(e net.Engine, t tensors) {
			e.Copy(t.dx, t.dy)
			e.Copy(t.dw[0], t.dy)
		},
		truth: func(x []float64, p [][]float64) []float64 {
			y := make([]float64, len(x))
			for i := range y {
				y[i] = x[i] + p[0][i]
			}
			return y
		},
		gradTruth: func(_ []float64, _ [][]float64, _, dy []float64) ([]float64, [][]float64) {
			return dy, [][]float64{dy}
		},
		tolerance: 1e-7,
		smooth:    true,
	}
}

// table is every op with the geometries that are known to be hard.
func table() []opCase {
	var t []opCase
	conv := func(n, c, h, w, o int, g net.Conv) { t = append(t, convCase(n, c, h, w, o, g)) }
	for _, a := range []net.Activation{net.None, net.ReLU, net.Tanh} {
		conv(2, 3, 7, 6, 5, net.Conv{Size: 3, Stride: 1, Pad: 1, Act: a})
		t = append(t, denseCase(3, 5, 2, 3, 7, a))
	}
	conv(1, 3, 31, 31, 8, net.Conv{Size: 11, Stride: 4, Act: net.ReLU})                    // conv1, small
	conv(2, 8, 9, 9, 12, net.Conv{Size: 5, Stride: 1, Pad: 2, Groups: 2})                  // conv2, small
	conv(2, 64, 13, 13, 48, net.Conv{Size: 3, Stride: 1, Pad: 1})                          // conv3, small
	conv(3, 1, 1, 1, 1, net.Conv{Size: 1, Stride: 1})                                      // nothing smaller
	conv(1, 2, 1, 1, 3, net.Conv{Size: 3, Stride: 1, Pad: 1})                              // mostly padding
	conv(1, 2, 1, 1, 3, net.Conv{Size: 3, Stride: 2, Pad: 2})                              // windows of padding alone
	conv(1, 4, 8, 8, 4, net.Conv{Size: 2, Stride: 3})                                      // pixels that no window sees
	conv(2, 3, 9, 8, 4, net.Conv{Size: 3, Stride: 2, Pad: 1})                              // floor cuts a column
	conv(1, 6, 5, 5, 6, net.Conv{Size: 3, Stride: 1, Pad: 1, Groups: 6})                   // depthwise
	conv(1, 6, 5, 5, 9, net.Conv{Size: 3, Stride: 2, Pad: 1, Groups: 3})                   // odd groups and tails
	conv(1, 130, 4, 3, 33, net.Conv{Size: 1, Stride: 1})                                   // long and tail channels
	conv(17, 2, 3, 3, 2, net.Conv{Size: 3, Stride: 1})                                     // output of one pixel
	conv(1, 3, 20, 20, 4, net.Conv{Size: 7, Stride: 5, Pad: 6, Act: net.Tanh})             // padding wide, stride odd
	conv(1, 100, 6, 6, 10, net.Conv{Size: 2, Stride: 2, Groups: 2})                        // even window
	conv(33, 5, 4, 4, 6, net.Conv{Size: 3, Stride: 1, Pad: 1, Act: net.ReLU})              // batch with a tail
	conv(1, 3, 40, 23, 3, net.Conv{Size: 3, Stride: 1, Pad: 1, Act: net.ReLU})             // more than a block of pixels
	conv(1, 64, 40, 30, 2, net.Conv{Size: 1, Stride: 1, Act: net.ReLU})                    // more image than a cache's part
	conv(2, 200, 3, 3, 64, net.Conv{Size: 3, Stride: 1, Pad: 1, Act: net.ReLU})            // weights too many to copy
	conv(3, 96, 3, 2, 160, net.Conv{Size: 5, Stride: 1, Pad: 2, Groups: 2, Act: net.ReLU}) // and in groups
	conv(2, 32, 15, 30, 96, net.Conv{Size: 1, Stride: 1, Act: net.ReLU})                   // whole panels, lines of many tiles
	conv(9, 10, 14, 11, 7, net.Conv{Size: 3, Stride: 1, Pad: 1, Act: net.ReLU})            // more tiles of 4 or 5 than a block
	conv(2, 270, 5, 6, 8, net.Conv{Size: 3, Stride: 1, Pad: 2, Act: net.ReLU})             // and more channels than one sum
	conv(1, 4, 11, 13, 150, net.Conv{Size: 3, Stride: 1, Pad: 3, Groups: 2})               // padding wider than the window less one
	conv(7, 6, 13, 10, 26, net.Conv{Size: 5, Stride: 1, Pad: 2, Groups: 2, Act: net.Tanh}) // more tiles of 3 than a block
	// Windows of 3 or 5 cells of stride x stride pixels.
	conv(2, 3, 40, 43, 40, net.Conv{Size: 11, Stride: 4, Pad: 2, Act: net.ReLU}) // torchvision's conv1, small
	conv(2, 5, 20, 23, 6, net.Conv{Size: 5, Stride: 2, Pad: 2, Act: net.ReLU})
	conv(1, 4, 12, 9, 3, net.Conv{Size: 6, Stride: 2, Pad: 1, Act: net.Tanh})    // whole cells
	conv(3, 4, 19, 25, 33, net.Conv{Size: 7, Stride: 3, Pad: 3})                 // one row of the last cell
	conv(1, 2, 40, 31, 3, net.Conv{Size: 9, Stride: 2, Pad: 4})                  // 5 cells
	conv(2, 3, 17, 18, 20, net.Conv{Size: 10, Stride: 2})                        // and whole ones
	conv(1, 7, 9, 5, 4, net.Conv{Size: 9, Stride: 4, Pad: 8})                    // padding of two cells
	conv(1, 1, 5, 5, 1, net.Conv{Size: 5, Stride: 2})                            // one output
	conv(9, 6, 22, 24, 40, net.Conv{Size: 5, Stride: 2, Pad: 1, Act: net.ReLU})  // more tiles than a block
	conv(2, 70, 7, 6, 8, net.Conv{Size: 5, Stride: 2, Pad: 2, Act: net.ReLU})    // more channels than one sum
	conv(1, 3, 100, 30, 3, net.Conv{Size: 13, Stride: 5, Pad: 1, Act: net.ReLU}) // cells of 75 numbers
	t = append(t,
		denseCase(1, 1, 1, 1, 1, net.None),
		denseCase(2, 3, 1, 1, 1100, net.ReLU),
		denseCase(1, 600, 1, 1, 3, net.None),
		denseCase(5, 16, 6, 6, 130, net.ReLU),
		denseCase(2, 70, 1, 1, 300, net.None),
		denseCase(260, 3, 1, 1, 4, net.None),
		poolCase(2, 5, 13, 13, net.Pool{Size: 3, Stride: 2}),
		poolCase(1, 4, 6, 7, net.Pool{Size: 2, Stride: 2}),
		poolCase(1, 4, 6, 7, net.Pool{Size: 3, Stride: 2, Ceil: true}),
		poolCase(2, 3, 5, 5, net.Pool{Size: 3, Stride: 2, Pad: 1, Ceil: true}),
		poolCase(2, 3, 5, 4, net.Pool{Size: 2, Stride: 3, Ceil: true}),
		poolCase(1, 3, 1, 1, net.Pool{Size: 1, Stride: 1}),
		poolCase(1, 2, 9, 9, net.Pool{Size: 9, Stride: 1}),
		poolCase(1, 1, 4, 4, net.Pool{Size: 3, Stride: 1, Pad: 2}),
		nanPoolCase(), lowPoolCase(),
		avgPoolCase(2, 5, 13, 13, net.Pool{Size: 3, Stride: 2, CountPad: true}),
		avgPoolCase(2, 3, 5, 5, net.Pool{Size: 3, Stride: 2, Pad: 1, Ceil: true, CountPad: true}),
		avgPoolCase(2, 3, 5, 6, net.Pool{Size: 3, Stride: 2, Pad: 1, Ceil: true}),
		avgPoolCase(1, 17, 6, 7, net.Pool{Size: 4, Stride: 3, Pad: 2, Ceil: true, CountPad: true}), // over the padding, too
		avgPoolCase(2, 3, 5, 4, net.Pool{Size: 2, Stride: 3, Ceil: true}),                          // pixels that no window sees
		avgPoolCase(1, 1, 4, 4, net.Pool{Size: 3, Stride: 1, Pad: 2}),
		avgPoolCase(2, 40, 7, 7, net.Pool{Size: 7, Stride: 7, Ceil: true}), // global
		avgPoolCase(3, 9, 4, 9, net.Pool{Size: 9, Stride: 9, Ceil: true}),
		avgPoolCase(1, 2, 300, 1, net.Pool{Size: 300, Stride: 300, Ceil: true}), // more than places of max pooling
		concatCase(2, 3, 4, 5, 3), concatCase(1, 1, 1, 1, 1), concatCase(3, 2, 3, 16, 64, 1, 7),
		lrnCase(2, 12, 3, 4, net.LRN{Size: 5, K: 2, Alpha: 1e-4, Beta: 0.75}),
		lrnCase(1, 12, 3, 4, net.LRN{Size: 5, K: 1, Alpha: 0.5, Beta: 0.75, Groups: 2}),
		lrnCase(1, 8, 2, 2, net.LRN{Size: 4, K: 1, Alpha: 0.5, Beta: 0.75}), // even
		lrnCase(1, 3, 2, 2, net.LRN{Size: 9, K: 1, Alpha: 0.5, Beta: 0.5}),  // wider than the channels
		lrnCase(3, 1, 2, 1, net.LRN{Size: 1, K: 1, Alpha: 1, Beta: 1}),
		dropoutCase(net.Shape{N: 3, C: 7, H: 1, W: 1}, 0.5, net.RandomKey{Seed: 1, Step: 2, Layer: 3}),
		dropoutCase(net.Shape{N: 2, C: 5, H: 3, W: 7}, 0.5, net.RandomKey{Seed: 1 << 63, Step: 1 << 40, Layer: 1 << 31}),
		dropoutCase(net.Shape{N: 40, C: 129, H: 1, W: 1}, 0.9, net.RandomKey{Seed: 7}),
		dropoutCase(net.Shape{N: 2, C: 5, H: 1, W: 1}, 1, net.RandomKey{Seed: 7}),
		activateCase(net.Shape{N: 2, C: 3, H: 4, W: 5}, net.ReLU),
		activateCase(net.Shape{N: 2, C: 19, H: 3, W: 5}, net.Tanh),
		activateCase(net.Shape{N: 2, C: 3, H: 2, W: 5}, net.None),
		copyCase(net.Shape{N: 2, C: 3, H: 4, W: 5}),
		addCase(net.Shape{N: 2, C: 3, H: 4, W: 5}),
	)
	return t
}

// randomCase is a case of a geometry drawn by r, with a halo that is too narrow,
// right or too wide for it.
func randomCase(r *rand.Rand) opCase {
	c := randomGeometry(r)
	c.halo = r.IntN(4)
	return c
}

func randomGeometry(r *rand.Rand) opCase {
	n, c, h, w := 1+r.IntN(4), 1+r.IntN(20), 1+r.IntN(12), 1+r.IntN(12)
	switch r.IntN(8) {
	case 0, 1:
		g := net.Conv{Size: 1 + r.IntN(5), Stride: 1 + r.IntN(4), Groups: 1 + r.IntN(3), Act: net.Activation(r.IntN(3))}
		g.Pad = r.IntN(g.Size + 1)
		per, out := 1+r.IntN(9), 1+r.IntN(9)
		h, w = max(h, g.Size-2*g.Pad), max(w, g.Size-2*g.Pad)
		return convCase(n, per*g.Groups, h, w, out*g.Groups, g)
	case 2:
		return denseCase(n, c, min(h, 4), min(w, 4), 1+r.IntN(90), net.Activation(r.IntN(3)))
	case 3:
		g := net.Pool{Size: 1 + r.IntN(5), Stride: 1 + r.IntN(4), Ceil: r.IntN(2) == 0}
		g.Pad = r.IntN(g.Size)
		h, w = max(h, g.Size-2*g.Pad), max(w, g.Size-2*g.Pad)
		return poolCase(n, c, h, w, g)
	case 4:
		g := net.LRN{Size: 1 + r.IntN(9), K: 1 + r.Float32(), Alpha: r.Float32(), Beta: []float32{0.75, 0.5, 1, 0.6}[r.IntN(4)], Groups: 1 + r.IntN(3)}
		return lrnCase(n, c*g.Groups, h, w, g)
	case 5:
		g := net.Pool{Size: 1 + r.IntN(5), Stride: 1 + r.IntN(4), Ceil: r.IntN(2) == 0, CountPad: r.IntN(2) == 0}
		g.Pad = r.IntN(g.Size)
		h, w = max(h, g.Size-2*g.Pad), max(w, g.Size-2*g.Pad)
		return avgPoolCase(n, c, h, w, g)
	case 6:
		channels := []int{c}
		for range 1 + r.IntN(3) {
			channels = append(channels, 1+r.IntN(20))
		}
		return concatCase(n, h, w, channels...)
	}
	key := net.RandomKey{Seed: r.Uint64(), Step: r.Uint64N(1000), Layer: uint32(r.IntN(9))}
	return dropoutCase(net.Shape{N: n, C: c, H: h, W: w}, 0.1+0.9*r.Float32(), key)
}

// randomConv is a convolution of stride 1 with a window of 3 or 5.
func randomConv(r *rand.Rand) opCase {
	g := net.Conv{Size: 3 + 2*r.IntN(2), Stride: 1, Groups: 1 + r.IntN(3), Act: net.Activation(r.IntN(3))}
	g.Pad = r.IntN(g.Size + 1)
	h, w := max(1+r.IntN(14), g.Size-2*g.Pad), max(1+r.IntN(14), g.Size-2*g.Pad)
	c := convCase(1+r.IntN(4), (1+r.IntN(10))*g.Groups, h, w, (1+r.IntN(10))*g.Groups, g)
	c.halo = r.IntN(4)
	return c
}
