//go:build !noasm

package augment

// The kernels finish a row with a vector that ends where the row ends, which repeats some of the
// one before; a row shorter than one vector is left to plain Go. They load no byte outside
// their slices, and the passes across count on overrun samples after the last.

// mix is mixGo. The rows are an even number.
func (l level) mix(dst []int16, rows [][]byte, weights []int16) {
	switch {
	case l >= levelAVX512 && len(dst) >= 32:
		mixAVX512(dst, rows, weights)
	case l >= levelAVX2 && len(dst) >= 16:
		mixAVX2(dst, rows, weights)
	default:
		mixGo(dst, rows, weights)
	}
}

// squeeze is squeezeGo, to whole groups of outputs: dst has room for them.
func (l level) squeeze(dst, src []int16, a *axis, bias int32) {
	if l < levelAVX2 {
		squeezeGo(dst, src, a, bias)
		return
	}
	dst, src = dst[:len(a.first)], src[:a.hi-a.lo+overrun]
	if !a.near {
		squeezeFarAVX2(dst, src, a.first, a.weights, a.stride, bias)
		return
	}
	if a.indexOf != l {
		a.pack(l)
	}
	if l == levelAVX512 {
		squeezeNearAVX512(dst, src, a.base, a.index, a.pairs, a.stride/2, bias)
	} else {
		squeezeNearAVX2(dst, src, a.base, a.index, a.pairs, a.stride/2, bias)
	}
}

// packYCbCr is packYCbCrGo.
func (l level) packYCbCr(dst []byte, y, cb, cr []int16) {
	if n := len(dst) / 3; l >= levelAVX2 && n >= 32 {
		packYCbCrAVX2(dst, y[:n], cb[:n], cr[:n])
		return
	}
	packYCbCrGo(dst, y, cb, cr)
}

// packRGB is packRGBGo.
func (l level) packRGB(dst []byte, r, g, b []int16) {
	if n := len(dst) / 3; l >= levelAVX2 && n >= 32 {
		packRGBAVX2(dst, r[:n], g[:n], b[:n])
		return
	}
	packRGBGo(dst, r, g, b)
}

// exact is exactGo.
func (l level) exact(dst, y, cb, cr []byte) {
	if n := len(dst) / 3; l >= levelAVX2 && n >= 32 {
		exactAVX2(dst, y[:n], cb[:n], cr[:n])
		return
	}
	exactGo(dst, y, cb, cr)
}

// split is splitGo.
func (l level) split(r, g, b, pix []byte) {
	if n := len(r); l >= levelAVX2 && n >= 32 {
		splitAVX2(r, g[:n], b[:n], pix[:3*n])
		return
	}
	splitGo(r, g, b, pix)
}

// turn is turnGo.
func (l level) turn(dst []byte, to, by int, src []byte, at, step, n int) {
	if l < levelAVX2 || n < 8 {
		turnGo(dst, to, by, src, at, step, n)
		return
	}
	// The ends of both walks, so that what does not fit fails here.
	_, _ = dst[to+max(0, (turned-1)*by)+n-1], dst[to+min(0, (turned-1)*by)]
	_, _ = src[at+max(0, (n-1)*step)+turned-1], src[at+min(0, (n-1)*step)]
	turnAVX2(dst, to, by, src, at, step, n)
}
