package simd

import (
	"math"
	"unsafe"
)

//go:generate go -C _gen run ./wino -out ../wino_amd64.s -stubs ../wino_stubs_amd64.go -pkg simd

// Winograd is F(Out x Out, Size x Size): Out x Out outputs of a convolution with
// a window of Size and stride 1 in Side*Side multiplications, Side = Out+Size-1
// (Winograd 1980; Lavin and Gray 2015, arXiv:1509.09308). A patch of the image
// and the filter become Side x Side planes each, which are multiplied one by one
// and summed over channels, and the planes of the sum become a patch of outputs:
//
//	outputs = A' (F filter F' . B' image B) A
//
// Patches and planes are of as many numbers in each place as there are channels.
//
// The points that polynomials are evaluated at are three pairs, and for a Side of
// 7 infinity; these have half of the error of 0, 1, -1, 2, -2 and infinity. B
// holds all scale, so that A and F are values of a polynomial and no more: that
// of a gradient's patch is the one of a filter as large.
type Winograd struct {
	Out, Size, Side int
	image           func(*uintptr)
	// By the side of the patch.
	spread, gather [maxPatch + 1]func(*uintptr)
}

// MaxSide is the largest Side, and maxPatch the largest patch that is not an
// image's.
const (
	MaxSide  = 7
	maxPatch = 5
)

// Patch is what a transform reads and writes: places of N numbers each. Steps are
// in bytes. The kernels read the fields by their place: the order is theirs.
type Patch struct {
	// Rows are where column From of each row is, Step where the next one is.
	// Columns outside of From..To-1 are zeros when they are read; a row that is
	// not there needs zeros to point to. When the patch is written, From must be
	// 0, To and High at least 1, and only High rows of To columns are.
	Rows           [MaxSide + 1]*float32
	Step           int
	From, To, High int
	// Planes is the first plane, Plane where the next one is.
	Planes *float32
	Plane  int
	N      int
	// What is written has Bias added (nil: 0) and is Low at least; a NaN stays.
	Bias *float32
	Low  float32
}

func (p *Patch) pointer() *uintptr { return (*uintptr)(unsafe.Pointer(p)) }

// Image makes planes of Side x Side inputs: B' d B.
func (w *Winograd) Image(p *Patch) { w.image(p.pointer()) }

// Filter makes planes of Size x Size weights: F d F'.
func (w *Winograd) Filter(p *Patch) { w.spread[w.Size](p.pointer()) }

// Output makes Out x Out outputs of the planes of a sum: A' m A.
func (w *Winograd) Output(p *Patch) { w.gather[w.Out](p.pointer()) }

// OutputGrad makes planes of Out x Out gradients of outputs: A d A'.
func (w *Winograd) OutputGrad(p *Patch) { w.spread[w.Out](p.pointer()) }

// FilterGrad makes the gradients of Size x Size weights of the planes of a sum of
// products of Image's and OutputGrad's: F' m F.
func (w *Winograd) FilterGrad(p *Patch) { w.gather[w.Size](p.pointer()) }

// winoForms are the kinds that there are.
var winoForms = [...]struct{ out, size int }{{4, 3}, {5, 3}, {3, 5}}

// Winograds gives the transforms of a level.
func Winograds(l Level) []*Winograd { return winograds[l] }

var winograds = func() (all [len(levelNames)][]*Winograd) {
	for l := Generic; l <= best(); l++ {
		for _, f := range winoForms {
			w := &Winograd{Out: f.out, Size: f.size, Side: f.out + f.size - 1}
			w.image = winoImage(l, w.Side)
			for _, k := range []int{f.out, f.size} {
				w.spread[k], w.gather[k] = winoSpread(l, k, w.Side), winoGather(l, w.Side, k)
			}
			all[l] = append(all[l], w)
		}
	}
	return all
}()

// winoPairs are the finite points, each with its negative. They and what is made
// of them in an image's transform must be known to the generator too.
var winoPairs = [...]float64{7. / 8, 1. / 4, 2}

// winoPoints are all finite points, in the order of the planes.
func winoPoints() (points []float64) {
	for _, p := range winoPairs {
		points = append(points, p, -p)
	}
	return points
}

