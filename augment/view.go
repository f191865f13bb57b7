package augment

import "image"

// RGB is an 8-bit picture, interleaved, row i at Pix[i*Stride:].
type RGB struct {
	Pix    []byte
	Stride int
	W, H   int
}

// View is pending geometry of a picture. The steps apply in the order of the
// fields; each is a no-op at its zero value. It is a plain value: editing it
// costs nothing, rendering it computes only the pixels of the window.
type View struct {
	// Orient is the EXIF orientation, 1..8 (0 is 1), applied to the picture first.
	Orient int
	// Size is the picture's size after Orient.
	Size image.Point
	// Scaled is the size it is resampled to; equal to Size if it is not.
	Scaled image.Point
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
func NewView(w, h, orient int) View { panic("skeleton") }

// Bounds is the size of what Render gives.
func (v View) Bounds() image.Point { panic("skeleton") }

// Origin is the window's place on the canvas.
func (v View) Origin() image.Point { panic("skeleton") }

// Crop keeps w x h pixels at (x, y) of what Render would give now (after the
// flip). It panics if they are not all inside.
func (v View) Crop(x, y, w, h int) View { panic("skeleton") }

// Mirror flips what Render would give now.
func (v View) Mirror() View { panic("skeleton") }

// CanScale reports whether Scale may be called: nothing but orientation so far.
func (v View) CanScale() bool { panic("skeleton") }

// Scale resamples the whole picture to w x h. It panics unless CanScale.
func (v View) Scale(w, h int) View { panic("skeleton") }

// Renderer renders Views. It keeps scratch memory between calls, so a worker
// owns one; it is not safe for concurrent use. The zero value is ready.
type Renderer struct{ renderer }

type renderer struct{}

// Render computes the window of v from img into dst.Pix (reused if large
// enough), and sets dst's size. img may be *image.YCbCr, *RGB or any image.
// Cropping after scaling gives bit for bit the pixels of the whole scaled
// picture.
func (r *Renderer) Render(dst *RGB, img image.Image, v View) error { panic("skeleton") }
