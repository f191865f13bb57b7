package jpegenc

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"math"
	"math/rand/v2"
	"testing"
)

// truth is the DCT of A.3.3, term by term.
func truth(b *[64]float32) (f [64]float64) {
	for v := range 8 {
		for u := range 8 {
			sum := 0.0
			for y := range 8 {
				for x := range 8 {
					sum += float64(b[8*y+x]) *
						math.Cos(float64(2*x+1)*float64(u)*math.Pi/16) *
						math.Cos(float64(2*y+1)*float64(v)*math.Pi/16)
				}
			}
			for _, k := range []int{u, v} {
				if k == 0 {
					sum /= math.Sqrt2
				}
			}
			f[8*v+u] = sum / 4
		}
	}
	return f
}

func TestFDCTIsTheDCT(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var b [64]float32
		for i := range b {
			b[i] = float32(rng.IntN(256) - 128)
		}
		want := truth(&b)
		fdct(&b)
		for i := range b {
			got := float64(b[i]) * fdctScale[i/8] * fdctScale[i%8]
			if math.Abs(got-want[i]) > 1e-3 {
				t.Fatalf("coefficient %d is %g, want %g", i, got, want[i])
			}
		}
	}
}

var ratios = []image.YCbCrSubsampleRatio{
	image.YCbCrSubsampleRatio444, image.YCbCrSubsampleRatio422, image.YCbCrSubsampleRatio420,
	image.YCbCrSubsampleRatio440, image.YCbCrSubsampleRatio411, image.YCbCrSubsampleRatio410,
}

// smooth paints a picture that survives compression, with every subsampled sample
// set.
func smooth(w, h int, ratio image.YCbCrSubsampleRatio) *image.YCbCr {
	m := image.NewYCbCr(image.Rect(0, 0, w, h), ratio)
	for y := range h {
		for x := range w {
			m.Y[m.YOffset(x, y)] = byte(128 + 80*math.Sin(float64(x)/9)*math.Cos(float64(y)/7))
			m.Cb[m.COffset(x, y)] = byte(128 + 50*math.Sin(float64(x+y)/31))
			m.Cr[m.COffset(x, y)] = byte(128 + 50*math.Cos(float64(x-y)/29))
		}
	}
	return m
}

func meanError(a, b []byte) float64 {
	sum := 0.0
	for i := range a {
		sum += math.Abs(float64(a[i]) - float64(b[i]))
	}
	return sum / float64(len(a))
}

// visible copies the samples of a plane that the picture shows.
func visible(pix []byte, stride, w, h int) []byte {
	var out []byte
	for y := range h {
		out = append(out, pix[y*stride:][:w]...)
	}
	return out
}

// TestImageJPEGReadsIt decodes with the standard library: the same size and
// subsampling, and pixels as near as the quality says.
func TestImageJPEGReadsIt(t *testing.T) {
	for _, ratio := range ratios {
		for _, size := range []image.Point{{1, 1}, {8, 8}, {17, 9}, {64, 48}, {101, 67}} {
			for _, o := range []Options{{Quality: 95}, {Quality: 60}, {Quality: 90, Restart: 1}, {Quality: 90, Restart: 3}} {
				t.Run(fmt.Sprintf("%v/%v/%v", ratio, size, o), func(t *testing.T) {
					src := smooth(size.X, size.Y, ratio)
					data, err := Append(nil, src, o)
					if err != nil {
						t.Fatal(err)
					}
					img, err := jpeg.Decode(bytes.NewReader(data))
					if err != nil {
						t.Fatal(err)
					}
					got := img.(*image.YCbCr)
					if got.Rect.Size() != size || got.SubsampleRatio != ratio {
						t.Fatalf("read as %v %v", got.Rect.Size(), got.SubsampleRatio)
					}
					limit := 2.0
					if o.Quality == 60 {
						limit = 4
					}
					p, err := planesOf(src)
					if err != nil {
						t.Fatal(err)
					}
					for i, c := range [][]byte{got.Y, got.Cb, got.Cr} {
						stride := got.CStride
						if i == 0 {
							stride = got.YStride
						}
						e := meanError(visible(p[i].pix, p[i].stride, p[i].w, p[i].h), visible(c, stride, p[i].w, p[i].h))
						if e > limit {
							t.Errorf("component %d is %.2f levels off on average, want at most %.1f", i, e, limit)
						}
					}
				})
			}
		}
	}
}

