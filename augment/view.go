package augment

import (
	"fmt"
	"image"
)

// View is pending geometry of a picture. The steps apply in the order of the
// fields; each is a no-op at its zero value. It is a plain value: editing it
// costs nothing, rendering it computes only the pixels of the window.
type View struct {
	// Orient is the EXIF orientation, 1..8 (0 is 1), applied to the picture first.
	Orient int
	// Size is the picture's size after Orient.
	Size image.Point
	// Part is what of that is taken as the picture, the rest as if it were not there; all if empty.
	Part image.Rectangle
	// Scaled is the size it is resampled to; equal to its own if it is not.
	Scaled image.Point
	// Filter is what it is resampled with.
	Filter Filter
	// Canvas is the part of the scaled picture that crop origins are relative to:
	// the first crop after a scaling, or all of it.
	Canvas  image.Rectangle
	Cropped bool
	// Window is the part of the scaled picture that is kept.
	Window image.Rectangle
	// Flip mirrors the window left to right.
	Flip bool
}

// NewView is all of a picture of w x h pixels stored with an EXIF orientation.
// An orientation that EXIF does not define counts as 1, as viewers take it.
func NewView(w, h, orient int) View {
	if orient < 1 || orient > 8 {
		orient = 1
	}
	if orient >= 5 {
		w, h = h, w
	}
	all := image.Rect(0, 0, w, h)
	return View{Orient: orient, Size: all.Max, Scaled: all.Max, Canvas: all, Window: all}
}

// Bounds is the size of what Render gives.
func (v View) Bounds() image.Point { return v.Window.Size() }

// Origin is the window's place on the canvas, both taken before the flip.
func (v View) Origin() image.Point { return v.Window.Min.Sub(v.Canvas.Min) }

// Source is the part of the stored picture, counted from its corner, that Render
// may look at: at no pixel outside of it, nor at a chroma sample that only stands
// for pixels outside.
func (v View) Source() image.Rectangle {
	part := v.part()
	size := part.Size()
	if v.Scaled == size {
		return v.stored(v.Window.Add(part.Min))
	}
	x0, x1 := v.along(v.Window.Min.X, v.Window.Max.X, size.X, v.Scaled.X)
	y0, y1 := v.along(v.Window.Min.Y, v.Window.Max.Y, size.Y, v.Scaled.Y)
	return v.stored(image.Rect(x0, y0, x1, y1).Add(part.Min))
}

// part is Part, or all of the picture upright.
func (v View) part() image.Rectangle {
	if v.Part.Empty() {
		return image.Rectangle{Max: v.Size}
	}
	return v.Part
}

// stored is where the pixels r of the picture upright are stored, counted from its corner.
func (v View) stored(r image.Rectangle) image.Rectangle {
	w, h := v.Size.X, v.Size.Y
	if v.Orient >= 5 {
		w, h = h, w
	}
	gx, gy := orientedGrid(v.Orient, w, h, 1, 0), orientedGrid(v.Orient, w, h, 0, 1)
	at := func(x, y int) image.Point { return image.Pt(gx.at+x*gx.dx+y*gx.dy, gy.at+x*gy.dx+y*gy.dy) }
	a, b := at(r.Min.X, r.Min.Y), at(r.Max.X-1, r.Max.Y-1)
	return image.Rect(min(a.X, b.X), min(a.Y, b.Y), max(a.X, b.X)+1, max(a.Y, b.Y)+1)
}

// along is Source along an axis of the part upright, for outputs lo..hi-1.
func (v View) along(lo, hi, size, scaled int) (int, int) {
	if scaled < 1 {
		return lo, hi
	}
	// A sample of chroma stands for up to four pixels, so that the filter is at least as wide. What is added
	// is for rounding, and for samples beside that have weight 0.
	every := max(4, (size+scaled-1)/scaled)
	reach := (int(v.Filter.support())+1)*every + 1
	return max(0, lo*size/scaled-reach), min(size, (hi*size+scaled-1)/scaled+reach)
}

// Crop keeps w x h pixels at (x, y) of what Render would give now (after the
// flip). It panics if they are not all inside.
func (v View) Crop(x, y, w, h int) View {
	b := v.Bounds()
	if w <= 0 || h <= 0 || x < 0 || y < 0 || w > b.X || h > b.Y || x > b.X-w || y > b.Y-h {
		panic(fmt.Sprintf("augment: crop of %d x %d at (%d, %d) is not inside a picture of %d x %d", w, h, x, y, b.X, b.Y))
	}
	if v.Flip {
		// The window is kept unflipped, so count from its other side.
		x = b.X - x - w
	}
	at := v.Window.Min.Add(image.Pt(x, y))
	v.Window = image.Rectangle{Min: at, Max: at.Add(image.Pt(w, h))}
	if !v.Cropped {
		v.Canvas, v.Cropped = v.Window, true
	}
	return v
}

// Mirror flips what Render would give now.
func (v View) Mirror() View {
	v.Flip = !v.Flip
	return v
}

// CanScale reports whether Scale and Cut may be called: nothing but orientation and Cut so far.
func (v View) CanScale() bool {
	size := v.part().Size()
	return !v.Cropped && !v.Flip && v.Scaled == size && v.Window == image.Rectangle{Max: size}
}

// Cut keeps the pixels r of a picture that is not scaled yet, as if there had been no others: unlike
// Crop, what is scaled then is the part alone, the filter sees nothing beyond its border, and crop origins
// count from its corner. It panics unless CanScale and r is not empty and inside.
func (v View) Cut(r image.Rectangle) View {
	if !v.CanScale() {
		panic("augment: a part can only be cut out of a whole picture; render it first")
	}
	if r.Empty() || !r.In(v.Window) {
		panic(fmt.Sprintf("augment: the part %v is not inside a picture of %d x %d", r, v.Window.Dx(), v.Window.Dy()))
	}
	v.Part = r.Add(v.part().Min)
	v.Scaled = r.Size()
	v.Window = image.Rectangle{Max: v.Scaled}
	v.Canvas = v.Window
	return v
}

// Scale resamples the whole picture, or what Cut has kept of it, to w x h. It panics unless CanScale.
func (v View) Scale(w, h int) View {
	if !v.CanScale() {
		panic("augment: only a whole picture can be scaled; render it first")
	}
	if w <= 0 || h <= 0 {
		panic(fmt.Sprintf("augment: a picture cannot be scaled to %d x %d", w, h))
	}
	v.Scaled = image.Pt(w, h)
	v.Window = image.Rectangle{Max: v.Scaled}
	v.Canvas = v.Window
	return v
}
