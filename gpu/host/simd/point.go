package simd

import (
	"math"

	"sluice/net"
)

//go:generate go -C _gen run ./point -out ../point_amd64.s -stubs ../point_stubs_amd64.go -pkg simd

// Points are the loops of the ops that do little with each number they read, of
// one level. All levels give the same bits: products are rounded before they are
// added, roots and quotients are true ones, and sums are taken in the same order.
// Slices may be the same, but else must not overlap.
type Points struct {
	add      func(y, a, b []float32)
	reluGrad func(dy, y []float32)
	tanhGrad func(dy, y []float32)
	tanh     func(y []float32)
	sgd      func(w, v, dw []float32, momentum, decay, rate, ahead, back float32)

	squares  func(terms, x []float32, c, stride int)
	norm     func(y, scale, x, terms []float32, c, stride, size int, k, alpha float32)
	ratios   func(terms, d, dy, x, scale []float32, c, stride int)
	normGrad func(dx, d, x, terms []float32, c, stride, size int, factor float32)

	pool     func(y, x []float32, c, pixel, n, rows, cols, row, step int)
	poolArg  func(y []float32, arg []uint16, x []float32, c, pixel, n, rows, cols, row, step, place, size int)
	poolGrad func(dx, dy []float32, arg []uint16, c, pixel, n, rows, cols, row, rowArg, step, place, stride, size int)
	mean     func(y, x []float32, c, pixel, n, rows, cols, row, step, next int, divisor float32)

	squareSum func(x []float32) float64

	dropout func(y, x []float32, block, layer uint32, step, seed uint64, limit uint32, scale float32)
	affine  func(dst []float32, src []byte, mean, shift, scale []float32, order []byte)
	// affineImage is affine with a mean for each number of dst.
	affineImage func(dst []float32, src []byte, mean, shift, scale []float32, order []byte)
}

// genericPoints are the Go twins, which say what each loop computes.
var genericPoints = Points{
	add: add, reluGrad: reluGrad, tanhGrad: tanhGrad, tanh: tanh, sgd: sgd, squareSum: squareSum,
	squares: squares, norm: norm, ratios: ratios, normGrad: normGrad,
	pool: pool, poolArg: poolArg, poolGrad: poolGrad, mean: mean,
	dropout: dropout, affine: affine, affineImage: affineImage,
}

// Add is y = a + b.
func (p *Points) Add(y, a, b []float32) { p.add(y, a[:len(y)], b[:len(y)]) }

func add(y, a, b []float32) {
	for i := range y {
		y[i] = a[i] + b[i]
	}
}

// ReLUGrad is dy = 0 where y <= 0.
func (p *Points) ReLUGrad(dy, y []float32) { p.reluGrad(dy, y[:len(dy)]) }

func reluGrad(dy, y []float32) {
	for i, v := range y {
		if v <= 0 {
			dy[i] = 0
		}
	}
}

// TanhGrad is dy *= (1 - y) * (1 + y). 1 - y*y would cancel near 1.
func (p *Points) TanhGrad(dy, y []float32) { p.tanhGrad(dy, y[:len(dy)]) }

func tanhGrad(dy, y []float32) {
	for i, v := range y {
		dy[i] *= (1 - v) * (1 + v)
	}
}

// Tanh is y = tanh(y), at most 2.5 units in the last place off (2.424 of all float32).
func (p *Points) Tanh(y []float32) { p.tanh(y) }

