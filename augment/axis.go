package augment

import (
	"math/bits"
	"slices"
)

// Filtering is in fixed point, the same on every CPU.
//
//	samples     8 bits
//	weights     15 fraction bits, those of an output summing to exactly 1
//	down        sum of weight x sample, rounded to 8 fraction bits, less 128 levels: int16
//	across      sum of weight x that, rounded to 7 fraction bits: int16
//	colour      sums of 7 fraction bits, each product rounded to them; the result is rounded to a level
//
// No sum overflows and only the last one is clamped. Running sums of the weights are within half of 1/32768,
// so that beside the half level of the last rounding an output is off by 0.03 levels at worst when
// enlarging or halving (0.09 from YCbCr). The bound grows with the number of weights, the error itself
// hardly, as it averages out.
const (
	weightBits = 15
	downBits   = 8
	acrossBits = 7

	downShift   = weightBits - downBits
	downBias    = 1<<(downShift-1) - 128<<weightBits
	acrossShift = downBits + weightBits - acrossBits
	// Added to a sum across, these give a value about 0 (chroma), and one from 0 that is half a
	// level up, so that cutting the fraction bits off rounds it.
	centredBias = 1 << (acrossShift - 1)
	levelBias   = centredBias + 128<<(downBits+weightBits) + 1<<(downBits+weightBits-1)
)

const (
	groupOutputs = 16 // the outputs that the kernels across compute together
	overrun      = 48 // how many samples they may load beyond the last
)

// axis is one axis of the resampling filter for a run of outputs: output o is the sum over j of
// -weights[o*stride+j] * input[lo+first[o]+j].
//
// The filter is antialiased as Pillow's and torchvision's: the half width of the triangle, "bilinear",
// is one input sample when enlarging and in/out input samples when reducing, and at
// the border its weights are renormalised over the samples there are. The triangle is computed in
// integers, exactly up to the last rounding, the others from distances that are; so a window has the weights of the whole.
type axis struct {
	n      int     // the inputs there are
	lo, hi int     // those needed are lo..hi-1
	taps   int     // how many of them an output has
	stride int     // taps rounded up: to even, and to eights unless near
	first  []int32 // rounded up to whole groups with outputs of weight 0
	// Negated, so that 1 is an int16.
	weights []int16
	// wide is instead of weights for the filters that have negative ones, and others beyond 1.
	wide    []int32
	scratch []float64

	// near says that the inputs lie at most two apart from output to output. The vector kernels
	// then load them together; what follows is for these (pack).
	near    bool
	base    []int32 // four a group: where its quarters load from
	index   []int16 // for each output which two of the inputs loaded are its first two
	pairs   []int16 // the weights, for each group two of each output, then the next two of each
	indexOf level   // the level that base and index are for
}

// sampling says how the samples of a plane lie along an axis of the picture: n samples, one in
// every `every` pixels, and the pixel at continuous position c at (c+shift)/every in the plane.
// The planes of a picture are co-sited by area as in JFIF: a sample covers the pixels it stands for.
type sampling struct{ n, every, shift int }

// span is a run of outputs of a scaling of in pixels to out.
type span struct{ in, out, start, count int }

// order is how the outputs of an axis are stored, and its inputs found.
type order struct {
	mirrored bool // the last output first
	reversed bool // the samples are stored last to first
}

