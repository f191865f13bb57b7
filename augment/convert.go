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
	dst = dst[:3*n]
	switch img := img.(type) {
	case *image.YCbCr:
		convertYCbCr(dst, img, x, y, dx, dy)
	case *image.Gray:
		at, step := img.PixOffset(x, y), dx+dy*img.Stride
		for ; len(dst) > 0; dst, at = dst[3:], at+step {
			g := img.Pix[at]
			dst[0], dst[1], dst[2] = g, g, g
		}
	case *image.CMYK:
		at, step := img.PixOffset(x, y), 4*dx+dy*img.Stride
		for ; len(dst) > 0; dst, at = dst[3:], at+step {
			s := img.Pix[at:][:4:4]
			dst[0], dst[1], dst[2] = color.CMYKToRGB(s[0], s[1], s[2], s[3])
		}
	case *image.RGBA:
		at, step := img.PixOffset(x, y), 4*dx+dy*img.Stride
		for ; len(dst) > 0; dst, at = dst[3:], at+step {
			s := img.Pix[at:][:4:4]
			white := 255 - s[3]
			dst[0], dst[1], dst[2] = s[0]+white, s[1]+white, s[2]+white
		}
	case *image.NRGBA:
		at, step := img.PixOffset(x, y), 4*dx+dy*img.Stride
		for ; len(dst) > 0; dst, at = dst[3:], at+step {
			s := img.Pix[at:][:4:4]
			if s[3] == 255 {
				dst[0], dst[1], dst[2] = s[0], s[1], s[2]
			} else {
				r, g, b, a := color.NRGBA{R: s[0], G: s[1], B: s[2], A: s[3]}.RGBA()
				onWhite(dst, r, g, b, a)
			}
		}
	case image.RGBA64Image:
		for ; len(dst) > 0; dst, x, y = dst[3:], x+dx, y+dy {
			c := img.RGBA64At(x, y)
			white := 0xffff - c.A
			dst[0], dst[1], dst[2] = byte((c.R+white)>>8), byte((c.G+white)>>8), byte((c.B+white)>>8)
		}
	default:
		for ; len(dst) > 0; dst, x, y = dst[3:], x+dx, y+dy {
			r, g, b, a := img.At(x, y).RGBA()
			onWhite(dst, r, g, b, a)
		}
	}
}

// convertYCbCr is convert of the pixels at (x, y) and on.
func convertYCbCr(dst []byte, img *image.YCbCr, x, y, dx, dy int) {
	at, step := img.YOffset(x, y), dx+dy*img.YStride
	for ; len(dst) > 0; dst, at, x, y = dst[3:], at+step, x+dx, y+dy {
		c := img.COffset(x, y)
		dst[0], dst[1], dst[2] = color.YCbCrToRGB(img.Y[at], img.Cb[c], img.Cr[c])
	}
}

// onWhite lays a colour of alpha-premultiplied 16 bits on white.
func onWhite(p []byte, r, g, b, a uint32) {
	white := 0xffff - a
	p[0], p[1], p[2] = byte((r+white)>>8), byte((g+white)>>8), byte((b+white)>>8)
}
