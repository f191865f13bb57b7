package augment

import "math"

// Filter is how a picture is resampled. All are antialiased as Pillow's: when reducing, the filter is as much wider.
type Filter uint8

// The filters, which are those of Pillow and, antialiased, of torchvision.
const (
	// Bilinear is the triangle, two samples wide when enlarging. It alone has kernels in assembly.
	Bilinear Filter = iota
	// Bicubic is Keys's cubic convolution with a = -0.5 (IEEE Trans. ASSP 29, 1981), four samples wide.
	Bicubic
	// Lanczos is the sine cardinal windowed by its own main lobe of three times the width, six samples wide.
	Lanczos
)

var filterNames = [...]string{"bilinear", "bicubic", "lanczos"}

func (f Filter) String() string { return filterNames[f] }

// FilterOf gives the filter of a name: bilinear, bicubic or lanczos.
func FilterOf(name string) (f Filter, ok bool) {
	for i, n := range filterNames {
		if n == name {
			return Filter(i), true
		}
	}
	return 0, false
}

// support is how far the filter reaches to each side, in samples when enlarging.
func (f Filter) support() int64 { return int64(f) + 1 }

// at is the unnormalised weight of a sample at distance x, which is not below 0. The conversions keep a compiler
// from fusing a multiply and an add, which would give other bits on another CPU.
func (f Filter) at(x float64) float64 {
	switch {
	case x >= float64(f.support()):
		return 0
	case f == Bilinear:
		return 1 - x
	case f == Bicubic && x < 1:
		return float64((float64(1.5*x)-2.5)*float64(x*x)) + 1
	case f == Bicubic:
		return -0.5 * (float64((float64((x-5)*x)+8)*x) - 4)
	case x == 0:
		return 1
	}
	return sinPi(x) * sinPi(x/3) * 3 / (math.Pi * math.Pi * x * x)
}

// sinPi is sin(pi x), to 1e-9, by its series about the nearest whole number.
func sinPi(x float64) float64 {
	n := math.Floor(x + 0.5)
	t := math.Pi * (x - n)
	if int(n)%2 != 0 {
		t = -t
	}
	sum, term := t, t
	for k := 2.0; k <= 12; k += 2 {
		term *= -t * t / (k * (k + 1))
		sum += float64(term)
	}
	return sum
}

// weigh fills w with the negated weights of samples at distances d, d+step, ... from the centre, of which unit is
// one sample's width of the filter. scratch has their number of elements.
func (f Filter) weigh(w []int32, scratch []float64, d, step, unit int64) {
	total := 0.0
	for j := range scratch {
		scratch[j] = f.at(float64(max(d, -d)) / float64(unit))
		total += scratch[j]
		d += step
	}
	// As for the triangle the running sum is rounded, so that the total is exact.
	sum, before := 0.0, int32(0)
	for j := range w[:len(w)-1] {
		sum += scratch[j]
		upTo := int32(math.Floor(float64(sum/total*(1<<weightBits)) + 0.5))
		w[j] = before - upTo
		before = upTo
	}
	w[len(w)-1] = before - 1<<weightBits
}

// What overshoots, as these filters do beside edges, is held to the levels there are after each pass, as in Pillow,
// and so is in the range that the triangle gives.

// mixWide is mixGo for weights of either sign.
func mixWide(dst []int16, rows [][]byte, weights []int32) {
	for i := range dst {
		sum := int32(downBias)
		for j, row := range rows {
			sum -= weights[j] * int32(row[i])
		}
		dst[i] = int16(min(max(sum>>downShift, -128<<downBits), 127<<downBits))
	}
}

// squeezeWide is squeezeGo for weights of either sign.
func squeezeWide(dst, src []int16, a *axis, bias int32) {
	up := int16((bias - centredBias) >> acrossShift)
	for o, first := range a.first[:len(dst)] {
		w := a.wide[o*a.stride:][:a.taps]
		s := src[first:][:a.taps]
		sum := int64(centredBias)
		for j, wj := range w {
			sum -= int64(s[j]) * int64(wj)
		}
		dst[o] = int16(min(max(sum>>acrossShift, -128<<acrossBits), 127<<acrossBits)) + up
	}
}
