package augment

import (
	"fmt"
	"image"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// Random chains of scale, crop and mirror, made on a View and made on pixels one
// after the other, give the same bits, in every orientation.
func TestComposingEqualsDoing(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for trial := range 400 {
		p := noise(1+rng.IntN(60), 1+rng.IntN(60), uint64(trial))
		orient := 1 + trial%8
		v, eager := NewView(p.W, p.H, orient), eagerOrient(p, orient)
		steps := fmt.Sprintf("%d x %d orientation %d", p.W, p.H, orient)
		if rng.IntN(4) > 0 {
			w, h := 1+rng.IntN(90), 1+rng.IntN(90)
			steps += fmt.Sprintf(" scale %d x %d", w, h)
			v, eager = v.Scale(w, h), render(t, eager, NewView(eager.W, eager.H, 1).Scale(w, h))
		}
		for range rng.IntN(5) {
			if rng.IntN(2) == 0 {
				steps += " mirror"
				v = v.Mirror()
				flipEagerly(eager)
				continue
			}
			w, h := 1+rng.IntN(eager.W), 1+rng.IntN(eager.H)
			x, y := rng.IntN(eager.W-w+1), rng.IntN(eager.H-h+1)
			steps += fmt.Sprintf(" crop %d x %d at (%d, %d)", w, h, x, y)
			v, eager = v.Crop(x, y, w, h), eagerCrop(eager, x, y, w, h)
		}
		if b := v.Bounds(); b != image.Pt(eager.W, eager.H) {
			t.Fatalf("%s: bounds %v, want %d x %d", steps, b, eager.W, eager.H)
		}
		same(t, steps, render(t, p, v), eager)
	}
}

func TestCanvasAndOrigin(t *testing.T) {
	v := NewView(500, 375, 1).Scale(341, 256)
	if v.Canvas != image.Rect(0, 0, 341, 256) || v.Cropped || v.Origin() != (image.Point{}) {
		t.Fatalf("before a crop the canvas is all of the scaled picture: %+v", v)
	}
	v = v.Crop(42, 0, 256, 256)
	if v.Canvas != image.Rect(42, 0, 298, 256) || !v.Cropped || v.Origin() != (image.Point{}) {
		t.Fatalf("the first crop is the canvas: %+v", v)
	}
	v = v.Crop(10, 20, 224, 224)
	if v.Canvas != image.Rect(42, 0, 298, 256) || v.Origin() != image.Pt(10, 20) {
		t.Fatalf("the second crop has its origin on the first: %+v", v)
	}
	// Mirrored, position 3 from the left is position 224-3-100 of the unmirrored window.
	v = v.Mirror().Crop(3, 4, 100, 100)
	if v.Origin() != image.Pt(10+224-3-100, 24) || !v.Flip {
		t.Fatalf("an origin counts on the unmirrored canvas: %+v", v)
	}
	if w := NewView(500, 375, 1).Mirror().Crop(0, 0, 100, 100); w.Canvas != image.Rect(400, 0, 500, 100) {
		t.Fatalf("the left of a mirrored picture is its right: %+v", w)
	}
}

func TestOrientationOutsideEXIFIsUpright(t *testing.T) {
	for _, o := range []int{-1, 0, 9, 65535} {
		if v := NewView(3, 2, o); v != NewView(3, 2, 1) {
			t.Errorf("orientation %d: %+v", o, v)
		}
	}
}

func TestViewRefusesNonsense(t *testing.T) {
	v := NewView(10, 10, 1)
	for what, f := range map[string]func(){
		"crop too wide":   func() { v.Crop(0, 0, 11, 1) },
		"crop outside":    func() { v.Crop(5, 0, 6, 1) },
		"crop negative":   func() { v.Crop(-1, 0, 2, 2) },
		"crop of nothing": func() { v.Crop(0, 0, 0, 1) },
		"crop overflow":   func() { v.Crop(math.MaxInt-1, 0, math.MaxInt-1, 1) },
		"scale to 0":      func() { v.Scale(0, 5) },
		"second scale":    func() { v.Scale(5, 5).Scale(6, 6) },
		"scale of a crop": func() { v.Crop(0, 0, 5, 5).Scale(6, 6) },
	} {
		func() {
			defer func() {
				if r := recover(); r == nil {
					t.Errorf("%s: no panic", what)
				}
			}()
			f()
		}()
	}
}

func TestRenderErrors(t *testing.T) {
	p := NewRGB(10, 8)
	var r Renderer
	for _, c := range []struct {
		img  image.Image
		v    View
		want string
	}{
		{nil, NewView(10, 8, 1), "no picture"},
		{p, View{}, "not of a picture"},
		{p, NewView(8, 10, 1), "not of a picture"},
		{NewRGB(0, 5), NewView(0, 5, 1), "not of a picture"},
		{p, NewView(10, 8, 1).Scale(1<<20, 1<<20), "too many"},
		{p, NewView(10, 8, 1).Scale(maxSide+1, 1).Crop(0, 0, 1, 1), "too many"},
		{&RGB{W: 10, H: 8, Stride: 30, Pix: p.Pix[:200]}, NewView(10, 8, 1), "too few bytes"},
		{&image.YCbCr{Rect: image.Rect(0, 0, 10, 8), YStride: 10, CStride: 5, Y: make([]byte, 80)}, NewView(10, 8, 1), "too few bytes"},
		{p, View{Orient: 1, Size: image.Pt(10, 8), Scaled: image.Pt(10, 8), Window: image.Rect(5, 5, 12, 8)}, "not inside"},
	} {
		if err := r.Render(&RGB{}, c.img, c.v); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want %q", c.v, err, c.want)
		}
	}
}