// TestExtremesSurvive writes noise of the greatest contrast, which has the
// longest codes, runs of zeros and stuffed bytes.
func TestExtremesSurvive(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	m := image.NewGray(image.Rect(0, 0, 123, 77))
	for i := range m.Pix {
		m.Pix[i] = byte(rng.IntN(2) * 255)
	}
	for _, quality := range []int{1, 10, 49, 50, 51, 99, 100} {
		data, err := Append(nil, m, Options{Quality: quality})
		if err != nil {
			t.Fatal(err)
		}
		img, err := jpeg.Decode(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("quality %d: %v", quality, err)
		}
		got := img.(*image.Gray)
		if quality == 100 {
			if e := meanError(m.Pix, visible(got.Pix, got.Stride, 123, 77)); e > 1 {
				t.Errorf("quality 100 is %.2f levels off on average", e)
			}
		}
	}
}

// TestSubImage shows that only what the bounds show is written.
func TestSubImage(t *testing.T) {
	whole := smooth(80, 60, image.YCbCrSubsampleRatio420)
	part := whole.SubImage(image.Rect(16, 8, 51, 39)).(*image.YCbCr)
	own := image.NewYCbCr(image.Rect(0, 0, 35, 31), image.YCbCrSubsampleRatio420)
	for y := range 31 {
		for x := range 35 {
			own.Y[own.YOffset(x, y)] = whole.Y[whole.YOffset(16+x, 8+y)]
			own.Cb[own.COffset(x, y)] = whole.Cb[whole.COffset(16+x, 8+y)]
			own.Cr[own.COffset(x, y)] = whole.Cr[whole.COffset(16+x, 8+y)]
		}
	}
	a, err := Append(nil, part, Options{Quality: 80})
	if err != nil {
		t.Fatal(err)
	}
	b, err := Append(nil, own, Options{Quality: 80})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("a part of a picture is written otherwise than the same pixels alone")
	}
}

func TestAppendKeepsWhatIsThere(t *testing.T) {
	data, err := Append([]byte("before"), smooth(9, 9, image.YCbCrSubsampleRatio444), Options{Quality: 75})
	if err != nil {
		t.Fatal(err)
	}
	rest, ok := bytes.CutPrefix(data, []byte("before"))
	if !ok {
		t.Fatal("dst was overwritten")
	}
	if _, err := jpeg.Decode(bytes.NewReader(rest)); err != nil {
		t.Fatal(err)
	}
}

func TestRefuses(t *testing.T) {
	gray := image.NewGray(image.Rect(0, 0, 8, 8))
	odd := smooth(8, 8, image.YCbCrSubsampleRatio420)
	odd.SubsampleRatio = 99
	for name, c := range map[string]struct {
		img image.Image
		o   Options
	}{
		"empty":       {image.NewGray(image.Rectangle{}), Options{Quality: 75}},
		"quality 0":   {gray, Options{}},
		"quality 101": {gray, Options{Quality: 101}},
		"restart":     {gray, Options{Quality: 75, Restart: 65536}},
		"none":        {nil, Options{Quality: 75}},
		"type":        {image.NewUniform(color.Black), Options{Quality: 75}},
		"RGBA":        {image.NewRGBA(image.Rect(0, 0, 8, 8)), Options{Quality: 75}},
		"ratio":       {odd, Options{Quality: 75}},
		"amid chroma": {smooth(8, 8, image.YCbCrSubsampleRatio420).SubImage(image.Rect(1, 0, 5, 5)), Options{Quality: 75}},
	} {
		if _, err := Append(nil, c.img, c.o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, ratio := range []image.YCbCrSubsampleRatio{image.YCbCrSubsampleRatio444, image.YCbCrSubsampleRatio420} {
		b.Run(ratio.String(), func(b *testing.B) {
			m := smooth(150, 150, ratio)
			var buf []byte
			for b.Loop() {
				var err error
				if buf, err = Append(buf[:0], m, Options{Quality: 80}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
