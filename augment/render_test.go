package augment

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/disintegration/imaging"
)

// kernel is a filter by its textbook formula.
func kernel(f Filter, x float64) float64 {
	x = math.Abs(x)
	sinc := func(x float64) float64 {
		if x == 0 {
			return 1
		}
		return math.Sin(math.Pi*x) / (math.Pi * x)
	}
	switch {
	case f == Bilinear:
		return max(0, 1-x)
	case f == Bicubic && x < 1:
		return 1.5*x*x*x - 2.5*x*x + 1
	case f == Bicubic && x < 2:
		return -0.5*x*x*x + 2.5*x*x - 4*x + 2
	case f == Lanczos && x < 3:
		return sinc(x) * sinc(x/3)
	}
	return 0
}

// reference scales one channel by a filter in float64: each output is the
// weighted mean of the samples within reach of its centre. at(x, y) is a sample; every and shift
// are as in sampling.
func reference(at func(x, y int) float64, sx, sy sampling, size, scaled image.Point, f Filter) [][]float64 {
	weights := func(s sampling, in, out, o int) []float64 {
		scale := float64(in) / float64(out) / float64(s.every)
		centre := (float64(o)+0.5)*scale + float64(s.shift)/float64(s.every)
		w, sum := make([]float64, s.n), 0.0
		for i := range w {
			w[i] = kernel(f, (float64(i)+0.5-centre)/max(1, scale))
			sum += w[i]
		}
		for i := range w {
			w[i] /= sum
		}
		return w
	}
	across := make([][]float64, sy.n)
	for y := range across {
		across[y] = make([]float64, scaled.X)
	}
	for x := range scaled.X {
		w := weights(sx, size.X, scaled.X, x)
		for y := range across {
			for i, wi := range w {
				if wi != 0 {
					across[y][x] += wi * at(i, y)
				}
			}
		}
	}
	out := make([][]float64, scaled.Y)
	for y := range out {
		out[y] = make([]float64, scaled.X)
		for i, wi := range weights(sy, size.Y, scaled.Y, y) {
			if wi != 0 {
				for x := range out[y] {
					out[y][x] += wi * across[i][x]
				}
			}
		}
	}
	return out
}

func sizes() []image.Point {
	return []image.Point{{1, 1}, {7, 5}, {40, 30}, {64, 48}, {64, 20}, {50, 48}, {100, 77}, {300, 3}, {63, 47}}
}

func within(t *testing.T, what string, got *RGB, want func(x, y, c int) float64, tolerance float64) {
	t.Helper()
	worst := 0.0
	for y := range got.H {
		for x := range got.W {
			for c := range 3 {
				worst = max(worst, math.Abs(float64(got.Row(y)[3*x+c])-min(max(want(x, y, c), 0), 255)))
			}
		}
	}
	if worst > tolerance {
		t.Errorf("%s: off by %.3f levels, more than %g", what, worst, tolerance)
	}
}

func TestRGBAgainstFloat64(t *testing.T) {
	for _, f := range filters {
		for _, src := range []*RGB{noise(64, 48, 1), noise(1, 1, 2), noise(3, 200, 3), noise(2000, 2, 4)} {
			if f != Bilinear {
				soften(src.Pix) // there overshooting is cut off, between the passes too
			}
			for _, to := range sizes() {
				if to == src.Bounds().Max {
					continue
				}
				var want [3][][]float64
				size := image.Pt(src.W, src.H)
				for c := range want {
					want[c] = reference(func(x, y int) float64 { return float64(src.Row(y)[3*x+c]) },
						sampling{n: src.W, every: 1}, sampling{n: src.H, every: 1}, size, to, f)
				}
				v := NewView(src.W, src.H, 1).Scale(to.X, to.Y)
				v.Filter = f
				// Half a level is rounding; the rest what fixed point adds.
				within(t, fmt.Sprint(f, size, " to ", to), render(t, src, v), func(x, y, c int) float64 { return want[c][y][x] }, 0.53)
			}
		}
	}
}

var filters = []Filter{Bilinear, Bicubic, Lanczos}

