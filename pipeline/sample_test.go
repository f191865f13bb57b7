package pipeline

import (
	"bytes"
	"errors"
	"image"
	"math/rand/v2"
	"testing"

	"sluice/augment"
)

// picture makes a picture in which every pixel is different from its neighbours.
func picture(w, h, index int) *augment.RGB {
	p := &augment.RGB{Pix: make([]byte, w*h*3), Stride: w * 3, W: w, H: h}
	r := rand.New(rand.NewPCG(uint64(index), 0))
	for i := range p.Pix {
		p.Pix[i] = byte(r.Uint32())
	}
	return p
}

func TestRandIsAFunctionOfItsKey(t *testing.T) {
	draw := func(seed uint64, stage string, key Key) uint64 {
		return NewSample(seed, stage, key).Rand().Uint64()
	}
	base := draw(1, "flip", Key{2, 3})
	if again := draw(1, "flip", Key{2, 3}); again != base {
		t.Error("the same key gives other numbers")
	}
	for name, other := range map[string]uint64{
		"seed":            draw(2, "flip", Key{2, 3}),
		"epoch":           draw(1, "flip", Key{3, 3}),
		"index":           draw(1, "flip", Key{2, 4}),
		"stage":           draw(1, "flip#2", Key{2, 3}),
		"epoch and index": draw(1, "flip", Key{3, 2}),
	} {
		if other == base {
			t.Errorf("another %s gives the same number", name)
		}
	}
	// A checkpoint and a published seed rely on these numbers.
	if want := uint64(0x3a565f812472f4f0); base != want {
		t.Errorf("seed 1, stage flip, epoch 2, index 3 gives %#x, was %#x", base, want)
	}
}

func TestRandGoesOnWithinAStage(t *testing.T) {
	s := NewSample(1, "crop", Key{})
	a, b := s.Rand().Uint64(), s.Rand().Uint64()
	if a == b {
		t.Error("two calls of Rand begin again")
	}
	s.enter("flip", labelHash("flip"))
	s.Rand()
	s.enter("crop", labelHash("crop"))
	if again := s.Rand().Uint64(); again != a {
		t.Error("what a stage draws depends on the stages before it")
	}
}

func TestPixelsWithoutAPicture(t *testing.T) {
	s := NewSample(1, "crop", Key{})
	s.SetView(augment.NewView(4, 4, 1))
	if _, err := s.Pixels(); !errors.Is(err, ErrNoImage) {
		t.Errorf("error is %v, want ErrNoImage", err)
	}
}

func TestPixelsLeaveTheStagesPictureAlone(t *testing.T) {
	img := picture(8, 6, 1)
	before := bytes.Clone(img.Pix)
	s := NewSample(1, "x", Key{})
	s.SetImage(img)
	rgb, err := s.Pixels()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(rgb.Pix[:8*6*3], before) {
		t.Error("the pixels of an untouched View are not the picture's")
	}
	clear(rgb.Pix)
	if !bytes.Equal(img.Pix, before) {
		t.Error("changing the pixels changed the picture given to SetImage")
	}
	again, err := s.Pixels()
	if err != nil || again != rgb {
		t.Errorf("Pixels again renders again (%v)", err)
	}
}

// However the rendering falls between the steps, the pixels, the crop's origin
// and the flip are those of rendering once, at the end.
func TestRenderingEarlyChangesNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		img := picture(12+r.IntN(8), 12+r.IntN(8), round)
		lazy, eager := NewSample(1, "x", Key{}), NewSample(1, "x", Key{})
		lazy.SetImage(img)
		eager.SetImage(img)
		both := func(edit func(v augment.View) augment.View) {
			lazy.SetView(edit(lazy.View()))
			eager.SetView(edit(eager.View()))
		}
		if r.IntN(2) == 0 {
			both(func(v augment.View) augment.View { return v.Scale(16, 15) })
		}
		for range 4 {
			if r.IntN(2) == 0 {
				if _, err := eager.Pixels(); err != nil {
					t.Fatal(err)
				}
			}
			if r.IntN(3) == 0 {
				both(augment.View.Mirror)
				continue
			}
			size := lazy.View().Bounds()
			w, h := size.X-r.IntN(3), size.Y-r.IntN(3)
			x, y := r.IntN(size.X-w+1), r.IntN(size.Y-h+1)
			both(func(v augment.View) augment.View { return v.Crop(x, y, w, h) })
		}
		a, err := lazy.Pixels()
		if err != nil {
			t.Fatal(err)
		}
		b, err := eager.Pixels()
		if err != nil {
			t.Fatal(err)
		}
		if a.W != b.W || a.H != b.H || !bytes.Equal(a.Pix, b.Pix) {
			t.Fatalf("round %d: other pixels", round)
		}
		if lazy.done != eager.done {
			t.Fatalf("round %d: geometry %+v, want %+v", round, eager.done, lazy.done)
		}
	}
}

func TestScalingAfterRenderingBeginsANewCanvas(t *testing.T) {
	s := NewSample(1, "x", Key{})
	s.SetImage(picture(20, 20, 1))
	s.SetView(s.View().Crop(2, 2, 16, 16).Crop(3, 4, 10, 10))
	if _, err := s.Pixels(); err != nil {
		t.Fatal(err)
	}
	if got := s.done.origin; got != image.Pt(3, 4) {
		t.Errorf("origin after the crops is %v, want (3,4)", got)
	}
	if !s.View().CanScale() {
		t.Fatal("a rendered picture cannot be scaled")
	}
	s.SetView(s.View().Scale(8, 8).Crop(1, 0, 6, 6).Crop(2, 1, 4, 4))
	if _, err := s.Pixels(); err != nil {
		t.Fatal(err)
	}
	if got := s.done.origin; got != image.Pt(2, 1) {
		t.Errorf("origin after scaling is %v, want (2,1)", got)
	}
}
