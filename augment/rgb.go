package augment

import (
	"image"
	"image/color"
)

// RGB is an 8-bit picture, interleaved, row i at Pix[i*Stride:]. It is an
// opaque image.Image with its origin at (0, 0).
type RGB struct {
	Pix    []byte
	Stride int
	W, H   int
}

// NewRGB makes a black picture of w x h pixels, rows without gaps.
func NewRGB(w, h int) *RGB {
	return &RGB{Pix: make([]byte, 3*w*h), Stride: 3 * w, W: w, H: h}
}

// Row is the 3*W bytes of row y.
func (p *RGB) Row(y int) []byte { return p.Pix[y*p.Stride:][: 3*p.W : 3*p.W] }

// ColorModel implements image.Image.
func (p *RGB) ColorModel() color.Model { return color.RGBAModel }

// Bounds implements image.Image.
func (p *RGB) Bounds() image.Rectangle { return image.Rect(0, 0, p.W, p.H) }

// At implements image.Image.
func (p *RGB) At(x, y int) color.Color { return p.rgba(x, y) }

// RGBA64At implements image.RGBA64Image, which spares its callers an allocation.
func (p *RGB) RGBA64At(x, y int) color.RGBA64 {
	c := p.rgba(x, y)
	return color.RGBA64{R: uint16(c.R) * 0x101, G: uint16(c.G) * 0x101, B: uint16(c.B) * 0x101, A: uint16(c.A) * 0x101}
}

// Opaque says that no pixel is transparent; encoders then leave alpha out.
func (p *RGB) Opaque() bool { return true }

func (p *RGB) rgba(x, y int) color.RGBA {
	if x < 0 || y < 0 || x >= p.W || y >= p.H {
		return color.RGBA{}
	}
	b := p.Pix[y*p.Stride+3*x:][:3]
	return color.RGBA{R: b[0], G: b[1], B: b[2], A: 255}
}

// resize makes p a picture of w x h without gaps, keeping its memory if it is
// large enough. The pixels are undefined.
func (p *RGB) resize(w, h int) {
	if n := 3 * w * h; cap(p.Pix) < n {
		p.Pix = make([]byte, n)
	} else {
		p.Pix = p.Pix[:n]
	}
	p.Stride, p.W, p.H = 3*w, w, h
}