// soften takes the contrast from samples.
func soften(pix []byte) {
	for i := range pix {
		pix[i] = 96 + pix[i]/4
	}
}

func TestGrayEqualsRGB(t *testing.T) {
	gray := image.NewGray(image.Rect(-3, 2, 60, 50))
	rgb := NewRGB(63, 48)
	for i := range gray.Pix {
		gray.Pix[i] = byte(i * i * 7)
		for c := range 3 {
			rgb.Pix[3*i+c] = gray.Pix[i]
		}
	}
	for o := 1; o <= 8; o++ {
		v := NewView(63, 48, o).Scale(33, 29)
		same(t, "gray", render(t, gray, v), render(t, rgb, v))
		same(t, "gray unscaled", render(t, gray, NewView(63, 48, o)), render(t, rgb, NewView(63, 48, o)))
	}
}

var ratios = []image.YCbCrSubsampleRatio{
	image.YCbCrSubsampleRatio444, image.YCbCrSubsampleRatio422, image.YCbCrSubsampleRatio420,
	image.YCbCrSubsampleRatio440, image.YCbCrSubsampleRatio411, image.YCbCrSubsampleRatio410,
}

// Planes are scaled at their own resolution and then converted: the float64
// reference does the same, at odd sizes and with corners that share a chroma sample with what is cut off.
func TestYCbCrAgainstFloat64(t *testing.T) {
	for i, ratio := range ratios {
		for j, at := range []image.Point{{0, 0}, {1, 1}, {2, 3}} {
			img, f := ycbcr(noise(63, 47, 5), ratio, at), filters[(i+j)%len(filters)]
			if f != Bilinear {
				soften(img.Y)
				soften(img.Cb)
				soften(img.Cr)
			}
			across, down := chromaEvery(ratio)
			b := img.Bounds()
			cx, cy := chromaSampling(b.Min.X, b.Max.X, across), chromaSampling(b.Min.Y, b.Max.Y, down)
			if cx.n*cy.n != len(img.Cb) {
				t.Fatalf("%v at %v: %d x %d chroma samples of %d", ratio, at, cx.n, cy.n, len(img.Cb))
			}
			for _, to := range sizes() {
				if to == b.Size() {
					continue
				}
				plane := func(pix []byte, stride int, sx, sy sampling) [][]float64 {
					return reference(func(x, y int) float64 { return float64(pix[y*stride+x]) }, sx, sy, b.Size(), to, f)
				}
				yy := plane(img.Y, img.YStride, sampling{n: 63, every: 1}, sampling{n: 47, every: 1})
				cb, cr := plane(img.Cb, img.CStride, cx, cy), plane(img.Cr, img.CStride, cx, cy)
				v := NewView(63, 47, 1).Scale(to.X, to.Y)
				v.Filter = f
				within(t, fmt.Sprint(f, ratio, at, to), render(t, img, v), func(x, y, c int) float64 {
					u, v := cb[y][x]-128, cr[y][x]-128
					return yy[y][x] + [3]float64{1.402 * v, -0.344136*u - 0.714136*v, 1.772 * u}[c]
				}, 0.53)
			}
		}
	}
}

// Mirrored planes have their chroma where the unmirrored ones have it, also at odd sizes.
func TestYCbCrOrientations(t *testing.T) {
	for _, ratio := range ratios {
		img := ycbcr(noise(63, 47, 6), ratio, image.Pt(1, 0))
		whole := map[bool]*RGB{
			false: render(t, img, NewView(63, 47, 1).Scale(41, 33)),
		}
		for o := 1; o <= 8; o++ {
			v := NewView(63, 47, o)
			same(t, fmt.Sprint(ratio, " unscaled, orientation ", o), render(t, img, v), eagerOrient(render(t, img, NewView(63, 47, 1)), o))
			v = v.Scale(41, 33)
			if o >= 5 {
				v = NewView(63, 47, o).Scale(33, 41)
			}
			want := eagerOrient(whole[false], o)
			// The passes run in another order and round the middle differently.
			within(t, fmt.Sprint(ratio, " orientation ", o), render(t, img, v), func(x, y, c int) float64 { return float64(want.Row(y)[3*x+c]) }, 1)
		}
	}
}

