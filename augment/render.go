package augment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"slices"
)

// maxRendered bounds the pixels of one rendering (400 MB of RGB) and maxSide the side of the scaled
// picture that it is a window of: beyond them stands a mistake, such as the shorter side of a one pixel
// wide picture made 256.
const (
	maxRendered = 1 << 27
	maxSide     = 1 << 30
)

// Renderer renders Views. It keeps scratch memory between calls, so a worker
// owns one; it is not safe for concurrent use. The zero value is ready.
type Renderer struct{ renderer }

type renderer struct {
	planes [3]plane
	axes   [4]axis  // x and y of the first plane, x and y of chroma
	rows   [][]byte // the input rows of one output row
	mixed  []byte   // one row after the vertical pass: uint16 with 8 fraction bits, little-endian
}

// plane is 1 or 3 interleaved channels of the picture while it is rendered.
type plane struct {
	channels int
	pix      []byte      // the samples, read through the grid; nil if they are converted from img
	img      image.Image // else
	gx, gy   grid        // with pix gx alone counts bytes; with img they give its x and y
	x, y     *axis

	ring []byte   // oriented rows fetched so far, row i at i % y.taps
	next int      // the next row to fetch
	line []uint16 // one output row, 8 fraction bits
}

// Render computes the window of v from img into dst.Pix (reused if large
// enough), and sets dst's size. img may be *image.YCbCr, *RGB or any image; dst
// must not share its memory. Cropping after scaling gives bit for bit the pixels of the whole scaled
// picture.
//
// Scaling is the antialiased triangle filter (Pillow's and torchvision's
// "bilinear"). The planes of an *image.YCbCr are scaled as they are, chroma from its own resolution
// with samples sited at the middle of the pixels they stand for (JFIF), and only the window is
// converted to RGB. Other pictures than *RGB, *image.YCbCr and *image.Gray are converted row by row.
// A picture that is not scaled keeps its exact pixels, YCbCr converted as image/color does;
// transparency shows white.
//
// An error says that v does not fit img, or that the window is absurdly large.
func (r *Renderer) Render(dst *RGB, img image.Image, v View) error {
	if err := v.fits(img); err != nil {
		return err
	}
	dst.resize(v.Window.Dx(), v.Window.Dy())
	if v.Scaled == v.Size {
		copyWindow(dst, img, v)
		return nil
	}
	r.load(img, v)
	for y := range dst.H {
		for i := range r.planes {
			if p := &r.planes[i]; p.channels > 0 {
				r.filter(p, y)
			}
		}
		row := dst.Row(y)
		switch {
		case r.planes[0].channels == 3:
			roundRGB(row, r.planes[0].line)
		case r.planes[1].channels == 0:
			roundGray(row, r.planes[0].line)
		default:
			roundYCbCr(row, r.planes[0].line, r.planes[1].line, r.planes[2].line)
		}
		if v.Flip {
			mirrorRow(row)
		}
	}
	r.release()
	return nil
}

// fits checks v against the picture, and the picture's slices against its size.
func (v View) fits(img image.Image) error {
	if img == nil {
		return errors.New("augment: no picture to render")
	}
	b := img.Bounds()
	if stored := NewView(b.Dx(), b.Dy(), v.Orient); stored.Size != v.Size || b.Empty() {
		return fmt.Errorf("augment: a view of %d x %d pixels (orientation %d) is not of a picture of %d x %d",
			v.Size.X, v.Size.Y, v.Orient, b.Dx(), b.Dy())
	}
	if max(v.Scaled.X, v.Scaled.Y) > maxSide || v.Window.Dx() > maxRendered/max(1, v.Window.Dy()) {
		return fmt.Errorf("augment: %d x %d pixels of a picture scaled from %d x %d to %d x %d are too many",
			v.Window.Dx(), v.Window.Dy(), v.Size.X, v.Size.Y, v.Scaled.X, v.Scaled.Y)
	}
	if v.Window.Empty() || !v.Window.In(image.Rectangle{Max: v.Scaled}) {
		return fmt.Errorf("augment: window %v is not inside a picture of %d x %d", v.Window, v.Scaled.X, v.Scaled.Y)
	}
	last := b.Max.Sub(image.Pt(1, 1))
	short := false
	switch img := img.(type) {
	case *RGB:
		short = img.Stride < 3*img.W || len(img.Pix) < (img.H-1)*img.Stride+3*img.W
	case *image.Gray:
		short = len(img.Pix) <= img.PixOffset(last.X, last.Y)
	case *image.YCbCr:
		c := img.COffset(last.X, last.Y)
		short = len(img.Y) <= img.YOffset(last.X, last.Y) || min(len(img.Cb), len(img.Cr)) <= c
	}
	if short {
		return fmt.Errorf("augment: a picture of %d x %d has too few bytes of pixels", b.Dx(), b.Dy())
	}
	return nil
}

