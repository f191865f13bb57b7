package host

import (
	"sluice/gpu/host/simd"
	"sluice/net"
)

// view is a Map opened for an op: where pixel (n, h, w) begins is
// origin + n*image + h*row + w*c.
type view struct {
	f                  []float32
	n, c, h, w, halo   int
	row, image, origin int
	shared             bool
}

func open(t *net.Tensor) view {
	m, s := t.Mem.(*memory), t.Shape
	v := view{f: m.f, n: s.N, c: s.C, h: s.H, w: s.W, shared: m.shared}
	if t.Kind == net.Map {
		v.halo = t.Halo
	}
	v.row = (v.w + 2*v.halo) * v.c
	v.image = (v.h + 2*v.halo) * v.row
	v.origin = v.halo*v.row + v.halo*v.c
	return v
}

// line is the pixels of one row of an image, without halo.
func (v *view) line(n, h int) []float32 {
	from := v.origin + n*v.image + h*v.row
	return v.f[from : from+v.w*v.c]
}

// border zeroes the halo that belongs to row h of image n, when memory is shared
// and something else may have been there. Ops call it for every row they write.
func (v *view) border(n, h int) {
	if !v.shared || v.halo == 0 {
		return
	}
	from := n*v.image + (v.halo+h)*v.row
	side := v.halo * v.c
	if h == 0 {
		clear(v.f[from-v.halo*v.row : from])
	}
	clear(v.f[from : from+side])
	clear(v.f[from+v.row-side : from+v.row])
	if h == v.h-1 {
		clear(v.f[from+v.row : from+(1+v.halo)*v.row])
	}
}

// borders zeroes the whole halo of image n, see border.
func (v *view) borders(n int) {
	for h := range v.h {
		v.border(n, h)
	}
}

// weight is a Filter or Matrix opened for an op: panel p of group g begins at
// (g*panels+p) * k * lanes, k = height*width*c.
type weight struct {
	f                []float32
	groups, o, c     int // of one group
	height, width    int
	panels, k, total int
	tiles            *simd.Tiles // whose lanes the panels have
}

func panels(outputs int, t *simd.Tiles) int { return (outputs + t.Lanes - 1) / t.Lanes }

func openWeight(t *net.Tensor) weight {
	m := t.Mem.(*memory)
	w := weightOf(t.Spec, m.e.level)
	w.f = m.f
	return w
}

// weightOf is a weight without memory.
func weightOf(spec net.Spec, level simd.Level) weight {
	s := spec.Shape
	w := weight{groups: spec.FilterGroups(), c: s.C, height: s.H, width: s.W}
	w.o = s.N / w.groups
	w.tiles = simd.TilesFor(level, w.o)
	w.panels = panels(w.o, w.tiles)
	w.k = s.H * s.W * s.C
	w.total = w.groups * w.panels
	return w
}

// packJob copies between a tensor and its border form (NCHW or OIHW).
type packJob struct {
	t    *net.Tensor
	host []float32
	out  bool // to the host
	v    view
	w    weight
}

// tasks is how many tasks copy t.
func (j *packJob) open(t *net.Tensor, host []float32, out bool) (tasks int) {
	j.t, j.host, j.out = t, host, out
	switch t.Kind {
	case net.Map:
		j.v = open(t)
		return t.Shape.N
	case net.Filter, net.Matrix:
		j.w = openWeight(t)
		return j.w.total
	}
	return 1
}

func (j *packJob) do(_ *worker, task int) {
	m := j.t.Mem.(*memory)
	switch j.t.Kind {
	case net.Map:
		j.image(task)
	case net.Filter, net.Matrix:
		j.panel(task)
	case net.Vector:
		if j.out {
			copy(j.host, m.f)
		} else {
			copy(m.f, j.host)
		}
	case net.Index:
		for i := range m.idx {
			if j.out {
				j.host[i] = float32(m.idx[i])
			} else {
				m.idx[i] = uint16(j.host[i])
			}
		}
	}
}

func (j *packJob) image(n int) {
	v := &j.v
	host := j.host[n*v.c*v.h*v.w:][:v.c*v.h*v.w]
	plane := v.h * v.w
	if !j.out {
		v.borders(n)
	}
	for h := range v.h {
		line := v.line(n, h)
		for w := range v.w {
			pixel, at := line[w*v.c:][:v.c], h*v.w+w
			for c := range pixel {
				if j.out {
					host[c*plane+at] = pixel[c]
				} else {
					pixel[c] = host[c*plane+at]
				}
			}
		}
	}
}