// wholeView is one of all of a picture of 101 x 83 pixels, or of a part taken as a picture.
func wholeView(rng *rand.Rand, trial int) View {
	v := anyPart(rng, NewView(101, 83, 1+trial%8))
	if trial%5 > 0 {
		v = v.Scale(5+rng.IntN(250), 5+rng.IntN(250))
		v.Filter = filters[rng.IntN(len(filters))]
	}
	if rng.IntN(2) == 0 {
		v = v.Mirror()
	}
	return v
}

func TestWindowEqualsCropOfWhole(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 9))
	src := noise(101, 83, 8)
	pictures := []image.Image{src, imaging.Clone(src)}
	for _, r := range ratios {
		pictures = append(pictures, ycbcr(src, r, image.Pt(0, 0)))
	}
	for i, img := range pictures {
		for trial := range 24 {
			v := wholeView(rng, trial)
			b := v.Bounds()
			w, h := 1+rng.IntN(b.X), 1+rng.IntN(b.Y)
			x, y := rng.IntN(b.X-w+1), rng.IntN(b.Y-h+1)
			same(t, fmt.Sprintf("picture %d, %+v, crop %d x %d at (%d, %d)", i, v, w, h, x, y),
				render(t, img, v.Crop(x, y, w, h)), eagerCrop(render(t, img, v), x, y, w, h))
		}
	}
}

// Render looks at nothing outside of Source: other pixels there change nothing.
func TestSourceIsAllThatIsReadOf(t *testing.T) {
	rng := rand.New(rand.NewPCG(10, 10))
	src := noise(101, 83, 8)
	smaller := 0
	for trial := range 300 {
		v := wholeView(rng, trial)
		b := v.Bounds()
		w, h := 1+rng.IntN(b.X), 1+rng.IntN(b.Y)
		v = v.Crop(rng.IntN(b.X-w+1), rng.IntN(b.Y-h+1), w, h)
		in := v.Source()
		if !in.In(image.Rect(0, 0, 101, 83)) || in.Empty() {
			t.Fatalf("%+v: source %v", v, in)
		}
		if in.Dx()*in.Dy() < 101*83/2 {
			smaller++
		}
		other := NewRGB(101, 83)
		copy(other.Pix, src.Pix)
		for i := range other.Pix {
			if x, y := i/3%101, i/3/101; !(image.Pt(x, y).In(in)) {
				other.Pix[i] ^= 0xA5
			}
		}
		same(t, fmt.Sprintf("%+v", v), render(t, other, v), render(t, src, v))
		planes := ycbcr(src, ratios[trial%len(ratios)], image.Point{})
		want := render(t, planes, v)
		needed := make([]bool, len(planes.Cb))
		for y := range 83 {
			for x := range 101 {
				if image.Pt(x, y).In(in) {
					needed[planes.COffset(x, y)] = true
				} else {
					planes.Y[planes.YOffset(x, y)] ^= 0xA5
				}
			}
		}
		for i, n := range needed {
			if !n {
				planes.Cb[i], planes.Cr[i] = planes.Cb[i]^0xA5, planes.Cr[i]^0xA5
			}
		}
		same(t, fmt.Sprintf("%v %+v", planes.SubsampleRatio, v), render(t, planes, v), want)
	}
	if smaller < 100 {
		t.Errorf("only %d of 300 views need less than half of the picture", smaller)
	}
}

func TestUnscaledIsExact(t *testing.T) {
	src := photo(67, 23, 3)
	for _, r := range ratios {
		for _, at := range []image.Point{{0, 0}, {3, 5}, {-3, -5}} {
			img := ycbcr(src, r, at)
			for _, left := range []int{0, 1, 2, 3, 40} {
				got := render(t, img, NewView(67, 23, 1).Crop(left, 0, 67-left, 23))
				for y := range got.H {
					for x := range got.W {
						c := img.YCbCrAt(x+left+at.X, y+at.Y)
						cr, cg, cb := color.YCbCrToRGB(c.Y, c.Cb, c.Cr)
						if got.rgba(x, y) != (color.RGBA{cr, cg, cb, 255}) {
							t.Fatalf("%v at %v from %d (%d, %d): %v", r, at, left, x, y, got.rgba(x, y))
						}
					}
				}
			}
		}
	}
	same(t, "RGB", render(t, src, NewView(67, 23, 1)), src)
}