// copyWindow renders a view without scaling.
func copyWindow(dst *RGB, img image.Image, v View) {
	b := img.Bounds()
	gx := orientedGrid(v.Orient, b.Dx(), b.Dy(), 1, 0)
	gy := orientedGrid(v.Orient, b.Dx(), b.Dy(), 0, 1)
	rgb, _ := img.(*RGB)
	for y := range dst.H {
		row := dst.Row(y)
		wx, wy := v.Window.Min.X, v.Window.Min.Y+y
		x0, y0 := gx.at+wx*gx.dx+wy*gx.dy, gy.at+wx*gy.dx+wy*gy.dy
		if rgb != nil {
			gather(row, rgb.Pix, y0*rgb.Stride+3*x0, 3*gx.dx+rgb.Stride*gy.dx, 3)
		} else {
			convert(row, img, x0, y0, gx.dx, gy.dx, dst.W)
		}
		if v.Flip {
			mirrorRow(row)
		}
	}
}

// load sets up the planes and axes for a rendering with scaling.
func (r *Renderer) load(img image.Image, v View) {
	b := img.Bounds()
	w, h := b.Dx(), b.Dy()
	for i := range r.planes {
		r.planes[i].channels = 0
	}
	first := &r.planes[0]
	switch img := img.(type) {
	case *RGB:
		first.set(3, img.Pix, orientedGrid(v.Orient, w, h, 3, img.Stride))
	case *image.Gray:
		first.set(1, img.Pix[img.PixOffset(b.Min.X, b.Min.Y):], orientedGrid(v.Orient, w, h, 1, img.Stride))
	case *image.YCbCr:
		first.set(1, img.Y[img.YOffset(b.Min.X, b.Min.Y):], orientedGrid(v.Orient, w, h, 1, img.YStride))
		r.loadChroma(img, v)
	default:
		first.channels, first.pix, first.img = 3, nil, img
		first.gx = orientedGrid(v.Orient, w, h, 1, 0)
		first.gy = orientedGrid(v.Orient, w, h, 0, 1)
	}
	first.x, first.y = &r.axes[0], &r.axes[1]
	first.x.build(sampling{n: v.Size.X, every: 1}, v.Size.X, v.Scaled.X, v.Window.Min.X, v.Window.Dx())
	first.y.build(sampling{n: v.Size.Y, every: 1}, v.Size.Y, v.Scaled.Y, v.Window.Min.Y, v.Window.Dy())

	for i := range r.planes {
		p := &r.planes[i]
		if p.channels == 0 {
			continue
		}
		width := p.channels * (p.x.hi - p.x.lo)
		p.next = 0
		p.line = sized(p.line, p.channels*v.Window.Dx())
		if !p.direct() {
			p.ring = sized(p.ring, width*p.y.taps)
		}
		r.rows = slices.Grow(r.rows[:0], p.y.taps)
		r.mixed = sized(r.mixed, max(len(r.mixed), 2*width))
	}
}

func (r *Renderer) loadChroma(img *image.YCbCr, v View) {
	b := img.Bounds()
	across, down := chromaEvery(img.SubsampleRatio)
	sx := chromaSampling(b.Min.X, b.Max.X, across)
	sy := chromaSampling(b.Min.Y, b.Max.Y, down)
	g := orientedGrid(v.Orient, sx.n, sy.n, 1, img.CStride)
	at := img.COffset(b.Min.X, b.Min.Y)
	r.planes[1].set(1, img.Cb[at:], g)
	r.planes[2].set(1, img.Cr[at:], g)

	// The sampling along the oriented axes: which stored axis it is, and whether it runs backwards.
	gx, gy := orientedGrid(v.Orient, 2, 2, 1, 0), orientedGrid(v.Orient, 2, 2, 0, 1)
	along := func(dx, dy int) sampling {
		switch {
		case dx > 0:
			return sx
		case dx < 0:
			return sx.mirrored(b.Dx())
		case dy > 0:
			return sy
		default:
			return sy.mirrored(b.Dy())
		}
	}
	x, y := &r.axes[2], &r.axes[3]
	x.build(along(gx.dx, gy.dx), v.Size.X, v.Scaled.X, v.Window.Min.X, v.Window.Dx())
	y.build(along(gx.dy, gy.dy), v.Size.Y, v.Scaled.Y, v.Window.Min.Y, v.Window.Dy())
	for i := 1; i < 3; i++ {
		r.planes[i].x, r.planes[i].y = x, y
	}
}

