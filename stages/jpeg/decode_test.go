package jpeg

import (
	"bytes"
	"image"
	stdjpeg "image/jpeg"
	"math/rand/v2"
	"testing"

	"sluice/stages/internal/jpegenc"
)

// sameAs compares a picture with the standard library's, sample by sample. Both transforms
// are within a level of the exact one, so that at most one lies between them.
func sameAs(t testing.TB, got, want image.Image) {
	t.Helper()
	if got.Bounds() != want.Bounds() {
		t.Fatalf("bounds %v, want %v", got.Bounds(), want.Bounds())
	}
	b := got.Bounds()
	switch want := want.(type) {
	case *image.Gray:
		got, ok := got.(*image.Gray)
		if !ok {
			t.Fatal("it is not gray")
		}
		near(t, "gray", got.Pix, got.Stride, want.Pix, want.Stride, b.Dx(), b.Dy())
	case *image.YCbCr:
		got, ok := got.(*image.YCbCr)
		if !ok || got.SubsampleRatio != want.SubsampleRatio {
			t.Fatalf("it is %T, want 4:x:x %v", got, want.SubsampleRatio)
		}
		// Planes are whole MCUs, so that their sizes are in the ratio of the factors.
		lines, chromaLines := len(want.Y)/want.YStride, len(want.Cb)/want.CStride
		w, h := ceilDiv(b.Dx()*want.CStride, want.YStride), ceilDiv(b.Dy()*chromaLines, lines)
		near(t, "Y", got.Y, got.YStride, want.Y, want.YStride, b.Dx(), b.Dy())
		near(t, "Cb", got.Cb, got.CStride, want.Cb, want.CStride, w, h)
		near(t, "Cr", got.Cr, got.CStride, want.Cr, want.CStride, w, h)
	case *image.RGBA:
		got := got.(*image.RGBA)
		near(t, "RGBA", got.Pix, got.Stride, want.Pix, want.Stride, 4*b.Dx(), b.Dy())
	case *image.CMYK:
		got := got.(*image.CMYK)
		nearBy(t, 4, "CMYK", got.Pix, got.Stride, want.Pix, want.Stride, 4*b.Dx(), b.Dy())
	default:
		t.Fatalf("what is a %T?", want)
	}
}

func near(t testing.TB, what string, a []byte, aStride int, b []byte, bStride, w, h int) {
	t.Helper()
	nearBy(t, 1, what, a, aStride, b, bStride, w, h)
}

// nearBy allows more where YCCK was converted, which enlarges what chroma differs by.
func nearBy(t testing.TB, most int, what string, a []byte, aStride int, b []byte, bStride, w, h int) {
	t.Helper()
	for y := range h {
		for x := range w {
			if d := int(a[y*aStride+x]) - int(b[y*bStride+x]); d < -most || d > most {
				t.Fatalf("%s at (%d, %d) is %d, want %d", what, x, y, a[y*aStride+x], b[y*bStride+x])
			}
		}
	}
}

