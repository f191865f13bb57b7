package augment

import (
	"fmt"
	"image"
	"image/color"
	"math/rand/v2"
	"testing"
)

// opaque hides all that a picture can do but be one.
type opaque struct{ image.Image }

// A part is scaled as if it were the picture: as a copy of its pixels is, and not as a crop of the whole
// picture, whose filter sees beyond the border.
func TestCutEqualsCopy(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	src := noise(101, 83, 8)
	gray, straight := image.NewGray(src.Bounds()), image.NewNRGBA(src.Bounds())
	shown := NewRGB(src.W, src.H) // what gray shows
	for y := range src.H {
		for x := range src.W {
			p := src.Row(y)[3*x:][:3]
			gray.SetGray(x, y, color.Gray{Y: p[1]})
			straight.SetNRGBA(x, y, color.NRGBA{R: p[0], G: p[1], B: p[2], A: 255})
			copy(shown.Row(y)[3*x:], []byte{p[1], p[1], p[1]})
		}
	}
	differ := false
	for trial := range 64 {
		orient := 1 + trial%8
		upright := eagerOrient(src, orient)
		w, h := 1+rng.IntN(upright.W-1), 1+rng.IntN(upright.H-1)
		x, y := rng.IntN(upright.W-w+1), rng.IntN(upright.H-h+1)
		to := image.Pt(1+rng.IntN(90), 1+rng.IntN(90)) // the axes by factors of their own
		if trial%3 == 0 {
			to = image.Pt(w, h)
		}
		cut := image.Rect(x, y, x+w, y+h)
		scaled := func(v View) View { return v.Scale(to.X, to.Y).Mirror() }
		v := scaled(NewView(src.W, src.H, orient).Cut(cut))
		if v.Bounds() != to || v.Origin() != (image.Point{}) {
			t.Fatalf("%+v: %v at %v", v, v.Bounds(), v.Origin())
		}
		whole := scaled(NewView(w, h, 1))
		what := fmt.Sprintf("trial %d, orientation %d, %v to %v", trial, orient, cut, to)
		want := render(t, eagerCrop(upright, x, y, w, h), whole)
		same(t, what, render(t, src, v), want)
		same(t, what+", NRGBA", render(t, straight, v), want)
		same(t, what+", any picture", render(t, opaque{src}, v), want)
		same(t, what+", gray", render(t, gray, v), render(t, eagerCrop(eagerOrient(shown, orient), x, y, w, h), whole))
		for i, r := range ratios {
			// A picture of planes that begins inside of a chroma sample is held to float64 elsewhere.
			img := ycbcr(src, r, image.Pt(i%2, 0))
			part := img.SubImage(v.stored(cut).Add(img.Rect.Min))
			b := part.Bounds()
			same(t, fmt.Sprintf("%s, %v", what, r), render(t, img, v), render(t, part, scaled(NewView(b.Dx(), b.Dy(), orient))))
		}
		if orient == 1 && x > 0 && to.X < w {
			window := NewView(src.W, src.H, 1).Scale(src.W*to.X/w, src.H*to.Y/h)
			if b := window.Bounds(); x*to.X/w+to.X <= b.X && y*to.Y/h+to.Y <= b.Y {
				got := render(t, src, window.Crop(x*to.X/w, y*to.Y/h, to.X, to.Y).Mirror())
				differ = differ || string(got.Pix) != string(want.Pix)
			}
		}
	}
	if !differ {
		t.Error("a part is nothing but a crop of the scaled picture")
	}
	// A part of a part.
	v := NewView(101, 83, 6).Cut(image.Rect(10, 20, 60, 90)).Cut(image.Rect(5, 6, 30, 40))
	same(t, "a part of a part", render(t, src, v), render(t, src, NewView(101, 83, 6).Cut(image.Rect(15, 26, 40, 60))))
}

func TestCutRefusesNonsense(t *testing.T) {
	v := NewView(10, 8, 1)
	for i, f := range []func(){
		func() { v.Cut(image.Rect(0, 0, 11, 8)) },
		func() { v.Cut(image.Rect(-1, 0, 4, 8)) },
		func() { v.Cut(image.Rectangle{}) },
		func() { v.Mirror().Cut(image.Rect(0, 0, 2, 2)) },
		func() { v.Crop(0, 0, 5, 5).Cut(image.Rect(0, 0, 2, 2)) },
		func() { v.Scale(5, 5).Cut(image.Rect(0, 0, 2, 2)) },
		func() { v.Cut(image.Rect(0, 0, 2, 2)).Cut(image.Rect(1, 1, 3, 3)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%d is allowed", i)
				}
			}()
			f()
		}()
	}
	v.Part = image.Rect(5, 5, 12, 6)
	if err := new(Renderer).Render(new(RGB), NewRGB(10, 8), v); err == nil {
		t.Error("a part outside of the picture is rendered")
	}
}
