//go:build cuda && linux

package cuda

import (
	"strings"

	"gorgonia.org/cu"

	"sluice/net"
)

// product is one launch of gemm.cu, whose head says what its numbers are.
type product struct {
	op, tensor  string
	pass        string // forward, data or weight
	images      cu.DevicePtr
	plain       cu.DevicePtr
	out, bias   cu.DevicePtr
	m, n, k     int // of a group
	groups      int
	h, w, ld, c int // of the images that are gathered from; c of a group
	taps        int // columns of a window
	ph, pw      int // pixels of the images that rows count
	stride, pad int
	plainLD     int
	outLD       int
	outGroup    int
	relu        bool
	// aligned says that numbers can be loaded four at a time.
	aligned bool
}

const (
	// blocksWanted is two for each multiprocessor of an H100: with fewer the sums are cut
	// into parts. It is the same for every card, so that all give the same bits.
	blocksWanted = 264
	leastDepth   = 256 // of a part
	sumBlock     = 16  // what kernels take at a time
)

// parts is into how many parts the sums are cut, and how long each is.
func (p *product) parts(tile int) (parts, each int) {
	blocks := ceil(p.m, tile) * ceil(p.n, tile) * p.groups
	parts = min(blocksWanted/blocks, p.k/leastDepth, scratchBytes/(4*p.m*p.n*p.groups))
	if parts < 2 {
		return 1, p.k
	}
	each = ceil(ceil(p.k, parts), sumBlock) * sumBlock
	return ceil(p.k, each), each
}

func ceil(a, b int) int { return (a + b - 1) / b }

// tile is the size of the blocks: large ones read less, small ones waste less of a small
// product. The bits do not depend on it, but for the parts, which are those of the large.
func (p *product) tile() int {
	if p.m > 64 && p.n > 64 {
		return 128
	}
	return 64
}

func (e *Engine) multiply(p product) {
	tile := p.tile()
	parts, each := p.parts(128)
	out, outLD, outGroup := p.out, p.outLD, p.outGroup
	if parts > 1 {
		var ok bool
		if out, ok = e.need(&e.sums, 4*parts*p.groups*p.m*p.n); !ok {
			return
		}
		outLD, outGroup = p.n, p.m*p.n
	}
	if e.smallest > 0 {
		tile = e.smallest
	}
	l := launch{kernel: kernelName(p.pass, tile, p.aligned, e.tf32), op: p.op, tensor: p.tensor, threads: 256,
		grid: [3]int{ceil(p.m, tile), ceil(p.n, tile), p.groups * parts}}
	l.shared = sharedBytes(l.kernel)
	bias, relu := p.bias, p.relu
	if parts > 1 {
		bias, relu = 0, false
	}
	l.pointer(p.images).pointer(p.plain).pointer(out).pointer(bias).
		ints(p.m, p.n, p.k, each, p.groups, p.h, p.w, p.ld, p.c, p.taps, p.ph, p.pw, p.stride, p.pad, p.plainLD, outLD, outGroup,
			p.groups*p.m*p.n, flag(relu))
	e.do(l)
	if parts > 1 {
		l := elements("gemm_reduce", p.op, p.tensor, p.groups*p.m*p.n)
		l.pointer(out).pointer(p.out).pointer(p.bias).ints(parts, p.m, p.n, p.groups, p.outLD, p.outGroup, flag(p.relu))
		e.do(l)
	}
}

// kernelName is that of a pass, without making a new string each time.
func kernelName(pass string, tile int, aligned, tf32 bool) string {
	at := 0
	if tile == 128 {
		at = 2
	}
	if aligned {
		at++
	}
	names := &kernelNames[flag(tf32)]
	switch pass {
	case forwardPass:
		return names[0][at]
	case dataPass:
		return names[1][at]
	}
	return names[2][at]
}

// kernelNames are those of gemm.cu and of gemm_tf32.cu.
var kernelNames = func() (names [2][3][4]string) {
	for kind, prefix := range []string{"gemm_", "gemm_tf32_"} {
		for pass, name := range []string{forwardPass, dataPass, weightPass} {
			for at, suffix := range []string{"_64_1", "_64_4", "_128_1", "_128_4"} {
				names[kind][pass][at] = prefix + name + suffix
			}
		}
	}
	return names
}()