// chromaEvery is how many pixels across and down share a chroma sample.
func chromaEvery(r image.YCbCrSubsampleRatio) (across, down int) {
	switch r {
	case image.YCbCrSubsampleRatio422:
		return 2, 1
	case image.YCbCrSubsampleRatio420:
		return 2, 2
	case image.YCbCrSubsampleRatio440:
		return 1, 2
	case image.YCbCrSubsampleRatio411:
		return 4, 1
	case image.YCbCrSubsampleRatio410:
		return 4, 2
	default: // 4:4:4
		return 1, 1
	}
}

// chromaSampling is how image.YCbCr lays chroma under pixels lo..hi-1, of
// which lo need not be the first of those that share a sample.
func chromaSampling(lo, hi, every int) sampling {
	return sampling{n: (hi-1)/every - lo/every + 1, every: every, shift: lo - lo/every*every}
}

// mirrored is the sampling counted from the other end of a side of length pixels.
func (s sampling) mirrored(length int) sampling {
	s.shift = s.n*s.every - length - s.shift
	return s
}

// sized is s with n elements of undefined value, in the same memory if it is large enough.
func sized[E any](s []E, n int) []E { return slices.Grow(s[:0], n)[:n] }

func (p *plane) set(channels int, pix []byte, g grid) {
	p.channels, p.pix, p.img, p.gx = channels, pix, nil, g
}

// direct reports whether oriented rows lie in memory as they are needed.
func (p *plane) direct() bool { return p.pix != nil && p.gx.dx == p.channels }

// row is oriented row y, columns x.lo..x.hi-1.
func (p *plane) row(y int) []byte {
	width := p.channels * (p.x.hi - p.x.lo)
	if p.direct() {
		return p.pix[p.gx.at+p.x.lo*p.gx.dx+y*p.gx.dy:][:width]
	}
	for ; p.next <= y; p.next++ {
		if p.next <= y-p.y.taps {
			continue // above the window
		}
		dst := p.ring[p.next%p.y.taps*width:][:width]
		at := p.gx.at + p.x.lo*p.gx.dx + p.next*p.gx.dy
		if p.pix != nil {
			gather(dst, p.pix, at, p.gx.dx, p.channels)
		} else {
			convert(dst, p.img, at, p.gy.at+p.x.lo*p.gy.dx+p.next*p.gy.dy, p.gx.dx, p.gy.dx, p.x.hi-p.x.lo)
		}
	}
	return p.ring[y%p.y.taps*width:][:width]
}

// gather copies samples of 1 or 3 bytes that lie step apart.
func gather(dst, pix []byte, at, step, channels int) {
	switch {
	case step == channels:
		copy(dst, pix[at:])
	case channels == 1:
		for i := range dst {
			dst[i] = pix[at]
			at += step
		}
	default:
		for i := 0; i < len(dst); i += 3 {
			copy(dst[i:i+3], pix[at:])
			at += step
		}
	}
}

// filter computes output row y of a plane into its line.
func (r *Renderer) filter(p *plane, y int) {
	taps := p.y.taps
	r.rows = r.rows[:0]
	for j := range taps {
		r.rows = append(r.rows, p.row(p.y.first[y]+j))
	}
	mix(r.mixed, r.rows, p.y.weights[y*taps:][:taps])
	if p.channels == 3 {
		squeeze3(p.line, r.mixed, p.x)
	} else {
		squeeze(p.line, r.mixed, p.x)
	}
}

// mix is the vertical pass: dst[i] = sum over j of weights[j] * rows[j][i], kept with 8 fraction bits
// as uint16. Eight samples are computed at a time, as pairs in the two halves of a word.
func mix(dst []byte, rows [][]byte, weights []uint32) {
	const (
		low   = 0x000000FF_000000FF
		round = 1<<(weightBits-9)<<32 | 1<<(weightBits-9)
		keep  = 0x0000FFFF_0000FFFF
	)
	n := len(rows[0])
	i := 0
	for ; i+8 <= n; i += 8 {
		var a, b, c, d uint64 = round, round, round, round
		for j, row := range rows {
			s := binary.LittleEndian.Uint64(row[i:])
			w := uint64(weights[j])
			a += s & low * w
			b += s >> 8 & low * w
			c += s >> 16 & low * w
			d += s >> 24 & low * w
		}
		a = a>>(weightBits-8)&keep | b>>(weightBits-8)&keep<<16
		c = c>>(weightBits-8)&keep | d>>(weightBits-8)&keep<<16
		binary.LittleEndian.PutUint64(dst[2*i:], a&0xFFFFFFFF|c<<32)
		binary.LittleEndian.PutUint64(dst[2*i+8:], a>>32|c&^0xFFFFFFFF)
	}
	for ; i < n; i++ {
		sum := uint32(1 << (weightBits - 9))
		for j, row := range rows {
			sum += weights[j] * uint32(row[i])
		}
		binary.LittleEndian.PutUint16(dst[2*i:], uint16(sum>>(weightBits-8)))
	}
}