// tanh is (e^(2a) - 1) / (e^(2a) - 1 + 2) with a = |y|, of which all is made in a form that
// does not cancel: with 2a = k ln 2 + r, e^(2a) - 1 is 2^k (e^r - 1) + (2^k - 1), and e^r - 1
// the series of r up to r^7/5040. From 10 on it is 1.
func tanh(y []float32) {
	const (
		shift   = 0x1.8p23    // adding it rounds to an integer, which its low bits then hold
		ln2High = 0x1.62e4p-1 // short, so that its products with k are exact
		ln2Low  = math.Ln2 - ln2High
	)
	for i, v := range y {
		b := math.Float32bits(v)
		a := min(math.Float32frombits(b&^(1<<31)), 10)
		a += a
		shifted := float32(a*math.Log2E) + shift
		k := shifted - shift
		r := float32(a-float32(k*ln2High)) - float32(k*ln2Low)
		p := float32(r*(1./5040)) + 1./720
		p = float32(r*p) + 1./120
		p = float32(r*p) + 1./24
		p = float32(r*p) + 1./6
		p = float32(r*p) + 1./2
		p = r + float32(p*float32(r*r))
		power := math.Float32frombits(math.Float32bits(shifted)<<23 + 0x3f800000) // 2^k
		e := float32(power*p) + (power - 1)
		y[i] = math.Float32frombits(math.Float32bits(e/(e+2)) | b&(1<<31))
	}
}

// SquareSum is the sum of squares in float64.
func (p *Points) SquareSum(x []float32) float64 { return p.squareSum(x) }

func squareSum(x []float32) float64 {
	// Eight sums, for one alone would wait for itself.
	var s [8]float64
	for ; len(x) >= 8; x = x[8:] {
		v := (*[8]float32)(x)
		for i := range s {
			s[i] += float64(v[i]) * float64(v[i])
		}
	}
	for i, v := range x {
		s[i] += float64(v) * float64(v)
	}
	return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]))
}

// tiny is the smallest normal float32.
const tiny = 0x1p-126

// SGD is one step of gradient descent, see net.SGD.Factors. Momentum that nothing
// feeds shrinks into the numbers below the normal ones and, rounding up, stays
// there; some processors are a hundred times slower on those, so they become zero.
func (p *Points) SGD(w, v, dw []float32, s net.SGD) {
	momentum, decay, rate, ahead, back := s.Factors()
	p.sgd(w, v[:len(w)], dw[:len(w)], momentum, decay, rate, ahead, back)
}

func sgd(w, v, dw []float32, momentum, decay, rate, ahead, back float32) {
	for i, x := range w {
		old := v[i]
		m := float32(float32(momentum*old)-float32(decay*x)) - float32(rate*dw[i])
		if m < tiny && m > -tiny {
			m = 0
		}
		v[i], w[i] = m, x+(float32(ahead*m)-float32(back*old))
	}
}

// Norm is local response normalisation of some pixels, each of C numbers one
// after another. The window of each number is Size terms, which lie in a buffer
// of Stride floats a pixel, at least C+Size-1: the window of number i begins at i.
type Norm struct {
	C, Stride, Size int
	K, Alpha, Beta  float32
}

// Squares is terms = x*x: number i of pixel p to terms[p*Stride+i].
func (p *Points) Squares(terms, x []float32, n Norm) {
	n.check(terms, x, 1)
	p.squares(terms, x, n.C, n.Stride)
}

func squares(terms, x []float32, c, stride int) {
	for len(x) > 0 {
		for i, v := range x[:c] {
			terms[i] = v * v
		}
		x, terms = x[c:], terms[min(stride, len(terms)):]
	}
}

// check panics if terms, in windows of size, are too few for x, or x is no whole
// number of pixels.
func (n *Norm) check(terms, x []float32, size int) {
	if pixels := (len(x) + n.C - 1) / n.C; pixels > 0 {
		_ = terms[:(pixels-1)*n.Stride+n.C+size-1]
		_ = x[: pixels*n.C : len(x)] // whole pixels
	}
}

// Norm is s = K + Alpha * (the sum of the window) and y = x / s^Beta. It keeps s
// in scale, unless that is empty.
func (p *Points) Norm(y, scale, x, terms []float32, n Norm) {
	n.check(terms, x, n.Size)
	y = y[:len(x)]
	if len(scale) > 0 {
		scale = scale[:len(x)]
	}
	if n.Beta != 0.75 {
		normPower(y, scale, x, terms, n)
		return
	}
	p.norm(y, scale, x, terms, n.C, n.Stride, n.Size, n.K, n.Alpha)
}

