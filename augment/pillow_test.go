package augment

import (
	"image"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// The pictures of scripts/goldens_pillow.py, w x h pixels.

func wave(t, period int) int {
	t %= 2 * period
	if t < 0 {
		t += 2 * period
	}
	d := t - period
	return max(d, -d) * 255 / period
}

func formula(x, y, c, w, h int) byte {
	x, y = x*400/w, y*300/h
	v := (wave(3*x+2*y+50*c, 150+40*c) + wave(x-2*y+90*c, 110)) * 2 / 5
	if (x-200)*(x-200)+(y-150)*(y-150) < 90*90 {
		v += 40
	}
	v += int(uint32(int64(x)*73856093^int64(y)*19349663^int64(c)*83492791) >> 7 & 7)
	return byte(min(255, v))
}

func formulaRGB(w, h int) *RGB {
	p := NewRGB(w, h)
	for i := range p.Pix {
		p.Pix[i] = formula(i/3%w, i/3/w, i%3, w, h)
	}
	return p
}

func chromaFormula(x, y, c, w, h int) byte {
	x, y = x*400/w, y*300/h
	return byte(96 + (wave(2*x+y, 170+80*c)+wave(y+40*c, 210))/8)
}

// What Pillow's filters give, which rounds to 8 bits between its passes and has pictures
// of planes rounded to RGB before them.
func TestAgainstPillow(t *testing.T) {
	rgb := func(w, h int) image.Image { return formulaRGB(w, h) }
	gray := func(w, h int) image.Image {
		p := image.NewGray(image.Rect(0, 0, w, h))
		for i := range p.Pix {
			p.Pix[i] = formula(i%w, i/w, 0, w, h)
		}
		return p
	}
	planes := func(ratio image.YCbCrSubsampleRatio) func(w, h int) image.Image {
		return func(w, h int) image.Image {
			p := image.NewYCbCr(image.Rect(0, 0, w, h), ratio)
			for i := range p.Y {
				p.Y[i] = 64 + formula(i%w, i/w, 0, w, h)/2
			}
			cw := p.CStride
			ch := len(p.Cb) / cw
			for i := range p.Cb {
				p.Cb[i] = chromaFormula(i%cw, i/cw, 1, cw, ch)
				p.Cr[i] = chromaFormula(i%cw, i/cw, 2, cw, ch)
			}
			return p
		}
	}
	for _, c := range []struct {
		name    string
		picture func(w, h int) image.Image
		w, h    int
		to      image.Point
		kept    image.Rectangle
		worst   float64
		filter  Filter
	}{
		{"reduced", rgb, 125, 94, image.Pt(85, 64), image.Rectangle{}, 1, Bilinear},
		{"crop_of_256", rgb, 500, 375, image.Pt(341, 256), image.Rect(131, 97, 195, 161), 1, Bilinear},
		{"halved", rgb, 128, 96, image.Pt(64, 48), image.Rectangle{}, 1, Bilinear},
		{"enlarged", rgb, 40, 30, image.Pt(67, 51), image.Rectangle{}, 1, Bilinear},
		{"stretched", rgb, 90, 50, image.Pt(40, 75), image.Rectangle{}, 1, Bilinear},
		{"tenth", rgb, 640, 480, image.Pt(64, 48), image.Rectangle{}, 1, Bilinear},
		{"gray", gray, 125, 94, image.Pt(85, 64), image.Rectangle{}, 1, Bilinear},
		{"planes_444", planes(image.YCbCrSubsampleRatio444), 125, 94, image.Pt(85, 64), image.Rectangle{}, 2, Bilinear},
		{"planes_420", planes(image.YCbCrSubsampleRatio420), 126, 94, image.Pt(85, 64), image.Rectangle{}, 2, Bilinear},
		{"bicubic_reduced", rgb, 125, 94, image.Pt(85, 64), image.Rectangle{}, 1, Bicubic},
		{"bicubic_enlarged", rgb, 40, 30, image.Pt(67, 51), image.Rectangle{}, 1, Bicubic},
		{"bicubic_planes_420", planes(image.YCbCrSubsampleRatio420), 126, 94, image.Pt(85, 64), image.Rectangle{}, 2, Bicubic},
		{"lanczos_reduced", rgb, 125, 94, image.Pt(85, 64), image.Rectangle{}, 1, Lanczos},
		{"lanczos_enlarged", rgb, 40, 30, image.Pt(67, 51), image.Rectangle{}, 1, Lanczos},
		{"lanczos_crop_of_256", rgb, 500, 375, image.Pt(341, 256), image.Rect(131, 97, 195, 161), 1, Lanczos},
	} {
		v := NewView(c.w, c.h, 1).Scale(c.to.X, c.to.Y)
		v.Filter = c.filter
		if !c.kept.Empty() {
			v = v.Crop(c.kept.Min.X, c.kept.Min.Y, c.kept.Dx(), c.kept.Dy())
		}
		near(t, c.name, render(t, c.picture(c.w, c.h), v), golden(t, "pillow", c.name), c.worst)
	}
}

func golden(t *testing.T, program, name string) image.Image {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", program, name+".png"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return want
}

// near wants a picture to be another program's, but for rounding.
func near(t *testing.T, name string, got *RGB, want image.Image, worstAllowed float64) {
	t.Helper()
	if got.Bounds().Size() != want.Bounds().Size() {
		t.Fatalf("%s: %v, want %v", name, got.Bounds(), want.Bounds())
	}
	dB, worst := psnr(got, want), 0.0
	for y := range got.H {
		for x := range got.W {
			r, g, b, _ := want.At(x, y).RGBA()
			p := got.rgba(x, y)
			worst = max(worst, math.Abs(float64(p.R)-float64(r>>8)), math.Abs(float64(p.G)-float64(g>>8)), math.Abs(float64(p.B)-float64(b>>8)))
		}
	}
	t.Logf("%s: %.1f dB, %g levels at worst", name, dB, worst)
	if dB < 53 || worst > worstAllowed {
		t.Errorf("%s: %.1f dB and %g levels at worst, want 53 and %g", name, dB, worst, worstAllowed)
	}
}
