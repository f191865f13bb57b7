package augment

import "math/bits"

// weightBits is the precision of filter weights: those of one output sum to exactly
// 1<<weightBits, and 255<<weightBits still fits in 32 bits.
const weightBits = 24

// axis is one axis of the resampling filter for a run of outputs: output o is the sum over j of
// weights[o*taps+j] * input[first[o]+j].
//
// The filter is the triangle of Pillow's and torchvision's antialiased "bilinear": its half width
// is one input sample when enlarging and in/out input samples when reducing, and at
// the border its weights are renormalised over the samples there are. All is computed in
// integers, exactly up to the last rounding, so a window has the weights of the whole.
type axis struct {
	taps    int
	first   []int
	weights []uint32
	lo, hi  int // the inputs needed are lo..hi-1
}

// sampling says how the samples of a plane lie along an axis of the picture: n samples, one in
// every `every` pixels, and the pixel at continuous position c at (c+shift)/every in the plane.
// The planes of a picture are co-sited by area as in JFIF: a sample covers the pixels it stands for.
type sampling struct{ n, every, shift int }

// build computes the axis for outputs start..start+count-1 of a scaling of in pixels to out.
func (a *axis) build(s sampling, in, out, start, count int) {
	// Positions and distances below are in units of 1/(2*pitch) of a plane sample.
	pitch := int64(out) * int64(s.every)
	half := 2 * max(pitch, int64(in)) // half width of the triangle
	centre := func(o int) int64 {
		return (2*int64(start+o)+1)*int64(in) + 2*int64(out)*int64(s.shift)
	}
	a.first = sized(a.first, count)
	a.taps = 1
	for o := range count {
		c := centre(o)
		lo := max(floorDiv(c-half-pitch, 2*pitch)+1, 0)            // the first inside the triangle
		hi := min(-floorDiv(-(c+half-pitch), 2*pitch), int64(s.n)) // one past the last
		a.first[o] = int(min(lo, int64(s.n)-1))
		a.taps = max(a.taps, int(hi-lo))
	}
	a.weights = sized(a.weights, count*a.taps)
	a.lo, a.hi = s.n, 0
	for o := range count {
		// Every output reads the same number of samples, none of them outside.
		first := min(a.first[o], s.n-a.taps)
		a.first[o] = first
		a.lo, a.hi = min(a.lo, first), max(a.hi, first+a.taps)

		c, total := centre(o), uint64(0)
		for j := range a.taps {
			total += triangle(first+j, pitch, c, half)
		}
		w := a.weights[o*a.taps:][:a.taps]
		// Rounding the running sum, not each weight, keeps the total exact and every weight
		// at or above 0.
		sum, before := uint64(0), uint64(0)
		for j := range w {
			sum += triangle(first+j, pitch, c, half)
			upTo := share(sum, total)
			w[j] = uint32(upTo - before)
			before = upTo
		}
	}
}

// triangle is the unnormalised weight of sample x for an output centred at c.
func triangle(x int, pitch, c, half int64) uint64 {
	d := (2*int64(x)+1)*pitch - c
	return uint64(max(0, half-max(d, -d)))
}

// share is part/total in weightBits bits, rounded to nearest.
func share(part, total uint64) uint64 {
	hi, lo := bits.Mul64(part, 1<<weightBits)
	lo, carry := bits.Add64(lo, total/2, 0)
	q, _ := bits.Div64(hi+carry, lo, total)
	return q
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