// squeeze is the horizontal pass of one channel: dst[o] = sum over j of a.weights * src[a.first[o]+j].
// The usual three and four samples, a reduction by less than two, are written out.
func squeeze(dst []uint16, src []byte, a *axis) {
	const round = 1 << (weightBits - 1)
	taps, weights := a.taps, a.weights
	for o, first := range a.first[:len(dst)] {
		w := weights[o*taps:][:taps]
		s := src[2*(first-a.lo):][:2*taps]
		sum := uint64(round)
		switch {
		case len(w) == 3 && len(s) == 6:
			v := uint64(binary.LittleEndian.Uint32(s))
			sum += v&0xFFFF*uint64(w[0]) + v>>16*uint64(w[1]) + uint64(binary.LittleEndian.Uint16(s[4:]))*uint64(w[2])
		case len(w) == 4 && len(s) == 8:
			v := binary.LittleEndian.Uint64(s)
			sum += v&0xFFFF*uint64(w[0]) + v>>16&0xFFFF*uint64(w[1]) + v>>32&0xFFFF*uint64(w[2]) + v>>48*uint64(w[3])
		default:
			for j, wj := range w {
				sum += uint64(binary.LittleEndian.Uint16(s[2*j:])) * uint64(wj)
			}
		}
		dst[o] = uint16(sum >> weightBits)
	}
}

// squeeze3 is squeeze for three interleaved channels.
func squeeze3(dst []uint16, src []byte, a *axis) {
	const round = 1 << (weightBits - 1)
	taps := a.taps
	for o, first := range a.first[:len(dst)/3] {
		s := src[6*(first-a.lo):][:6*taps]
		var r, g, b uint64 = round, round, round
		for _, w := range a.weights[o*taps:][:taps] {
			w := uint64(w)
			r += uint64(binary.LittleEndian.Uint16(s)) * w
			g += uint64(binary.LittleEndian.Uint16(s[2:])) * w
			b += uint64(binary.LittleEndian.Uint16(s[4:])) * w
			s = s[6:]
		}
		d := dst[3*o:][:3]
		d[0], d[1], d[2] = uint16(r>>weightBits), uint16(g>>weightBits), uint16(b>>weightBits)
	}
}

func roundRGB(dst []byte, line []uint16) {
	line = line[:len(dst)]
	for i := range dst {
		dst[i] = byte((uint32(line[i]) + 128) >> 8)
	}
}

func roundGray(dst []byte, line []uint16) {
	for i, v := range line {
		g := byte((uint32(v) + 128) >> 8)
		p := dst[3*i:][:3]
		p[0], p[1], p[2] = g, g, g
	}
}

// roundYCbCr converts by JFIF's matrix, whose numbers are in 16 fraction bits.
func roundYCbCr(dst []byte, y, cb, cr []uint16) {
	cb, cr = cb[:len(y)], cr[:len(y)]
	for i := range y {
		yy := int64(y[i])<<16 + 1<<23
		b, r := int64(cb[i])-1<<15, int64(cr[i])-1<<15
		p := dst[3*i:][:3]
		p[0] = clamp((yy + 91881*r) >> 24)
		p[1] = clamp((yy - 22554*b - 46802*r) >> 24)
		p[2] = clamp((yy + 116130*b) >> 24)
	}
}

func clamp(v int64) byte {
	if uint64(v) <= 255 {
		return byte(v)
	}
	return byte(^v >> 63) // 0 below, 255 above
}

func mirrorRow(row []byte) {
	for i, j := 0, len(row)-3; i < j; i, j = i+3, j-3 {
		row[i], row[i+1], row[i+2], row[j], row[j+1], row[j+2] = row[j], row[j+1], row[j+2], row[i], row[i+1], row[i+2]
	}
}

// release lets go of the picture, and of scratch memory that one huge picture has left behind.
func (r *Renderer) release() {
	const keep = 1 << 22
	for i := range r.planes {
		p := &r.planes[i]
		p.pix, p.img = nil, nil
		if cap(p.ring) > keep {
			p.ring = nil
		}
	}
	clear(r.rows[:cap(r.rows)])
}