// build computes the axis.
func (a *axis) build(s sampling, at span, ord order, f Filter) {
	// Positions and distances below are in units of 1/(2*pitch) of a plane sample.
	pitch := int64(at.out) * int64(s.every)
	unit := 2 * max(pitch, int64(at.in)) // half width of the triangle
	half := unit * f.support()
	whole := (at.count + groupOutputs - 1) / groupOutputs * groupOutputs
	a.n = s.n
	a.near = int64(at.in) <= 2*pitch
	a.taps = int(min((half+pitch-1)/pitch, int64(s.n))) // the most that lie inside
	a.stride = (a.taps + 1) &^ 1
	if !a.near {
		a.stride = (a.taps + 7) &^ 7
	}
	a.first = sized(a.first, whole)
	if a.weights, a.wide = a.weights[:0], a.wide[:0]; f == Bilinear {
		a.weights = sized(a.weights, whole*a.stride)
		clear(a.weights)
	} else {
		a.wide = sized(a.wide, whole*a.stride)
		clear(a.wide)
		a.scratch = sized(a.scratch, a.taps)
	}

	// Every output reads the same number of samples, none of them outside: from the first inside the
	// triangle, or from last.
	last := int64(s.n - a.taps)
	centre := (2*int64(at.start)+1)*int64(at.in) + 2*int64(at.out)*int64(s.shift)
	first := min(max(floorDiv(centre-half-pitch, 2*pitch)+1, 0), last)
	a.lo = int(first)
	for o := range at.count {
		d := (2*first+1)*pitch - centre // from the centre to the sample
		for ; d <= -half && first < last; first++ {
			d += 2 * pitch
		}
		a.first[o] = int32(first) - int32(a.lo)
		if f == Bilinear {
			weigh(a.weights[o*a.stride:][:a.taps], d, 2*pitch, half)
		} else {
			f.weigh(a.wide[o*a.stride:][:a.taps], a.scratch, d, 2*pitch, unit)
		}
		centre += 2 * int64(at.in)
	}
	a.hi = int(first) + a.taps
	if ord.reversed {
		for o := range at.count {
			a.first[o] = int32(a.hi-a.lo-a.taps) - a.first[o]
		}
		reverse(a.weights, a.stride, a.taps)
		reverse(a.wide, a.stride, a.taps)
		a.lo, a.hi = s.n-a.hi, s.n-a.lo
	}
	if ord.mirrored {
		slices.Reverse(a.first[:at.count])
		mirror(a.weights, a.stride, at.count)
		mirror(a.wide, a.stride, at.count)
	}
	for o := at.count; o < whole; o++ {
		a.first[o] = a.first[at.count-1]
	}
	a.indexOf = levelUnset
}

// weigh fills w with the negated weights of samples at distances d, d+step, ... from the centre.
func weigh(w []int16, d, step, half int64) {
	total := uint64(0)
	for j := range w {
		total += triangle(d+int64(j)*step, half)
	}
	// Rounding the running sum, not each weight, keeps the total exact and every weight at or
	// above 0, however many they are.
	sum, before := uint64(0), 0
	last := len(w) - 1
	for j := range last {
		sum += triangle(d, half)
		d += step
		upTo := share(sum, total)
		w[j] = int16(before - upTo)
		before = upTo
	}
	w[last] = int16(before - 1<<weightBits)
}

// triangle is the unnormalised weight of a sample at a distance.
func triangle(d, half int64) uint64 { return uint64(max(0, half-max(d, -d))) }

// share is part/total in weightBits bits, rounded to nearest.
func share(part, total uint64) int {
	if total < 1<<(63-weightBits) {
		return int((part<<weightBits + total/2) / total)
	}
	hi, lo := bits.Mul64(part, 1<<weightBits)
	lo, carry := bits.Add64(lo, total/2, 0)
	q, _ := bits.Div64(hi+carry, lo, total)
	return int(q)
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// reverse turns around the first taps of every stride weights.
func reverse[W any](w []W, stride, taps int) {
	for ; len(w) > 0; w = w[stride:] {
		slices.Reverse(w[:taps])
	}
}

// mirror turns around the order of the outputs, count times stride weights.
func mirror[W any](w []W, stride, count int) {
	if len(w) == 0 {
		return
	}
	for i, j := 0, count-1; i < j; i, j = i+1, j-1 {
		for k := range stride {
			w[i*stride+k], w[j*stride+k] = w[j*stride+k], w[i*stride+k]
		}
	}
}

// pack lays the axis out for the near kernel of a level.
//
// AVX-512 loads 32 inputs for a group and picks words out of them, AVX2 loads eight for a quarter of
// it and picks bytes. An output's further pairs of inputs are picked by the same index, loading from
// two, four, ... inputs further on.
func (a *axis) pack(l level) {
	groups := len(a.first) / groupOutputs
	a.base = sized(a.base, 4*groups)
	a.index = sized(a.index, 2*groupOutputs*groups)
	a.pairs = sized(a.pairs, len(a.weights))
	a.indexOf = l
	together := groupOutputs
	if l == levelAVX2 {
		together = groupOutputs / 4
	}
	for o := 0; o < len(a.first); o += together {
		run := a.first[o:][:together]
		base := min(run[0], run[together-1]) // ascending, or descending if mirrored
		a.base[o/4] = base
		for i, first := range run {
			at := int16(first - base)
			index := a.index[2*(o+i):][:2]
			if l == levelAVX2 {
				index[0], index[1] = 2*at|(2*at+1)<<8, 2*at+2|(2*at+3)<<8
			} else {
				index[0], index[1] = at, at+1
			}
		}
	}
	for o := range a.first {
		from := a.weights[o*a.stride:][:a.stride]
		to := a.pairs[o/groupOutputs*groupOutputs*a.stride+o%groupOutputs*2:]
		for j := 0; j+1 < len(from); j += 2 {
			to[groupOutputs*j], to[groupOutputs*j+1] = from[j], from[j+1]
		}
	}
}