func norm(y, scale, x, terms []float32, c, stride, size int, k, alpha float32) {
	normPower(y, scale, x, terms, Norm{C: c, Stride: stride, Size: size, K: k, Alpha: alpha, Beta: 0.75})
}

func normPower(y, scale, x, terms []float32, n Norm) {
	for at := 0; at < len(x); at += n.C {
		for i, v := range x[at : at+n.C] {
			s := n.K + float32(n.Alpha*window(terms[i:], n.Size))
			if len(scale) > 0 {
				scale[at+i] = s
			}
			y[at+i] = v / power(s, n.Beta)
		}
		terms = terms[min(n.Stride, len(terms)):]
	}
}

// window is the sum of the first size terms. A running sum would cost less, but
// leave the rounding of every term that passed through in those after it.
func window(terms []float32, size int) float32 {
	sum := terms[0]
	for _, t := range terms[1:size] {
		sum += t
	}
	return sum
}

// power is s^beta; the paper's 3/4, and what it lacks to 1, are square roots.
func power(s, beta float32) float32 {
	if beta == 0.75 || beta == 0.25 {
		half := float32(math.Sqrt(float64(s)))
		quarter := float32(math.Sqrt(float64(half)))
		if beta == 0.25 {
			return quarter
		}
		return half * quarter
	}
	return float32(math.Pow(float64(s), float64(beta)))
}

// Ratios is d = dy / scale^Beta and terms = d * x / scale, placed like those of
// Squares.
func (p *Points) Ratios(terms, d, dy, x, scale []float32, n Norm) {
	n.check(terms, x, 1)
	d, dy, scale = d[:len(x)], dy[:len(x)], scale[:len(x)]
	if n.Beta != 0.75 {
		ratiosPower(terms, d, dy, x, scale, n)
		return
	}
	p.ratios(terms, d, dy, x, scale, n.C, n.Stride)
}

func ratios(terms, d, dy, x, scale []float32, c, stride int) {
	ratiosPower(terms, d, dy, x, scale, Norm{C: c, Stride: stride, Beta: 0.75})
}

func ratiosPower(terms, d, dy, x, scale []float32, n Norm) {
	for at := 0; at < len(x); at += n.C {
		for i, v := range x[at : at+n.C] {
			// One quotient will do for both: root is s^(1-Beta).
			inverse, root := 1/scale[at+i], power(scale[at+i], 1-n.Beta)
			g := dy[at+i] * (inverse * root)
			d[at+i], terms[i] = g, g*v*inverse
		}
		terms = terms[min(n.Stride, len(terms)):]
	}
}

// NormGrad is dx = d - 2*Alpha*Beta * x * (the sum of the window).
func (p *Points) NormGrad(dx, d, x, terms []float32, n Norm) {
	n.check(terms, x, n.Size)
	p.normGrad(dx[:len(x)], d[:len(x)], x, terms, n.C, n.Stride, n.Size, 2*n.Alpha*n.Beta)
}

func normGrad(dx, d, x, terms []float32, c, stride, size int, factor float32) {
	for at := 0; at < len(x); at += c {
		for i, v := range x[at : at+c] {
			dx[at+i] = d[at+i] - float32(float32(factor*v)*window(terms[i:], size))
		}
		terms = terms[min(stride, len(terms)):]
	}
}

// Windows is a run of N pooling windows along a line, or of the pixels that they
// give back to, which differ in nothing but where they are. Distances are in
// floats.
type Windows struct {
	C          int // channels
	Pixel      int // from one pixel to the next, in x and y alike
	N          int // at least 1
	Rows, Cols int // of a window: at least 1
	Row        int // from one row of a window to the next
	Step       int // from one window to the next, in x
	Place      int // the place of the first element, see each op
	Size       int // places from one row of a window to the next

	// Of PoolGrad alone.
	RowArg int // like Row, in arg
	Stride int // of the windows, in pixels

	// Of Mean alone.
	Next    int     // from one mean to the next, in y
	Divisor float32 // of the sums
}

