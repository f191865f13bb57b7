package augment

import (
	"image"
	"image/color"
)

// convert writes n pixels of img to dst as 8-bit RGB: those at (x, y), (x+dx, y+dy)
// and so on, counted from the picture's upper left corner.
//
// YCbCr is converted by image/color's formula with the chroma sample that covers the pixel, CMYK
// without a colour profile (as image/color does), 16 bits are cut to the upper 8, and
// what is transparent shows a white background.
func convert(dst []byte, img image.Image, x, y, dx, dy, n int) {
	b := img.Bounds()
	x, y = x+b.Min.X, y+b.Min.Y
	for i := 0; i < 3*n; i, x, y = i+3, x+dx, y+dy {
		p := dst[i : i+3 : i+3]
		switch img := img.(type) {
		case *image.YCbCr:
			c := img.COffset(x, y)
			p[0], p[1], p[2] = color.YCbCrToRGB(img.Y[img.YOffset(x, y)], img.Cb[c], img.Cr[c])
		case *image.Gray:
			g := img.Pix[img.PixOffset(x, y)]
			p[0], p[1], p[2] = g, g, g
		case *image.CMYK:
			s := img.Pix[img.PixOffset(x, y):][:4]
			p[0], p[1], p[2] = color.CMYKToRGB(s[0], s[1], s[2], s[3])
		case *image.RGBA:
			s := img.Pix[img.PixOffset(x, y):][:4]
			white := 255 - s[3]
			p[0], p[1], p[2] = s[0]+white, s[1]+white, s[2]+white
		case *image.NRGBA:
			s := img.Pix[img.PixOffset(x, y):][:4]
			if s[3] == 255 {
				p[0], p[1], p[2] = s[0], s[1], s[2]
				continue
			}
			onWhite(p, color.NRGBA{R: s[0], G: s[1], B: s[2], A: s[3]})
		case image.RGBA64Image:
			c := img.RGBA64At(x, y)
			white := 0xffff - c.A
			p[0], p[1], p[2] = byte((c.R+white)>>8), byte((c.G+white)>>8), byte((c.B+white)>>8)
		default:
			onWhite(p, img.At(x, y))
		}
	}
}

func onWhite(p []byte, c color.Color) {
	r, g, b, a := c.RGBA()
	white := 0xffff - a
	p[0], p[1], p[2] = byte((r+white)>>8), byte((g+white)>>8), byte((b+white)>>8)
}
