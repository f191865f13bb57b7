package jpeg

import (
	"encoding/binary"
	"image"
	"image/color"
)

// Model is what the components of a picture mean.
type Model uint8

// The colour models.
const (
	Gray  Model = iota // luma
	YCbCr              // JFIF's, in full range
	RGB                // Adobe's transform 0, or components named R, G and B
	CMYK               // 255 is no ink, as Adobe's files have it and browsers and djpeg take it for all
	YCCK               // CMYK whose first three are coded as YCbCr
)

func (m Model) String() string {
	return [...]string{"Gray", "YCbCr", "RGB", "CMYK", "YCCK"}[m]
}

// Plane is one component of a picture at its own resolution.
type Plane struct {
	Pix           []byte // row y at Pix[y*Stride:]; beyond Width and Height it is padding
	Stride        int
	Width, Height int // samples: the picture's size times H or V over the greatest, rounded up
	H, V          int // sampling factors
}

// Image is a decoded picture. It lives in its Decoder's memory.
type Image struct {
	Width, Height int // pixels
	Model         Model
	Planes        []Plane // 1, 3 or 4
	Region        image.Rectangle
	// Damage is the first damage met, with Options.Keep; nil for a whole file.
	Damage *Damage
	// Lost is how many MCUs are missing for it, over all scans. In a sequential file they are gray.
	Lost int

	store   [4]Plane
	gray    image.Gray
	ycbcr   image.YCbCr
	rgba    image.RGBA
	cmyk    image.CMYK
	scratch []byte
}

// finish makes the picture of the planes.
func (d *Decoder) finish() {
	if d.frame.progressive {
		d.transformAll()
	}
	m := &d.out
	m.Width, m.Height, m.Model = d.frame.width, d.frame.height, d.model()
	m.Region, m.Damage, m.Lost = d.region(), d.damage, d.lost
	m.Planes = m.store[:0]
	for i := range d.frame.comps {
		c := &d.frame.comps[i]
		if !c.begun && !d.frame.progressive {
			for j := range c.pix { // a sequential file without a scan of it
				c.pix[j] = 128
			}
		}
		m.Planes = append(m.Planes, Plane{c.pix, c.stride, c.width, c.height, c.h, c.v})
	}
}

// region is the part of the picture that is wanted.
func (d *Decoder) region() image.Rectangle {
	all := image.Rect(0, 0, d.frame.width, d.frame.height)
	if d.opt.Region.Empty() {
		return all
	}
	return d.opt.Region.Intersect(all)
}

// window sets the blocks of each component that hold the region.
func (d *Decoder) window() {
	r := d.region()
	f := &d.frame
	for i := range f.comps {
		c := &f.comps[i]
		c.window = image.Rect(
			r.Min.X*c.h/f.hMax/8&^1, r.Min.Y*c.v/f.vMax/8,
			ceilDiv(ceilDiv(r.Max.X*c.h, f.hMax), 8), ceilDiv(ceilDiv(r.Max.Y*c.v, f.vMax), 8))
		if r.Empty() {
			c.window = image.Rectangle{}
		}
	}
}

// ratio is the chroma subsampling that image.YCbCr has a name for.
func (m *Image) ratio() (image.YCbCrSubsampleRatio, bool) {
	y, cb, cr := &m.Planes[0], &m.Planes[1], &m.Planes[2]
	if cb.H != cr.H || cb.V != cr.V || y.H%cb.H != 0 || y.V%cb.V != 0 {
		return 0, false
	}
	switch (image.Point{y.H / cb.H, y.V / cb.V}) {
	case image.Pt(1, 1):
		return image.YCbCrSubsampleRatio444, true
	case image.Pt(2, 1):
		return image.YCbCrSubsampleRatio422, true
	case image.Pt(2, 2):
		return image.YCbCrSubsampleRatio420, true
	case image.Pt(1, 2):
		return image.YCbCrSubsampleRatio440, true
	case image.Pt(4, 1):
		return image.YCbCrSubsampleRatio411, true
	case image.Pt(4, 2):
		return image.YCbCrSubsampleRatio410, true
	}
	return 0, false
}

