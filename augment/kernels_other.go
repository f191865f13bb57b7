//go:build noasm || !amd64

package augment

func (level) mix(dst []int16, rows [][]byte, weights []int16) { mixGo(dst, rows, weights) }

func (level) squeeze(dst, src []int16, a *axis, bias int32) { squeezeGo(dst, src, a, bias) }

func (level) packYCbCr(dst []byte, y, cb, cr []int16) { packYCbCrGo(dst, y, cb, cr) }

func (level) packRGB(dst []byte, r, g, b []int16) { packRGBGo(dst, r, g, b) }

func (level) exact(dst, y, cb, cr []byte) { exactGo(dst, y, cb, cr) }

func (level) split(r, g, b, pix []byte) { splitGo(r, g, b, pix) }

func (level) turn(dst []byte, to, by int, src []byte, at, step, n int) {
	turnGo(dst, to, by, src, at, step, n)
}