// sharedBytes is the shared memory that a kernel of gemm_tf32.cu is launched with: four
// stages of both factors, in rows with what is summed over along or across them.
func sharedBytes(kernel string) int {
	rest, ok := strings.CutPrefix(kernel, "gemm_tf32_")
	if !ok {
		return 0
	}
	tile := 64
	if strings.Contains(rest, "_128_") {
		tile = 128
	}
	along, across := tile*(sumBlock+4), sumBlock*(tile+8)
	switch {
	case strings.HasPrefix(rest, forwardPass):
		return 4 * 4 * (along + along)
	case strings.HasPrefix(rest, dataPass):
		return 4 * 4 * (along + across)
	}
	return 4 * 4 * (across + across)
}

const (
	forwardPass = "forward"
	dataPass    = "data"
	weightPass  = "weight"
)

// The three passes of a layer: images of x and y, of a group c and o channels.
//
// Of an input's three channels, which are not loaded four at a time, tensor cores are fed the
// copy with a fourth one of zeros, and filters that have it too (docs/GPU.md has the count).

func (e *Engine) forward(op string, y, x, w, b *net.Tensor, xs, ys net.Shape, g net.Conv) {
	groups := max(g.Groups, 1)
	c, o := xs.C/groups, ys.C/groups
	p := product{op: op, tensor: y.Name, pass: forwardPass, images: at(x), plain: at(w), out: at(y), bias: at(b),
		m: ys.N * ys.H * ys.W, n: o, k: g.Size * g.Size * c, groups: groups,
		h: xs.H, w: xs.W, ld: xs.C, c: c, taps: g.Size, ph: ys.H, pw: ys.W, stride: g.Stride, pad: g.Pad,
		outLD: ys.C, outGroup: o, relu: g.Act == net.ReLU, aligned: c%4 == 0}
	if filters, ok := e.ofFour(&p, x, o); ok {
		p.plain, p.k = filters, g.Size*g.Size*4
		l := elements("four_channels", op, w.Name, o*g.Size*g.Size)
		l.pointer(filters).pointer(at(w)).ints(o * g.Size * g.Size)
		e.do(l)
	}
	e.multiply(p)
	if g.Act == net.Tanh {
		e.activate(op, y, y, g.Act)
	}
}

func (e *Engine) dataGrad(op string, dx, dy, w *net.Tensor, xs, ys net.Shape, g net.Conv) {
	groups := max(g.Groups, 1)
	c, o := xs.C/groups, ys.C/groups
	e.multiply(product{op: op, tensor: dx.Name, pass: dataPass, images: at(dy), plain: at(w), out: at(dx),
		m: xs.N * xs.H * xs.W, n: c, k: g.Size * g.Size * o, groups: groups,
		h: ys.H, w: ys.W, ld: ys.C, c: o, taps: g.Size, ph: xs.H, pw: xs.W, stride: g.Stride, pad: g.Pad,
		outLD: xs.C, outGroup: c, aligned: c%4 == 0 && o%4 == 0})
}

func (e *Engine) weightGrad(op string, dw, dy, x *net.Tensor, xs, ys net.Shape, g net.Conv) {
	groups := max(g.Groups, 1)
	c, o := xs.C/groups, ys.C/groups
	n := g.Size * g.Size * c
	p := product{op: op, tensor: dw.Name, pass: weightPass, images: at(x), plain: at(dy), out: at(dw),
		m: o, n: n, k: ys.N * ys.H * ys.W, groups: groups,
		h: xs.H, w: xs.W, ld: xs.C, c: c, taps: g.Size, ph: ys.H, pw: ys.W, stride: g.Stride, pad: g.Pad,
		plainLD: ys.C, outLD: n, outGroup: o * n, aligned: c%4 == 0 && o%4 == 0}
	filters, ok := cu.DevicePtr(0), false
	if o%4 == 0 {
		filters, ok = e.ofFour(&p, x, o)
	}
	if ok {
		n := g.Size * g.Size * 4
		p.out, p.n, p.outLD, p.outGroup = filters, n, n, o*n
	}
	e.multiply(p)
	if ok { // the three that are wanted
		l := elements("copy_channels", op, dw.Name, n*o)
		l.pointer(at(dw)).pointer(filters).ints(o*g.Size*g.Size, 3, 3, 0, 4, 0)
		e.do(l)
	}
}

// ofFour has p gather from x's copy of four channels, if it has one, and gives memory for o
// filters of as many.
func (e *Engine) ofFour(p *product, x *net.Tensor, o int) (filters cu.DevicePtr, ok bool) {
	four := x.Mem.(*buffer).four
	if four == 0 || !e.tf32 || p.c != 3 { // as of a dense layer, or of groups
		return 0, false
	}
	if filters, ok = e.need(&e.filters, 4*4*p.taps*p.taps*o); ok {
		p.images, p.ld, p.c, p.aligned = four, 4, 4, true
	}
	return filters, ok
}