func std(t testing.TB, data []byte) image.Image {
	t.Helper()
	img, err := stdjpeg.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func decode(t testing.TB, d *Decoder, data []byte) *Image {
	t.Helper()
	m, err := d.Decode(data, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// photo paints a picture that has edges, noise and slopes.
func photo(rng *rand.Rand, w, h int, ratio image.YCbCrSubsampleRatio) *image.YCbCr {
	m := image.NewYCbCr(image.Rect(0, 0, w, h), ratio)
	fill := func(pix []byte) {
		a, b := rng.IntN(7), rng.IntN(200)
		for i := range pix {
			pix[i] = byte(b + i*a/16 + rng.IntN(1+8*a))
		}
	}
	fill(m.Y)
	fill(m.Cb)
	fill(m.Cr)
	return m
}

var ratios = []image.YCbCrSubsampleRatio{
	image.YCbCrSubsampleRatio444, image.YCbCrSubsampleRatio422, image.YCbCrSubsampleRatio420,
	image.YCbCrSubsampleRatio440, image.YCbCrSubsampleRatio411, image.YCbCrSubsampleRatio410,
}

// Thousands of files of every size, ratio, quality and restart interval decode
// as by image/jpeg, to a level.
func TestMatchesImageJPEG(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var d Decoder
	var data []byte
	files := 0
	for w := 1; w <= 70; w++ {
		for h := 1 + rng.IntN(3); h <= 70; h += 1 + rng.IntN(5) {
			o := jpegenc.Options{Quality: 1 + rng.IntN(100)}
			if rng.IntN(2) == 0 {
				o.Restart = 1 + rng.IntN(9)
			}
			var src image.Image = photo(rng, w, h, ratios[rng.IntN(len(ratios))])
			if rng.IntN(7) == 0 {
				y := src.(*image.YCbCr)
				src = &image.Gray{Pix: y.Y, Stride: y.YStride, Rect: y.Rect}
			}
			var err error
			if data, err = jpegenc.Append(data[:0], src, o); err != nil {
				t.Fatal(err)
			}
			got := decode(t, &d, data)
			if got.Width != w || got.Height != h || got.Lost != 0 {
				t.Fatalf("%d x %d, lost %d", got.Width, got.Height, got.Lost)
			}
			sameAs(t, got.Image(), std(t, data))
			files++
			if t.Failed() {
				t.Fatalf("%dx%d %+v", w, h, o)
			}
		}
	}
	if files < 1500 {
		t.Errorf("only %d files", files)
	}
}

// samePlanes compares the visible samples of two pictures.
func samePlanes(t testing.TB, a, b [][]byte) {
	t.Helper()
	for i := range b {
		if !bytes.Equal(a[i], b[i]) {
			t.Fatalf("plane %d differs", i)
		}
	}
}

// planes copies the visible samples.
func planes(m *Image) (out [][]byte) {
	for _, p := range m.Planes {
		var o []byte
		for y := range p.Height {
			o = append(o, p.Pix[y*p.Stride:][:p.Width]...)
		}
		out = append(out, o)
	}
	return out
}

// The same coefficients in one scan or in many, interleaved or not, progressive by any script, with any
// restart interval, are the same samples.
func TestBaselineEqualsProgressive(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	var d Decoder
	for i := range 400 {
		n := []int{1, 3, 3, 3, 4}[rng.IntN(5)]
		var factors [][2]int
		for range n {
			factors = append(factors, [2]int{1 + rng.IntN(4), 1 + rng.IntN(4)})
		}
		if rng.IntN(2) == 0 && n == 3 {
			factors = [][2]int{{1 + rng.IntN(2), 1 + rng.IntN(2)}, {1, 1}, {1, 1}}
		}
		s := newSheet(rng, 1+rng.IntN(90), 1+rng.IntN(90), factors...)
		if n >= 3 && rng.IntN(2) == 0 {
			s.adobe = rng.IntN(3)
		}
		restart := func() int {
			if rng.IntN(2) == 0 {
				return 0
			}
			return 1 + rng.IntN(20)
		}
		first := s.file(rng, false, 0, s.baseline(true)...)
		want := planes(decode(t, &d, first))
		if img, err := stdjpeg.Decode(bytes.NewReader(first)); err == nil {
			sameAs(t, d.out.Image(), img)
		}
		for name, data := range map[string][]byte{
			"not interleaved": s.file(rng, false, restart(), s.baseline(false)...),
			"with restarts":   s.file(rng, false, 1+rng.IntN(5), s.baseline(true)...),
			"progressive":     s.file(rng, true, restart(), s.script(rng)...),
		} {
			m, err := d.Decode(data, Options{})
			if err != nil {
				t.Fatalf("%d %v, %s: %v", i, factors, name, err)
			}
			samePlanes(t, planes(m), want)
		}
	}
}
