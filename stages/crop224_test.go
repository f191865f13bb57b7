package stages

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/jpeg"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"sluice/augment"
	"sluice/pipeline"
	"sluice/stages/internal/photoset"
)

// photo is a picture with the look of a photograph: soft gradients, edges, a little noise.
func photo(w, h int, seed uint64) *augment.RGB {
	rng := rand.New(rand.NewPCG(seed, 1))
	p := augment.NewRGB(w, h)
	fx, fy := 2+4*rng.Float64(), 2+4*rng.Float64()
	cx, cy, rad := rng.Float64()*float64(w), rng.Float64()*float64(h), float64(min(w, h))/3
	for y := range h {
		row := p.Row(y)
		for x := range w {
			u, v := float64(x)/float64(w), float64(y)/float64(h)
			base := [3]float64{128 + 70*math.Sin(fx*u*3+v), 120 + 60*math.Cos(fy*v*3-u), 110 + 80*u - 30*v}
			if math.Hypot(float64(x)-cx, float64(y)-cy) < rad {
				base[0], base[2] = base[2], base[0]+30*math.Sin(float64(x+y))
			}
			for c := range 3 {
				row[3*x+c] = byte(min(max(base[c]+6*rng.NormFloat64(), 0), 255))
			}
		}
	}
	return p
}

func jpegOf(t testing.TB, img image.Image, quality int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: quality}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// must is a check of a constructor's error.
func must[S any](t testing.TB) func(s S, err error) S {
	return func(s S, err error) S {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

// crop224 is the line of the paper: what a JPEG goes through before a batch.
func crop224(t testing.TB) []pipeline.SampleStage {
	return []pipeline.SampleStage{
		must[*Decode](t)(NewDecode(DecodeOptions{Orientation: true, MaxPixels: 50e6, MaxBytes: 128 << 20})),
		must[*Resize](t)(NewResize(ResizeOptions{Shorter: 256})),
		must[*CenterCrop](t)(NewCenterCrop(CropOptions{Size: 256})),
		must[*RandomCrop](t)(NewRandomCrop(CropOptions{Size: 224})),
		must[*Flip](t)(NewFlip(FlipOptions{Probability: 0.5})),
		must[*PCAJitter](t)(NewPCAJitter(PCAJitterOptions{Sigma: 0.1, Scale: "eigenvalue", PCA: "imagenet"})),
	}
}

// After decode the line of the paper allocates nothing, whatever kind of picture it was.
func TestCrop224AllocatesNothing(t *testing.T) {
	src := photo(500, 375, 1)
	decode := func(data []byte) image.Image {
		img, _, err := image.Decode(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	for name, img := range map[string]image.Image{"JPEG": decode(jpegOf(t, src, 90)), "PNG": decode(pngOf(t, src)), "RGB": src} {
		line := crop224(t)[1:]
		s := pipeline.NewSample(1, "crop", pipeline.Key{})
		if n := testing.AllocsPerRun(20, func() {
			s.SetImage(img)
			process(t, s, line...)
			if p := pixels(t, s); p.W != 224 || p.H != 224 {
				t.Fatalf("%d x %d pixels", p.W, p.H)
			}
		}); n != 0 {
			t.Errorf("%s: %g allocations an image", name, n)
		}
	}
}

// BenchmarkCrop224 measures the way from the bytes of a JPEG in memory to a 224 x 224 crop that is ready for a batch, on
// the files under SLUICE_PHOTOS, or on generated ones: one goroutine, then as many as -cpu says, each with a sample of
// its own as the engine's workers have.
func BenchmarkCrop224(b *testing.B) {
	name, files := photoset.Files(b, func(i, w, h int) []byte { return jpegOf(b, photo(w, h, uint64(i)), 90) })
	line := crop224(b)
	var pixels, size int
	for _, data := range files {
		c, _, err := image.DecodeConfig(bytes.NewReader(data))
		if err != nil {
			b.Fatal(err)
		}
		pixels += c.Width * c.Height
		size += len(data)
	}
	crop := func(s *pipeline.Sample, i int) error {
		s.Index = i
		s.Bytes = append(s.Bytes[:0], files[i%len(files)]...)
		for _, stage := range line {
			if err := stage.Process(context.Background(), s); err != nil {
				return err
			}
		}
		p, err := s.Pixels()
		if err == nil && (p.W != 224 || p.H != 224) {
			err = fmt.Errorf("%d x %d pixels", p.W, p.H)
		}
		return err
	}
	report := func(b *testing.B, cpu float64) {
		if cpu = photoset.CPUSeconds() - cpu; cpu > 0 {
			b.ReportMetric(float64(b.N)/cpu, "images/cpu-s")
		}
		rate := float64(b.N) / b.Elapsed().Seconds()
		b.ReportMetric(rate, "images/s")
		b.ReportMetric(rate*float64(pixels)/float64(len(files))/1e6, "MP/s")
		b.ReportMetric(rate*float64(size)/float64(len(files))/1e6, "MB/s")
		b.ReportMetric(0, "ns/op")
	}
	b.Run(name, func(b *testing.B) {
		s := pipeline.NewSample(1, "bench", pipeline.Key{})
		b.ReportAllocs()
		i, cpu := 0, photoset.CPUSeconds()
		for b.Loop() {
			if err := crop(s, i); err != nil {
				b.Fatal(err)
			}
			i++
		}
		report(b, cpu)
	})
	b.Run(name+"/parallel", func(b *testing.B) {
		var next atomic.Int64
		cpu := photoset.CPUSeconds()
		b.RunParallel(func(pb *testing.PB) {
			s := pipeline.NewSample(1, "bench", pipeline.Key{})
			for pb.Next() {
				if err := crop(s, int(next.Add(1))); err != nil {
					b.Error(err)
					return
				}
			}
		})
		report(b, cpu)
	})
}