// Every kind of picture comes out as image/color has it, on white.
func TestConversions(t *testing.T) {
	r := image.Rect(-2, 3, 20, 16)
	rng := rand.New(rand.NewPCG(4, 4))
	pal := make(color.Palette, 64)
	for i := range pal {
		pal[i] = color.NRGBA{byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32())}
	}
	bytesOf := func(pix []byte) {
		for i := range pix {
			pix[i] = byte(rng.Uint32())
		}
	}
	nrgba, nrgba64, cmyk, gray, gray16 := image.NewNRGBA(r), image.NewNRGBA64(r), image.NewCMYK(r), image.NewGray(r), image.NewGray16(r)
	rgba, rgba64, paletted := image.NewRGBA(r), image.NewRGBA64(r), image.NewPaletted(r, pal)
	for _, pix := range [][]byte{nrgba.Pix, nrgba64.Pix, cmyk.Pix, gray.Pix, gray16.Pix, paletted.Pix} {
		bytesOf(pix)
	}
	for i := range paletted.Pix {
		paletted.Pix[i] %= 64
	}
	for i := 0; i < len(nrgba.Pix); i += 8 {
		nrgba.Pix[i+3] = 255 // every other pixel opaque
	}
	draw.Draw(rgba, r, nrgba, r.Min, draw.Src)
	draw.Draw(rgba64, r, nrgba64, r.Min, draw.Src)
	alpha := image.NewNYCbCrA(r, image.YCbCrSubsampleRatio420)
	for _, pix := range [][]byte{alpha.Y, alpha.Cb, alpha.Cr, alpha.A} {
		bytesOf(pix)
	}
	custom := struct{ image.Image }{nrgba} // not a type that anybody knows
	for _, img := range []image.Image{nrgba, nrgba64, cmyk, gray, gray16, rgba, rgba64, paletted, alpha, custom} {
		got := render(t, img, NewView(r.Dx(), r.Dy(), 1))
		for y := range r.Dy() {
			for x := range r.Dx() {
				cr, cg, cb, ca := img.At(x+r.Min.X, y+r.Min.Y).RGBA()
				white := 0xffff - ca
				want := color.RGBA{byte((cr + white) >> 8), byte((cg + white) >> 8), byte((cb + white) >> 8), 255}
				if got.rgba(x, y) != want {
					t.Fatalf("%T (%d, %d): %v, want %v", img, x, y, got.rgba(x, y), want)
				}
			}
		}
		// Converting and scaling is scaling what was converted.
		for o := 1; o <= 8; o++ {
			v := NewView(r.Dx(), r.Dy(), o).Scale(17, 31)
			same(t, fmt.Sprintf("%T scaled, orientation %d", img, o), render(t, img, v), render(t, got, v))
		}
	}
}

// imaging's Linear is the same filter; it rounds to 8 bits between the passes.
func TestAgainstImaging(t *testing.T) {
	for i, c := range []struct{ w, h, w2, h2 int }{
		{500, 375, 341, 256}, {375, 500, 256, 341}, {1024, 683, 383, 256}, {200, 150, 341, 256}, {300, 300, 256, 256},
	} {
		src := photo(c.w, c.h, uint64(i))
		want := imaging.Resize(src, c.w2, c.h2, imaging.Linear)
		got := render(t, src, NewView(c.w, c.h, 1).Scale(c.w2, c.h2))
		if p := psnr(got, want); p < 50 {
			t.Errorf("%+v, RGB: %.1f dB", c, p)
		}
		// From 4:2:0 planes the chroma is interpolated, where imaging repeats it.
		planes := ycbcr(src, image.YCbCrSubsampleRatio420, image.Pt(0, 0))
		want = imaging.Resize(planes, c.w2, c.h2, imaging.Linear)
		if p := psnr(render(t, planes, NewView(c.w, c.h, 1).Scale(c.w2, c.h2)), want); c.w2 < c.w && p < 45 {
			t.Errorf("%+v, 4:2:0: %.1f dB", c, p)
		} else {
			t.Logf("%+v, 4:2:0: %.1f dB", c, p)
		}
	}
}