// Image is the picture as one of package image, with the types and values of image/jpeg: *image.Gray,
// *image.YCbCr, *image.RGBA for RGB, *image.CMYK for CMYK and YCCK. Gray and YCbCr in the usual ratios are the
// planes themselves; the others are converted, and YCbCr in another ratio becomes 4:4:4.
// It too is valid until the decoder's next call.
func (m *Image) Image() image.Image {
	bounds := image.Rect(0, 0, m.Width, m.Height)
	switch m.Model {
	case Gray:
		p := &m.Planes[0]
		m.gray = image.Gray{Pix: p.Pix, Stride: p.Stride, Rect: bounds}
		return &m.gray
	case YCbCr:
		y, cb, cr := &m.Planes[0], &m.Planes[1], &m.Planes[2]
		if ratio, ok := m.ratio(); ok {
			m.ycbcr = image.YCbCr{Y: y.Pix, Cb: cb.Pix, Cr: cr.Pix, YStride: y.Stride, CStride: cb.Stride, SubsampleRatio: ratio, Rect: bounds}
			return &m.ycbcr
		}
		n := m.Width * m.Height
		m.scratch = resize(m.scratch, 3*n)
		for i := range m.Planes {
			m.spread(m.scratch[i*n:][:n], i, 1)
		}
		m.ycbcr = image.YCbCr{
			Y: m.scratch[:n:n], Cb: m.scratch[n : 2*n : 2*n], Cr: m.scratch[2*n:],
			YStride: m.Width, CStride: m.Width, SubsampleRatio: image.YCbCrSubsampleRatio444, Rect: bounds,
		}
		return &m.ycbcr
	}
	m.scratch = resize(m.scratch, 4*m.Width*m.Height)
	for i := range m.Planes {
		m.spread(m.scratch[i:], i, 4)
	}
	if m.Model == RGB {
		for i := 3; i < len(m.scratch); i += 4 {
			m.scratch[i] = 255
		}
		m.rgba = image.RGBA{Pix: m.scratch, Stride: 4 * m.Width, Rect: bounds}
		return &m.rgba
	}
	// Of YCCK come cyan, magenta and yellow as the rest of red, green and blue: turned once,
	// for YCCK, and once more, for Adobe's order, they are what YCbCr converts to.
	for i := 0; i < len(m.scratch); i += 4 {
		p := m.scratch[i:][:4]
		if m.Model == YCCK {
			p[0], p[1], p[2] = color.YCbCrToRGB(p[0], p[1], p[2])
		} else {
			p[0], p[1], p[2] = ^p[0], ^p[1], ^p[2]
		}
		p[3] = ^p[3]
	}
	m.cmyk = image.CMYK{Pix: m.scratch, Stride: 4 * m.Width, Rect: bounds}
	return &m.cmyk
}

// spread writes plane i at full resolution, every step bytes: each pixel takes
// the sample that covers its middle.
func (m *Image) spread(dst []byte, i, step int) {
	p := &m.Planes[i]
	hMax, vMax := 1, 1
	for _, q := range m.Planes {
		hMax, vMax = max(hMax, q.H), max(vMax, q.V)
	}
	at := 0
	for y := range m.Height {
		row := p.Pix[(2*y+1)*p.V/(2*vMax)*p.Stride:][:p.Width]
		if p.H == hMax {
			for _, v := range row[:m.Width] {
				dst[at] = v
				at += step
			}
			continue
		}
		for x := range m.Width {
			dst[at] = row[(2*x+1)*p.H/(2*hMax)]
			at += step
		}
	}
}

func putUint64(b []byte, v uint64) { binary.LittleEndian.PutUint64(b, v) }
