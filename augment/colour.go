package augment

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"
)

// PCA is the principal components of the RGB values of a set of pictures: the
// eigenvalues of their 3 x 3 covariance on pixels scaled to 0..1, and the
// eigenvectors, Vectors[c][i] being channel c (RGB) of vector i.
type PCA struct {
	Values  [3]float64
	Vectors [3][3]float64
}

// ImageNet is the PCA of the ImageNet training set as Torch's fb.resnet.torch published it and others
// since use it. Its eigenvalues are those of pixels on 0..1.
func ImageNet() PCA {
	return PCA{
		Values: [3]float64{0.2175, 0.0188, 0.0045},
		Vectors: [3][3]float64{
			{-0.5675, 0.7192, 0.4009},
			{-0.5808, -0.0045, -0.8140},
			{-0.5836, -0.6948, 0.4203},
		},
	}
}

// Shift is the colour shift of section 4.1 of the paper, in levels of 0..255, a
// channel (RGB): the sum over i of vector i times alpha[i] times eigenvalue i, times 255.
// Taken on 0..255 pixels, as the paper's text has it, it would be 255 times as large again; no
// implementation does that.
func (p PCA) Shift(alpha [3]float64) [3]float32 { return p.shift(alpha, p.Values) }

// ShiftBySqrt is Shift with the square roots of the eigenvalues, as in the authors' own code
// (cuda-convnet2), which gives about twice the shift. That code also divides the
// sum of picture and shift by 1.1, which no shift can express.
func (p PCA) ShiftBySqrt(alpha [3]float64) [3]float32 {
	var roots [3]float64
	for i, v := range p.Values {
		roots[i] = math.Sqrt(v)
	}
	return p.shift(alpha, roots)
}

func (p PCA) shift(alpha, scale [3]float64) [3]float32 {
	var out [3]float32
	for c := range out {
		sum := 0.0
		for i := range scale {
			// The conversion keeps a compiler from fusing the multiply and the add, which
			// would give other bits on another CPU.
			sum += float64(p.Vectors[c][i] * float64(alpha[i]*scale[i]))
		}
		out[c] = float32(255 * sum)
	}
	return out
}

// NewPCA gives the principal components of pixels with that covariance of R, G
// and B (on 0..1), the greatest first. A vector has length 1, and its greatest element is
// positive. The numbers are rounded to float32, so that they survive a file of such.
func NewPCA(covariance [3][3]float64) (PCA, error) {
	symmetric := mat.NewSymDense(3, nil)
	for i, row := range covariance {
		for j, v := range row[i:] {
			symmetric.SetSym(i, i+j, v)
		}
	}
	var eigen mat.EigenSym
	if !eigen.Factorize(symmetric, true) {
		return PCA{}, fmt.Errorf("the covariance %v has no eigenvectors", covariance)
	}
	var vectors mat.Dense
	eigen.VectorsTo(&vectors)
	values := eigen.Values(nil) // the least first
	var p PCA
	for i := range 3 {
		from := 2 - i
		p.Values[i] = float64(float32(max(values[from], 0))) // rounding can leave it below
		sign, greatest := 1., 0.
		for c := range 3 {
			if v := vectors.At(c, from); math.Abs(v) > greatest {
				sign, greatest = math.Copysign(1, v), math.Abs(v)
			}
		}
		for c := range 3 {
			p.Vectors[c][i] = float64(float32(sign * vectors.At(c, from)))
		}
	}
	return p, nil
}
