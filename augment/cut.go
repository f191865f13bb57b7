package augment

import "image"

// cut is a part of a picture as a picture of its own, without copying pixels. The memory of
// those that are rendered often is kept.
type cut struct {
	rgb    RGB
	planes image.YCbCr
	gray   image.Gray
}

// of is the pixels r of img, counted from its corner. They must be inside.
func (c *cut) of(img image.Image, r image.Rectangle) image.Image {
	at := r.Add(img.Bounds().Min)
	switch img := img.(type) {
	case *RGB:
		c.rgb = RGB{Pix: img.Pix[r.Min.Y*img.Stride+3*r.Min.X:], Stride: img.Stride, W: r.Dx(), H: r.Dy()}
		return &c.rgb
	case *image.YCbCr:
		chroma := img.COffset(at.Min.X, at.Min.Y)
		c.planes = *img
		c.planes.Y = img.Y[img.YOffset(at.Min.X, at.Min.Y):]
		c.planes.Cb, c.planes.Cr = img.Cb[chroma:], img.Cr[chroma:]
		c.planes.Rect = at
		return &c.planes
	case *image.Gray:
		c.gray = image.Gray{Pix: img.Pix[img.PixOffset(at.Min.X, at.Min.Y):], Stride: img.Stride, Rect: at}
		return &c.gray
	case interface {
		SubImage(r image.Rectangle) image.Image
	}:
		return img.SubImage(at)
	}
	return part{img, at}
}

// release lets go of the picture.
func (c *cut) release() { *c = cut{} }

// part is a part of a picture that cannot give one itself.
type part struct {
	image.Image
	at image.Rectangle
}

func (p part) Bounds() image.Rectangle { return p.at }