// A flat picture stays flat and an extreme reduction keeps its mean: weights sum to exactly one.
func TestWeightsSumToOne(t *testing.T) {
	flat := NewRGB(997, 13)
	for i := range flat.Pix {
		flat.Pix[i] = 191
	}
	for _, f := range filters {
		for _, to := range []image.Point{{1, 1}, {256, 3}, {5000, 40}} {
			v := NewView(997, 13, 1).Scale(to.X, to.Y)
			v.Filter = f
			for i, b := range render(t, flat, v).Pix {
				if b != 191 {
					t.Fatalf("%v, %v: byte %d is %d", f, to, i, b)
				}
			}
		}
	}
	long := NewRGB(200000, 1)
	for i := range long.Pix {
		long.Pix[i] = byte(i % 2 * 255)
	}
	got := render(t, long, NewView(long.W, 1, 1).Scale(1, 2))
	if math.Abs(float64(got.Pix[0])-127.5) > 1 {
		t.Errorf("the mean of black and white is %d", got.Pix[0])
	}
}

func TestRenderAllocatesNothing(t *testing.T) {
	src := photo(500, 375, 1)
	v := NewView(500, 375, 1).Scale(341, 256).Crop(42, 0, 256, 256).Crop(3, 5, 224, 224).Mirror()
	bicubic := v
	bicubic.Filter = Bicubic
	for name, c := range map[string]struct {
		img image.Image
		v   View
	}{
		"RGB":     {src, v},
		"420":     {ycbcr(src, image.YCbCrSubsampleRatio420, image.Pt(0, 0)), v},
		"NRGBA":   {imaging.Clone(src), v},
		"far":     {src, NewView(500, 375, 1).Scale(64, 48)},
		"bicubic": {src, bicubic},
		"rotated": {ycbcr(src, image.YCbCrSubsampleRatio420, image.Pt(0, 0)), NewView(500, 375, 6).Scale(256, 341).Crop(0, 0, 224, 224)},
	} {
		for _, l := range levels() {
			var r Renderer
			r.level = l
			dst := &RGB{}
			if n := testing.AllocsPerRun(5, func() {
				if err := r.Render(dst, c.img, c.v); err != nil {
					t.Fatal(err)
				}
			}); n != 0 {
				t.Errorf("%s, %s: %g allocations a rendering", name, l, n)
			}
		}
	}
}

// A Renderer that has rendered anything else before gives the same pixels.
func TestRendererKeepsNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	used := make([]Renderer, len(levels()))
	for i, l := range levels() {
		used[i].level = l
	}
	for trial := range 60 {
		w, h := 1+rng.IntN(150), 1+rng.IntN(150)
		img, v := anyPicture(rng, w, h), anyView(rng, w, h)
		want := render(t, img, v)
		for i := range used {
			dst := &RGB{}
			if err := used[i].Render(dst, img, v); err != nil {
				t.Fatal(err)
			}
			same(t, fmt.Sprintf("trial %d, %s, %T, %+v", trial, used[i].level, img, v), dst, want)
		}
	}
}

