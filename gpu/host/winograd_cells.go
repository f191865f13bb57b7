package host

import (
	"math"

	"sluice/gpu/host/simd"
)

// cells are images as Winograd's algorithm reads them: of cells of stride x stride
// pixels, whose numbers are the channels of one place, [row][column][channel]. Over
// them a window moves by one, and one of size pixels is ceil(size/stride) cells; what
// of the last cells no pixel of the window meets has weights of zero. At a stride of
// 1 a cell is a pixel. A convolution with a stride has one group.
type cells struct {
	x           view
	pad, stride int
}

// cellsOf is how many cells a window of size pixels is wide.
func cellsOf(size, stride int) int { return (size + stride - 1) / stride }

// patch is the floats that image needs to copy a patch, in a worker's alt.
func (c *cells) patch(side int) int {
	if c.stride == 1 {
		return 0
	}
	return side * side * c.stride * c.stride * c.x.c
}

// image transforms the patch of image n whose outputs begin at (h, v), into planes a
// worker's patch.Plane bytes apart.
func (c *cells) image(w *worker, f *simd.Winograd, planes []float32, n, h, v int) {
	p, x, s := &w.patch, &c.x, c.stride
	p.Planes, p.N = &planes[0], s*x.c
	h, v = h*s-c.pad, v*s-c.pad
	if s == 1 {
		x.cut(p, w.e.zeros, n, h, v, f.Side, 0)
		f.Image(p)
		return
	}
	side := s * f.Side
	var src []float32
	row := side * x.c
	if h >= 0 && v >= 0 && h+side <= x.h && v+side <= x.w {
		src, row = x.f[x.origin+n*x.image+h*x.row+v*x.c:], x.row
	} else { // reaches over the image's border, perhaps in the middle of a cell
		src = need(&w.alt, c.patch(f.Side))
		clear(src)
		from, to := max(0, -v), min(side, x.w-v)
		for i := max(0, -h); i < min(side, x.h-h) && from < to; i++ {
			copy(src[i*row+from*x.c:i*row+to*x.c], x.f[x.origin+n*x.image+(h+i)*x.row+(v+from)*x.c:])
		}
	}
	p.Step, p.From, p.To = 4*p.N, 0, f.Side
	for r := range s { // the rows of cells, whose pixels are neighbours
		for i := range f.Side {
			p.Rows[i] = &src[(i*s+r)*row]
		}
		p.Planes = &planes[r*p.N]
		f.Image(p)
	}
}

// filterJob transforms panels of weights. A task is a panel.
type filterJob struct {
	form      *simd.Winograd
	panels, u []float32 // [panel][window][window][c][lanes], and of a plane [panel][in][lanes]
	size      int       // of a panel in a plane
	plane     int
	back      bool // planes become weights
	// In pixels, see cells.
	window, stride int
}

// copied is the floats of a copy of a panel in cells, in a worker's buf.
func (j *filterJob) copied() int {
	if j.stride == 1 {
		return 0
	}
	return j.form.Size * j.form.Size * j.size
}

func (j *filterJob) do(w *worker, task int) {
	p, size := &w.patch, j.form.Size
	taps := j.window * j.window * (j.size / (j.stride * j.stride))
	panel := j.panels[task*taps:][:taps]
	cells := panel
	if j.stride > 1 {
		cells = need(&w.buf, j.copied())
	}
	*p = simd.Patch{Step: 4 * j.size, To: size, High: size, Planes: &j.u[task*j.size], Plane: 4 * j.plane, N: j.size, Low: float32(math.Inf(-1))}
	for i := range size {
		p.Rows[i] = &cells[i*size*j.size]
	}
	switch {
	case j.back:
		j.form.FilterGrad(p)
		if j.stride > 1 {
			j.each(cells, panel, func(cell, tap []float32) { copy(tap, cell) })
		}
	case j.stride > 1:
		clear(cells)
		j.each(cells, panel, func(cell, tap []float32) { copy(cell, tap) })
		fallthrough
	default:
		j.form.Filter(p)
	}
}

// each gives f the weights of a row of a cell, where they are in cells and in a
// window of pixels.
func (j *filterJob) each(cells, panel []float32, f func(cell, taps []float32)) {
	s, pixel := j.stride, j.size/(j.stride*j.stride)
	for h := range j.window {
		for v := 0; v < j.window; v += s {
			n := min(s, j.window-v) * pixel
			f(cells[(h/s*j.form.Size+v/s)*j.size+h%s*s*pixel:][:n], panel[(h*j.window+v)*pixel:][:n])
		}
	}
}