// Pool is the greatest element of each window, the first of equals, and NaN above
// all. arg is its place, counted from Place, Size a row; nil if not wanted:
//
//	for n, i := range N, C {
//		y[n*Pixel+i], arg[n*Pixel+i] = greatest over r, q := range Rows, Cols
//			of x[n*Step+r*Row+q*Pixel+i], Place+r*Size+q
//	}
func (p *Points) Pool(y []float32, arg []uint16, x []float32, w Windows) {
	last := (w.N-1)*w.Pixel + w.C
	y, x = y[:last], x[:(w.N-1)*w.Step+(w.Rows-1)*w.Row+(w.Cols-1)*w.Pixel+w.C]
	if arg == nil {
		p.pool(y, x, w.C, w.Pixel, w.N, w.Rows, w.Cols, w.Row, w.Step)
		return
	}
	p.poolArg(y, arg[:last], x, w.C, w.Pixel, w.N, w.Rows, w.Cols, w.Row, w.Step, w.Place, w.Size)
}

func pool(y, x []float32, c, pixel, n, rows, cols, row, step int) {
	for o := range n {
		y := y[o*pixel:][:c]
		copy(y, x[o*step:])
		for r := range rows {
			for q := range cols {
				for i, v := range x[o*step+r*row+q*pixel:][:c] {
					if best := y[i]; v > best || v != v && best == best {
						y[i] = v
					}
				}
			}
		}
	}
}

func poolArg(y []float32, arg []uint16, x []float32, c, pixel, n, rows, cols, row, step, place, size int) {
	for o := range n {
		y, arg := y[o*pixel:][:c], arg[o*pixel:][:c]
		copy(y, x[o*step:])
		for i := range arg {
			arg[i] = uint16(place)
		}
		for r := range rows {
			for q := range cols {
				at := uint16(place + r*size + q)
				for i, v := range x[o*step+r*row+q*pixel:][:c] {
					if best := y[i]; v > best || v != v && best == best {
						y[i], arg[i] = v, at
					}
				}
			}
		}
	}
}

// PoolGrad is the sum, for each pixel of dx, over the windows that hold it, of
// which it is at place Place in the first:
//
//	for n, i := range N, C {
//		dx[n*Step+i] = sum over r, q := range Rows, Cols of dy[n*Pixel+r*Row+q*Pixel+i]
//			where arg[n*Pixel+r*RowArg+q*Pixel+i] == Place-(r*Size+q)*Stride
//	}
func (p *Points) PoolGrad(dx, dy []float32, arg []uint16, w Windows) {
	last := (w.N+w.Cols-2)*w.Pixel + w.C
	dx, dy, arg = dx[:(w.N-1)*w.Step+w.C], dy[:last+(w.Rows-1)*w.Row], arg[:last+(w.Rows-1)*w.RowArg]
	p.poolGrad(dx, dy, arg, w.C, w.Pixel, w.N, w.Rows, w.Cols, w.Row, w.RowArg, w.Step, w.Place, w.Stride, w.Size)
}

func poolGrad(dx, dy []float32, arg []uint16, c, pixel, n, rows, cols, row, rowArg, step, place, stride, size int) {
	for o := range n {
		dx := dx[o*step:][:c]
		clear(dx)
		for r := range rows {
			for q := range cols {
				at := uint16(place - (r*size+q)*stride)
				arg := arg[o*pixel+r*rowArg+q*pixel:][:c]
				for i, v := range dy[o*pixel+r*row+q*pixel:][:c] {
					if arg[i] == at {
						dx[i] += v
					}
				}
			}
		}
	}
}

// Mean is the sum of each window, divided:
//
//	for n, i := range N, C {
//		y[n*Next+i] = (sum over r, q := range Rows, Cols of x[n*Step+r*Row+q*Pixel+i]) / Divisor
//	}
func (p *Points) Mean(y, x []float32, w Windows) {
	y, x = y[:(w.N-1)*w.Next+w.C], x[:(w.N-1)*w.Step+(w.Rows-1)*w.Row+(w.Cols-1)*w.Pixel+w.C]
	p.mean(y, x, w.C, w.Pixel, w.N, w.Rows, w.Cols, w.Row, w.Step, w.Next, w.Divisor)
}