func TestLevelOfTheEnvironment(t *testing.T) {
	p, v := NewRGB(10, 8), NewView(10, 8, 1).Scale(5, 4)
	for _, l := range levels() {
		t.Setenv("SLUICE_CPU", l.String())
		var r Renderer
		if err := r.Render(&RGB{}, p, v); err != nil || r.level != l {
			t.Errorf("%s: level %s, %v", l, r.level, err)
		}
	}
	t.Setenv("SLUICE_CPU", "")
	var r Renderer
	if err := r.Render(&RGB{}, p, v); err != nil || r.level != best() {
		t.Errorf("none: level %s, %v", r.level, err)
	}
	t.Setenv("SLUICE_CPU", "sse9")
	if err := r.Render(&RGB{}, p, v); err != nil {
		t.Errorf("a level is chosen once: %v", err)
	}
	if err := new(Renderer).Render(&RGB{}, p, v); err == nil || !strings.Contains(err.Error(), `SLUICE_CPU is "sse9"`) || !strings.Contains(err.Error(), "generic") {
		t.Errorf("sse9: %v", err)
	}
}

// anyPicture is noise of any of the kinds that are rendered in different ways.
func anyPicture(rng *rand.Rand, w, h int) image.Image {
	src := noise(w, h, rng.Uint64())
	switch k := rng.IntN(len(ratios) + 3); {
	case k < len(ratios):
		return ycbcr(src, ratios[k], image.Pt(rng.IntN(4), rng.IntN(4)))
	case k == len(ratios):
		return imaging.Clone(src)
	case k == len(ratios)+1:
		gray := image.NewGray(image.Rect(0, 0, w, h))
		copy(gray.Pix, src.Pix)
		return gray
	default:
		return src
	}
}

// anyView is a scaling by between a thousandth and three, or none, in any orientation, of which a part
// is kept.
func anyView(rng *rand.Rand, w, h int) View {
	v := anyPart(rng, NewView(w, h, 1+rng.IntN(8)))
	x, y := 0.02+rng.Float64(), 0.02+rng.Float64()
	switch rng.IntN(5) {
	case 0:
		x, y = x/16, y/16
	case 3:
		x, y = 1, 1
	case 1:
		x, y = 3*x, 3*y
	case 2:
		x, y = 0.5, 0.5 // where the kernels across change
	}
	v = v.Scale(max(1, int(x*float64(v.Scaled.X))), max(1, int(y*float64(v.Scaled.Y))))
	b := v.Bounds()
	cw, ch := 1+rng.IntN(b.X), 1+rng.IntN(b.Y)
	v = v.Crop(rng.IntN(b.X-cw+1), rng.IntN(b.Y-ch+1), cw, ch)
	if rng.IntN(2) == 0 {
		v = v.Mirror()
	}
	return v
}

// anyPart cuts a part out of v, or now and then leaves it whole.
func anyPart(rng *rand.Rand, v View) View {
	if rng.IntN(3) == 0 {
		return v
	}
	b := v.Bounds()
	w, h := 1+rng.IntN(b.X), 1+rng.IntN(b.Y)
	at := image.Pt(rng.IntN(b.X-w+1), rng.IntN(b.Y-h+1))
	return v.Cut(image.Rectangle{Min: at, Max: at.Add(image.Pt(w, h))})
}

// BenchmarkRender renders a 224 x 224 crop of a photo whose shorter side is made 256, with every level.
func BenchmarkRender(b *testing.B) {
	src := photo(500, 375, 1)
	v := NewView(500, 375, 1).Scale(341, 256).Crop(42, 0, 256, 256).Crop(3, 5, 224, 224).Mirror()
	planes := ycbcr(src, image.YCbCrSubsampleRatio420, image.Pt(0, 0))
	for _, c := range []struct {
		name string
		img  image.Image
		v    View
	}{
		{"RGB", src, v},
		{"YCbCr420", planes, v},
		{"YCbCr420rotated", planes, NewView(500, 375, 6).Scale(256, 341).Crop(10, 20, 224, 224)},
		{"YCbCr420unscaled", planes, NewView(500, 375, 1).Crop(10, 20, 224, 224)},
		{"NRGBA", imaging.Clone(src), v},
	} {
		for _, l := range levels() {
			b.Run(c.name+"/"+l.String(), func(b *testing.B) {
				var r Renderer
				r.level = l
				dst := &RGB{}
				for b.Loop() {
					if err := r.Render(dst, c.img, c.v); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "images/s")
			})
		}
	}
}
