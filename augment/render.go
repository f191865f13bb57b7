package augment

import (
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
	level  level
	planes [3]plane
	n      int         // how many of them are in use
	axes   [4]axis     // x and y of the first plane, x and y of chroma
	img    image.Image // what pixels are taken from that are not planes
	cut    cut
	gx, gy grid     // of img; gx alone, in bytes, if it is *RGB
	pixels []byte   // a row of them, RGB
	rows   [][]byte // the input rows of one output row
	mixed  []int16  // one row after the pass down

	// Without scaling: a row of chroma at the resolution of luma, and where it begins.
	chroma   [2][]byte
	chromaAt int
}

// plane is one channel of the picture while it is rendered.
type plane struct {
	x, y *axis
	pix  []byte // the samples, read through the grid; nil if they are channels of pixels
	grid grid
	// Rows that do not lie in memory as the pass down needs them are fetched to here, row i at
	// i % depth; depth is 0 if they do.
	ring  []byte
	depth int
	next  int // the next row to fetch
	bias  int32
	line  []int16 // one output row
}

// Render computes the window of v from img into dst.Pix (reused if large
// enough), and sets dst's size. img may be *image.YCbCr, *RGB or any image; dst
// must not share its memory. Cropping after scaling gives bit for bit the pixels of the whole scaled
// picture.
//
// Scaling is by v.Filter, antialiased; the triangle (Pillow's and torchvision's
// "bilinear") is in assembly. The planes of an *image.YCbCr are scaled as they are, chroma from its own resolution
// with samples sited at the middle of the pixels they stand for (JFIF), and only the window is
// converted to RGB. Other pictures than *RGB, *image.YCbCr and *image.Gray are converted row by row.
// A picture that is not scaled keeps its exact pixels, YCbCr converted as image/color does;
// transparency shows white. A scaled one is within 0.53 levels of what exact arithmetic gives (0.6 from
// YCbCr), half a level being the rounding: always when it is enlarged or at most halved, and else in practice.
//
// An error says that v does not fit img, that the window is absurdly large, or that SLUICE_CPU names
// what this machine has not.
func (r *Renderer) Render(dst *RGB, img image.Image, v View) error {
	if err := v.fits(img); err != nil {
		return err
	}
	if r.level == levelUnset {
		var err error
		if r.level, err = choose(); err != nil {
			return err
		}
	}
	dst.resize(v.Window.Dx(), v.Window.Dy())
	if !v.Part.Empty() {
		img = r.cut.of(img, v.stored(v.Part))
		v.Size, v.Part = v.Part.Size(), image.Rectangle{}
		defer r.cut.release()
	}
	if v.Scaled == v.Size {
		r.copyWindow(dst, img, v)
		return nil
	}
	r.load(img, v)
	planes := r.planes[:r.n]
	_, planar := img.(*image.YCbCr)
	for y := range dst.H {
		for i := range planes {
			r.filter(&planes[i], y, dst.W)
		}
		row, first := dst.Row(y), planes[0].line
		switch {
		case planar:
			r.level.packYCbCr(row, first, planes[1].line, planes[2].line)
		case r.n == 1:
			r.level.packRGB(row, first, first, first)
		default:
			r.level.packRGB(row, first, planes[1].line, planes[2].line)
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
	if max(v.Scaled.X, v.Scaled.Y, v.Size.X, v.Size.Y) > maxSide || v.Window.Dx() > maxRendered/max(1, v.Window.Dy()) {
		return fmt.Errorf("augment: %d x %d pixels of a picture scaled from %d x %d to %d x %d are too many",
			v.Window.Dx(), v.Window.Dy(), v.Size.X, v.Size.Y, v.Scaled.X, v.Scaled.Y)
	}
	if int(v.Filter) >= len(filterNames) {
		return fmt.Errorf("augment: a view has the filter %d, which there is not", v.Filter)
	}
	if !v.Part.In(image.Rectangle{Max: v.Size}) {
		return fmt.Errorf("augment: the part %v is not inside a picture of %d x %d", v.Part, v.Size.X, v.Size.Y)
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
func (r *Renderer) copyWindow(dst *RGB, img image.Image, v View) {
	b := img.Bounds()
	gx := orientedGrid(v.Orient, b.Dx(), b.Dy(), 1, 0)
	gy := orientedGrid(v.Orient, b.Dx(), b.Dy(), 0, 1)
	rgb, _ := img.(*RGB)
	planes, _ := img.(*image.YCbCr)
	if planes != nil && (gx.dx == 0 || b.Min.X < 0 || b.Min.Y < 0) {
		planes = nil // turned, or where image/color lays chroma unevenly
	}
	flip := v.Flip
	if planes != nil && gx.dx < 0 {
		flip = !flip // its rows are taken as they lie
	}
	r.chromaAt = -1
	for y := range dst.H {
		row := dst.Row(y)
		wx, wy := v.Window.Min.X, v.Window.Min.Y+y
		x0, y0 := gx.at+wx*gx.dx+wy*gx.dy, gy.at+wx*gy.dx+wy*gy.dy
		switch {
		case planes != nil:
			if gx.dx < 0 {
				x0 -= dst.W - 1
			}
			r.exact(row, planes, b.Min.X+x0, b.Min.Y+y0)
		case rgb != nil:
			gather(row, rgb.Pix, y0*rgb.Stride+3*x0, 3*gx.dx+rgb.Stride*gy.dx)
		default:
			convert(row, img, x0, y0, gx.dx, gy.dx, dst.W)
		}
		if flip {
			mirrorRow(row)
		}
	}
}

// exact converts the row of pixels from (x, y) on as image/color does. Rows that share chroma
// come one after the other.
func (r *Renderer) exact(row []byte, img *image.YCbCr, x, y int) {
	n, at := len(row)/3, img.COffset(x, y)
	across, _ := chromaEvery(img.SubsampleRatio)
	cb, cr := img.Cb[at:], img.Cr[at:]
	if across > 1 {
		if at != r.chromaAt {
			r.chromaAt = at
			for i, c := range [2][]byte{cb, cr} {
				r.chroma[i] = sized(r.chroma[i], n)
				spread(r.chroma[i], c, x%across, across)
			}
		}
		cb, cr = r.chroma[0], r.chroma[1]
	}
	r.level.exact(row, img.Y[img.YOffset(x, y):][:n], cb, cr)
}

// spread repeats samples: dst[i] is src[(from+i)/every], with from < every.
func spread(dst, src []byte, from, every int) {
	head := min(every-from, len(dst))
	for i := range head {
		dst[i] = src[0]
	}
	dst, src = dst[head:], src[1:]
	whole := len(dst) / every
	for i, v := range src[:whole] {
		for j := range dst[i*every:][:every] {
			dst[i*every+j] = v
		}
	}
	for i := whole * every; i < len(dst); i++ {
		dst[i] = src[whole]
	}
}

// load sets up the planes and axes for a rendering with scaling.
func (r *Renderer) load(img image.Image, v View) {
	b := img.Bounds()
	w, h := b.Dx(), b.Dy()
	x, y := span{v.Size.X, v.Scaled.X, v.Window.Min.X, v.Window.Dx()}, span{v.Size.Y, v.Scaled.Y, v.Window.Min.Y, v.Window.Dy()}
	sx, sy := sampling{n: v.Size.X, every: 1}, sampling{n: v.Size.Y, every: 1}
	r.n = 3
	first := &r.planes[0]
	switch img := img.(type) {
	case *image.Gray:
		r.n = 1
		first.open(img.Pix[img.PixOffset(b.Min.X, b.Min.Y):], orientedGrid(v.Orient, w, h, 1, img.Stride))
	case *image.YCbCr:
		first.open(img.Y[img.YOffset(b.Min.X, b.Min.Y):], orientedGrid(v.Orient, w, h, 1, img.YStride))
	case *RGB:
		r.img, r.gx = img, orientedGrid(v.Orient, w, h, 3, img.Stride)
	default:
		r.img, r.gx, r.gy = img, orientedGrid(v.Orient, w, h, 1, 0), orientedGrid(v.Orient, w, h, 0, 1)
	}
	r.axes[0].build(sx, x, order{mirrored: v.Flip, reversed: first.reversed()}, v.Filter)
	r.axes[1].build(sy, y, order{}, v.Filter)
	for i := range r.planes {
		p := &r.planes[i]
		p.x, p.y, p.bias = &r.axes[0], &r.axes[1], levelBias
	}
	if img, ok := img.(*image.YCbCr); ok {
		r.loadChroma(img, v, x, y)
	}
	for i := range r.planes[:r.n] {
		p := &r.planes[i]
		width := p.x.hi - p.x.lo
		p.depth = 0
		if !p.direct() {
			// A block is fetched whole, the first of its rows being the last of those needed at worst.
			p.depth = (p.y.taps + 2*turned - 2) &^ (turned - 1)
			p.next = p.y.lo
			if p.pix != nil {
				p.next &^= turned - 1
			}
			p.ring = sized(p.ring, p.depth*width)
		}
		p.line = sized(p.line, len(p.x.first))
		r.mixed = sized(r.mixed, max(len(r.mixed), width+overrun))
		r.rows = slices.Grow(r.rows[:0], p.y.taps+1)
	}
	if r.img != nil {
		r.pixels = sized(r.pixels, 3*(first.x.hi-first.x.lo))
	}
}

func (r *Renderer) loadChroma(img *image.YCbCr, v View, x, y span) {
	b := img.Bounds()
	across, down := chromaEvery(img.SubsampleRatio)
	sx := chromaSampling(b.Min.X, b.Max.X, across)
	sy := chromaSampling(b.Min.Y, b.Max.Y, down)
	g := orientedGrid(v.Orient, sx.n, sy.n, 1, img.CStride)
	at := img.COffset(b.Min.X, b.Min.Y)
	cb, cr := &r.planes[1], &r.planes[2]
	cb.open(img.Cb[at:], g)
	cr.open(img.Cr[at:], g)

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
	cx, cy := &r.axes[2], &r.axes[3]
	cx.build(along(gx.dx, gy.dx), x, order{mirrored: v.Flip, reversed: cb.reversed()}, v.Filter)
	cy.build(along(gx.dy, gy.dy), y, order{}, v.Filter)
	for i := 1; i < 3; i++ {
		p := &r.planes[i]
		p.x, p.y, p.bias = cx, cy, centredBias
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

// open makes pix the samples of p.
func (p *plane) open(pix []byte, g grid) { p.pix, p.grid = pix, g }

// direct reports whether the samples of a row are neighbours in memory, reversed that they are so last
// to first. The axis x counts them as they lie.
func (p *plane) direct() bool { return p.pix != nil && (p.grid.dx == 1 || p.grid.dx == -1) }

func (p *plane) reversed() bool { return p.pix != nil && p.grid.dx == -1 }

// row is row y, columns x.lo..x.hi-1, which was fetched.
func (p *plane) row(y int) []byte {
	width := p.x.hi - p.x.lo
	if p.depth > 0 {
		return p.ring[y%p.depth*width:][:width]
	}
	at := p.grid.at + y*p.grid.dy + p.x.lo
	if p.reversed() {
		at -= p.x.n - 1
	}
	return p.pix[at:][:width]
}

// fetch brings row p.next and maybe more to the ring.
func (r *Renderer) fetch(p *plane) {
	if p.pix != nil {
		p.turn(r.level)
		return
	}
	first := &r.planes[0]
	y, lo, width := first.next, first.x.lo, first.x.hi-first.x.lo
	x0, row := r.gx.at+lo*r.gx.dx+y*r.gx.dy, r.pixels
	switch img, ok := r.img.(*RGB); {
	case !ok:
		convert(row, r.img, x0, r.gy.at+lo*r.gy.dx+y*r.gy.dy, r.gx.dx, r.gy.dx, width)
	case r.gx.dx == 3:
		row = img.Pix[x0:][:3*width]
	default:
		gather(row, img.Pix, x0, r.gx.dx)
	}
	r.level.split(r.planes[0].row(y), r.planes[1].row(y), r.planes[2].row(y), row)
	for i := range r.planes {
		r.planes[i].next++
	}
}

// filter computes output row o of a plane, n samples, into its line.
func (r *Renderer) filter(p *plane, o, n int) {
	top := p.y.lo + int(p.y.first[o])
	for p.depth > 0 && p.next < top+p.y.taps {
		r.fetch(p)
	}
	r.rows = r.rows[:0]
	for j := range p.y.taps {
		r.rows = append(r.rows, p.row(top+j))
	}
	if len(r.rows)%2 > 0 { // the kernels take two at a time, this one with weight 0
		r.rows = append(r.rows, r.rows[0])
	}
	if mixed := r.mixed[:p.x.hi-p.x.lo]; len(p.x.wide) > 0 {
		mixWide(mixed, r.rows, p.y.wide[o*p.y.stride:][:len(r.rows)])
		squeezeWide(p.line[:n], mixed, p.x, p.bias)
		return
	}
	r.level.mix(r.mixed[:p.x.hi-p.x.lo], r.rows, p.y.weights[o*p.y.stride:][:len(r.rows)])
	r.level.squeeze(p.line[:n], r.mixed, p.x, p.bias)
}

func mirrorRow(row []byte) {
	for i, j := 0, len(row)-3; i < j; i, j = i+3, j-3 {
		row[i], row[i+1], row[i+2], row[j], row[j+1], row[j+2] = row[j], row[j+1], row[j+2], row[i], row[i+1], row[i+2]
	}
}

// release lets go of the picture, and of scratch memory that one huge picture has left behind.
func (r *Renderer) release() {
	const keep = 1 << 22
	r.img = nil
	for i := range r.planes {
		p := &r.planes[i]
		p.pix = nil
		if cap(p.ring) > keep {
			p.ring = nil
		}
	}
	clear(r.rows[:cap(r.rows)])
}