func (j *packJob) panel(p int) {
	w := &j.w
	g, plane, lanes := p/w.panels, w.height*w.width, w.tiles.Lanes
	first := (p % w.panels) * lanes
	panel := w.f[p*w.k*lanes:][:w.k*lanes]
	for l := range lanes {
		o := first + l
		if o >= w.o {
			if !j.out {
				for k := range w.k {
					panel[k*lanes+l] = 0
				}
			}
			continue
		}
		host := j.host[(g*w.o+o)*w.k:][:w.k]
		for c := range w.c {
			for at := range plane {
				if j.out {
					host[c*plane+at] = panel[(at*w.c+c)*lanes+l]
				} else {
					panel[(at*w.c+c)*lanes+l] = host[c*plane+at]
				}
			}
		}
	}
}

// Upload copies src, NCHW or OIHW, into dst.
func (e *Engine) Upload(dst *net.Tensor, src []float32) {
	if e.ready("Upload", dst) && e.sized("Upload", dst, len(src)) {
		e.pack("Upload", dst, src, false)
	}
}

// Download copies src into dst, NCHW or OIHW.
func (e *Engine) Download(dst []float32, src *net.Tensor) {
	if e.ready("Download", src) && e.sized("Download", src, len(dst)) {
		e.pack("Download", src, dst, true)
	}
}

func (e *Engine) pack(op string, t *net.Tensor, host []float32, out bool) {
	j := &e.jobs.pack
	e.run(op, j.open(t, host, out), j)
	j.host = nil // it may be as large as the largest tensor, and is the caller's to drop
}

func (e *Engine) sized(op string, t *net.Tensor, n int) bool {
	if n != t.Shape.Len() {
		e.fail("%s: %s %q has %d elements, the slice %d", op, t.Shape, t.Name, t.Shape.Len(), n)
		return false
	}
	return true
}

// ready says whether an op may run on these tensors at all.
func (e *Engine) ready(op string, tensors ...*net.Tensor) bool {
	if e.stopped() {
		return false
	}
	for i, t := range tensors {
		if t == nil {
			e.fail("%s: tensor %d of %d is nil", op, i+1, len(tensors))
			return false
		}
		m, ok := t.Mem.(*memory)
		if !ok || m.e != e {
			e.fail("%s: tensor %q belongs to another engine", op, t.Name)
			return false
		}
		if op != "Conv" && op != "Download" { // who else is given weights may change them
			m.planes = planesOf{}
		}
	}
	return true
}

// expect says whether t has this shape and kind.
func (e *Engine) expect(op, what string, t *net.Tensor, kind net.Kind, shape net.Shape) bool {
	return e.fits(op, t.Expect(what, kind, shape))
}

// fits keeps what net says of an op's tensors.
func (e *Engine) fits(op string, err error) bool {
	if err != nil {
		e.fail("%s: %w", op, err)
	}
	return err == nil
}

// Host runs f over host copies; they are kept for the next call.
func (e *Engine) Host(outs, ins []*net.Tensor, f func(outs, ins [][]float32)) {
	if !e.ready("Host", outs...) || !e.ready("Host", ins...) {
		return
	}
	for len(e.hosts) < len(outs)+len(ins) {
		e.hosts = append(e.hosts, nil)
	}
	host := e.hosts[:len(outs)+len(ins)]
	for i := range host {
		t := ins[max(0, i-len(outs)):]
		if i < len(outs) {
			t = outs[i:]
		}
		host[i] = need(&e.hosts[i], t[0].Shape.Len())
		e.Download(host[i], t[0])
	}
	if e.stopped() || !e.call(f, host[:len(outs)], host[len(outs):]) {
		return
	}
	for i, t := range outs {
		e.Upload(t, host[i])
	}
}

func (e *Engine) call(f func(outs, ins [][]float32), outs, ins [][]float32) (ok bool) {
	defer func() {
		if v := recover(); v != nil {
			e.fail("Host: panic: %v", v)
			ok = false
		}
	}()
	f(outs, ins)
	return true
}
