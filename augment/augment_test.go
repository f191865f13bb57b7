package augment

import (
	"fmt"
	"image"
	"image/color"
	"math"
	"math/rand/v2"
	"testing"
)

// flipEagerly flips a picture left to right in place: the eager twin of View.Mirror.
func flipEagerly(p *RGB) {
	for y := range p.H {
		mirrorRow(p.Row(y))
	}
}

// photo is a picture with the look of a photograph: soft gradients, edges and a little noise.
func photo(w, h int, seed uint64) *RGB {
	rng := rand.New(rand.NewPCG(seed, 1))
	p := NewRGB(w, h)
	fx, fy := 2+4*rng.Float64(), 2+4*rng.Float64()
	cx, cy, rad := rng.Float64()*float64(w), rng.Float64()*float64(h), float64(min(w, h))/3
	for y := range h {
		row := p.Row(y)
		for x := range w {
			u, v := float64(x)/float64(w), float64(y)/float64(h)
			base := [3]float64{
				128 + 70*math.Sin(fx*u*3+v),
				120 + 60*math.Cos(fy*v*3-u),
				110 + 80*u - 30*v,
			}
			if math.Hypot(float64(x)-cx, float64(y)-cy) < rad {
				base[0], base[2] = base[2], base[0]+30
			}
			for c := range 3 {
				row[3*x+c] = byte(min(max(base[c]+6*rng.NormFloat64(), 0), 255))
			}
		}
	}
	return p
}

func noise(w, h int, seed uint64) *RGB {
	rng := rand.New(rand.NewPCG(seed, 2))
	p := NewRGB(w, h)
	for i := range p.Pix {
		p.Pix[i] = byte(rng.Uint32())
	}
	return p
}

// ycbcr is p as the planes that a JPEG decoder gives, chroma averaged.
func ycbcr(p *RGB, r image.YCbCrSubsampleRatio, at image.Point) *image.YCbCr {
	img := image.NewYCbCr(image.Rect(0, 0, p.W, p.H).Add(at), r)
	across, down := chromaEvery(r)
	sum := make([][3]int, len(img.Cb))
	for y := range p.H {
		for x := range p.W {
			c := p.rgba(x, y)
			yy, cb, cr := color.RGBToYCbCr(c.R, c.G, c.B)
			img.Y[img.YOffset(x+at.X, y+at.Y)] = yy
			s := &sum[img.COffset(x+at.X, y+at.Y)]
			s[0], s[1], s[2] = s[0]+int(cb), s[1]+int(cr), s[2]+1
		}
	}
	_, _ = across, down
	for i, s := range sum {
		if s[2] > 0 {
			img.Cb[i], img.Cr[i] = byte((s[0]+s[2]/2)/s[2]), byte((s[1]+s[2]/2)/s[2])
		}
	}
	return img
}

// render renders with every level that there is, which must agree.
func render(t testing.TB, img image.Image, v View) *RGB {
	t.Helper()
	var want *RGB
	for _, l := range levels() {
		var r Renderer
		r.level = l
		dst := &RGB{}
		if err := r.Render(dst, img, v); err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = dst
		}
		same(t, fmt.Sprintf("%s after %s", l, levelGeneric), dst, want)
	}
	return want
}

func same(t testing.TB, what string, got, want *RGB) {
	t.Helper()
	if got.W != want.W || got.H != want.H {
		t.Fatalf("%s: got %d x %d pixels, want %d x %d", what, got.W, got.H, want.W, want.H)
	}
	for y := range got.H {
		a, b := got.Row(y), want.Row(y)
		for i := range a {
			if a[i] != b[i] {
				t.Fatalf("%s: pixel (%d, %d) channel %d is %d, want %d", what, i/3, y, i%3, a[i], b[i])
			}
		}
	}
}

func psnr(a, b image.Image) float64 {
	var se float64
	d := a.Bounds()
	for y := range d.Dy() {
		for x := range d.Dx() {
			r0, g0, b0, _ := a.At(x, y).RGBA()
			r1, g1, b1, _ := b.At(x, y).RGBA()
			for _, e := range [3]float64{float64(r0) - float64(r1), float64(g0) - float64(g1), float64(b0) - float64(b1)} {
				se += e * e / (257 * 257)
			}
		}
	}
	return 10 * math.Log10(255*255/(se/float64(3*d.Dx()*d.Dy())))
}

// eagerOrient moves pixels as EXIF's orientation says, written as the eight rules of where the
// stored row 0 and column 0 belong.
func eagerOrient(p *RGB, orient int) *RGB {
	w, h := p.W, p.H
	if orient >= 5 {
		w, h = h, w
	}
	q := NewRGB(w, h)
	for sy := range p.H {
		for sx := range p.W {
			var x, y int
			switch orient {
			case 1: // row 0 top, column 0 left
				x, y = sx, sy
			case 2: // top, right
				x, y = w-1-sx, sy
			case 3: // bottom, right
				x, y = w-1-sx, h-1-sy
			case 4: // bottom, left
				x, y = sx, h-1-sy
			case 5: // left, top
				x, y = sy, sx
			case 6: // right, top
				x, y = w-1-sy, sx
			case 7: // right, bottom
				x, y = w-1-sy, h-1-sx
			case 8: // left, bottom
				x, y = sy, h-1-sx
			}
			copy(q.Row(y)[3*x:3*x+3], p.Row(sy)[3*sx:])
		}
	}
	return q
}

func eagerCrop(p *RGB, x, y, w, h int) *RGB {
	q := NewRGB(w, h)
	for i := range h {
		copy(q.Row(i), p.Row(y + i)[3*x:])
	}
	return q
}