// Conv is a convolution with its bias and activation.
func (e *Engine) Conv(y, x, w, b *net.Tensor, g net.Conv) {
	if e.ready("Conv", y, x, w, b) && e.fits("Conv", net.ConvFits(y, x, w, b, g)) {
		e.forward("Conv", y, x, w, b, x.Shape, y.Shape, g)
	}
}

// wanted says whether the gradients of weight and bias are both wanted and ready, or
// neither is wanted.
func (e *Engine) wanted(op string, dw, db *net.Tensor) bool {
	return dw == nil && db == nil || e.ready(op, dw, db)
}

// ConvGrad computes the gradients of Conv, after turning dy into the gradient of what
// went into the activation.
func (e *Engine) ConvGrad(dx, dw, db, dy, y, x, w *net.Tensor, g net.Conv) {
	const op = "ConvGrad"
	if !e.ready(op, dy, y, x, w) || !e.wanted(op, dw, db) || !e.fits(op, net.ConvFits(y, x, w, db, g)) ||
		!e.fits(op, net.MapsFit(y, dy)) || dw != nil && !e.fits(op, net.ParametersFit(w, dw)) ||
		dx != nil && (!e.ready(op, dx) || !e.fits(op, net.MapsFit(x, dx))) {
		return
	}
	e.gradients(op, dx, dw, db, dy, y, x, w, x.Shape, y.Shape, g)
}

func (e *Engine) gradients(op string, dx, dw, db, dy, y, x, w *net.Tensor, xs, ys net.Shape, g net.Conv) {
	e.delta(op, db, dy, y, g.Act)
	if dw != nil {
		e.weightGrad(op, dw, dy, x, xs, ys, g)
	}
	if dx != nil {
		e.dataGrad(op, dx, dy, w, xs, ys, g)
	}
}

// flat is a dense layer as a convolution: images of one pixel with all numbers for
// channels, which is their order in memory.
func flat(x, y *net.Tensor, act net.Activation) (xs, ys net.Shape, g net.Conv) {
	return net.Shape{N: x.Shape.N, C: x.Shape.Image(), H: 1, W: 1}, y.Shape, net.Conv{Size: 1, Stride: 1, Act: act}
}

// Dense is a dense layer with its bias and activation.
func (e *Engine) Dense(y, x, w, b *net.Tensor, act net.Activation) {
	if e.ready("Dense", y, x, w, b) && e.fits("Dense", net.DenseFits(y, x, w, b, act)) {
		xs, ys, g := flat(x, y, act)
		e.forward("Dense", y, x, w, b, xs, ys, g)
	}
}

// DenseGrad computes the gradients of Dense, see ConvGrad.
func (e *Engine) DenseGrad(dx, dw, db, dy, y, x, w *net.Tensor, act net.Activation) {
	const op = "DenseGrad"
	if !e.ready(op, dy, y, x, w) || !e.wanted(op, dw, db) || !e.fits(op, net.DenseFits(y, x, w, db, act)) ||
		!e.fits(op, net.MapsFit(y, dy)) || dw != nil && !e.fits(op, net.ParametersFit(w, dw)) ||
		dx != nil && (!e.ready(op, dx) || !e.fits(op, net.MapsFit(x, dx))) {
		return
	}
	xs, ys, g := flat(x, y, act)
	e.gradients(op, dx, dw, db, dy, y, x, w, xs, ys, g)
}

// delta multiplies dy by the activation's slope, and sums it over pixels into db.
func (e *Engine) delta(op string, db, dy, y *net.Tensor, act net.Activation) {
	if db == nil && act == net.None {
		return
	}
	s := dy.Shape
	pixels := s.N * s.H * s.W
	parts, each := columnParts(pixels)
	var sums cu.DevicePtr
	if db != nil {
		var ok bool
		if sums, ok = e.need(&e.sums, 4*parts*s.C); !ok {
			return
		}
	}
	l := launch{kernel: "delta", op: op, tensor: dy.Name, threads: 256, grid: [3]int{ceil(s.C, 32), parts, 1}}
	l.pointer(at(dy)).pointer(at(y)).pointer(sums).ints(pixels, s.C, each, int(act))
	e.do(l)
	if db != nil {
		l := launch{kernel: "sum_parts", op: op, tensor: db.Name, threads: 256, grid: [3]int{ceil(s.C, 32), 1, 1}}
		l.pointer(at(db)).pointer(sums).ints(parts, s.C)
		e.do(l)
	}
}

// columnParts cuts the pixels of a sum for each channel.
func columnParts(pixels int) (parts, each int) {
	each = max(64, ceil(pixels, 256))
	return ceil(pixels, each), each
}