func mean(y, x []float32, c, pixel, n, rows, cols, row, step, next int, divisor float32) {
	for o := range n {
		y := y[o*next:][:c]
		copy(y, x[o*step:])
		for r := range rows {
			for q := range cols {
				if r+q == 0 {
					continue
				}
				for i, v := range x[o*step+r*row+q*pixel:][:c] {
					y[i] += v
				}
			}
		}
		for i := range y {
			y[i] /= divisor
		}
	}
}

// Dropout is y = x*scale where the words of key's stream from block on, one for
// each element, are below limit, else 0.
func (p *Points) Dropout(y, x []float32, key net.RandomKey, block, limit uint32, scale float32) {
	p.dropout(y, x[:len(y)], block, key.Layer, key.Step, key.Seed, limit, scale)
}

func dropout(y, x []float32, block, layer uint32, step, seed uint64, limit uint32, scale float32) {
	key := net.RandomKey{Layer: layer, Step: step, Seed: seed}
	for i := 0; i < len(y); i += 4 {
		words := key.Block(block + uint32(i/4))
		for l := range min(4, len(y)-i) {
			if words[l] < limit {
				y[i+l] = x[i+l] * scale
			} else {
				y[i+l] = 0
			}
		}
	}
}

// affinePixels is how many pixels the tables of an Affine hold.
const affinePixels = 8

// Affine is how RGB bytes become floats: (byte - mean + shift) * scale, with
// numbers for each channel. Its tables repeat them for as many pixels as a loop
// takes at a time.
type Affine struct {
	mean, shift, scale [3 * affinePixels]float32
	order              [6 * affinePixels]byte
}

// Set is for floats in RGB order, or BGR if swap. What it is told is in RGB order.
func (a *Affine) Set(mean, shift, scale [3]float32, swap bool) {
	from := [3]int{0, 1, 2}
	if swap {
		from = [3]int{2, 1, 0}
	}
	for i := range 3 * affinePixels {
		c := from[i%3]
		a.mean[i], a.shift[i], a.scale[i] = mean[c], shift[c], scale[c]
		// Bytes are taken from the 16 that begin half a vector of eight earlier
		// for each vector before: those hold all bytes of the pixels it touches.
		a.order[i/8*16+i%8] = byte(i - i%3 + c - i/8*4)
	}
}

// Affine converts len(dst)/3 pixels.
func (p *Points) Affine(dst []float32, src []byte, a *Affine) {
	p.affine(dst, src[:len(dst)], a.mean[:], a.shift[:], a.scale[:], a.order[:])
}

func affine(dst []float32, src []byte, mean, shift, scale []float32, order []byte) {
	a, b, c := order[0], order[1], order[2] // of the first pixel
	for len(dst) >= 3 && len(src) >= 3 {
		dst[0] = (float32(src[a]) - mean[0] + shift[0]) * scale[0]
		dst[1] = (float32(src[b]) - mean[1] + shift[1]) * scale[1]
		dst[2] = (float32(src[c]) - mean[2] + shift[2]) * scale[2]
		dst, src = dst[3:], src[3:]
	}
}

// AffineImage converts len(dst)/3 pixels, each less the numbers of mean at its
// place instead of a's. They are in the order of dst.
func (p *Points) AffineImage(dst []float32, src []byte, mean []float32, a *Affine) {
	p.affineImage(dst, src[:len(dst)], mean[:len(dst)], a.shift[:], a.scale[:], a.order[:])
}

func affineImage(dst []float32, src []byte, mean, shift, scale []float32, order []byte) {
	a, b, c := order[0], order[1], order[2] // of the first pixel
	for len(dst) >= 3 && len(src) >= 3 && len(mean) >= 3 {
		dst[0] = (float32(src[a]) - mean[0] + shift[0]) * scale[0]
		dst[1] = (float32(src[b]) - mean[1] + shift[1]) * scale[1]
		dst[2] = (float32(src[c]) - mean[2] + shift[2]) * scale[2]
		dst, src, mean = dst[3:], src[3:], mean[3:]
	}
}