// winoMatrix is rows of a transform.
type winoMatrix [MaxSide][MaxSide]float32

// winoValues evaluates polynomials of k coefficients at each of side points: F
// and A.
func winoValues(k, side int) (m winoMatrix) {
	for i, p := range winoPoints() {
		for j := range k {
			m[i][j] = float32(math.Pow(p, float64(j)))
		}
	}
	if side == MaxSide {
		m[side-1][k-1] = 1 // at infinity the highest coefficient is all
	}
	return m
}

// winoImages is B': for each point the polynomial that is 1 at it and 0 at the
// others, and for infinity the one that is 0 at all.
func winoImages(side int) (m winoMatrix) {
	points := winoPoints()
	for i, p := range points {
		row, scale := []float64{1}, 1.0
		for k, q := range points {
			if k != i {
				row, scale = timesRoot(row, q), scale*(p-q)
			}
		}
		for j, c := range row {
			m[i][j] = float32(c / scale)
		}
	}
	if side == MaxSide {
		row := []float64{1}
		for _, q := range points {
			row = timesRoot(row, q)
		}
		for j, c := range row {
			m[side-1][j] = float32(c)
		}
	}
	return m
}

// timesRoot is the polynomial p times (x - q).
func timesRoot(p []float64, q float64) []float64 {
	out := make([]float64, len(p)+1)
	for i, c := range p {
		out[i] -= q * c
		out[i+1] += c
	}
	return out
}

func (m *winoMatrix) transposed() (t winoMatrix) {
	for i := range m {
		for j := range m {
			t[j][i] = m[i][j]
		}
	}
	return t
}

// of is m d m', where m is rows x cols.
func (m *winoMatrix) of(d *winoMatrix, rows, cols int) (out winoMatrix) {
	var half winoMatrix
	for i := range rows {
		for j := range cols {
			var sum float32
			for k := range cols {
				sum += float32(m[i][k] * d[k][j])
			}
			half[i][j] = sum
		}
	}
	for i := range rows {
		for j := range rows {
			var sum float32
			for k := range cols {
				sum += float32(half[i][k] * m[j][k])
			}
			out[i][j] = sum
		}
	}
	return out
}

// genericOutward is the Go twin of the kernels that make planes, m being n x side.
func genericOutward(m winoMatrix, side, n int) func(*uintptr) {
	return func(ptr *uintptr) {
		p := (*Patch)(unsafe.Pointer(ptr))
		for c := range p.N {
			var d winoMatrix
			for i := range side {
				for j := p.From; j < p.To; j++ {
					d[i][j] = *offset[float32](p.Rows[i], (j-p.From)*p.Step+4*c)
				}
			}
			d = m.of(&d, n, side)
			for i := range n {
				for j := range n {
					*offset[float32](p.Planes, (i*n+j)*p.Plane+4*c) = d[i][j]
				}
			}
		}
	}
}

// genericInward is the Go twin of the kernels that make patches, m being side x n.
func genericInward(m winoMatrix, n, side int) func(*uintptr) {
	return func(ptr *uintptr) {
		p := (*Patch)(unsafe.Pointer(ptr))
		for c := range p.N {
			var d winoMatrix
			for i := range n {
				for j := range n {
					d[i][j] = *offset[float32](p.Planes, (i*n+j)*p.Plane+4*c)
				}
			}
			d = m.of(&d, side, n)
			for i := range p.High {
				for j := range p.To {
					v := d[i][j]
					if p.Bias != nil {
						v += *offset[float32](p.Bias, 4*c)
					}
					if v < p.Low {
						v = p.Low
					}
					*offset[float32](p.Rows[i], j*p.Step+4*c) = v
				}
			}
		}
	}
}

func genericImage(side int) func(*uintptr) { return genericOutward(winoImages(side), side, side) }

func genericSpread(k, side int) func(*uintptr) { return genericOutward(winoValues(k, side), k, side) }

func genericGather(side, k int) func(*uintptr) {
	values := winoValues(k, side)
	return genericInward(values.transposed(), side, k)
}
