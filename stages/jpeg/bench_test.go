package jpeg

import (
	"bytes"
	"fmt"
	"image"
	stdjpeg "image/jpeg"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"sluice/stages/internal/jpegenc"
	"sluice/stages/internal/photoset"
)

// scene is a picture with the look of a photograph: gradients, an edge, noise.
func scene(w, h int, seed uint64) *image.YCbCr {
	rng := rand.New(rand.NewPCG(seed, 1))
	m := image.NewYCbCr(image.Rect(0, 0, w, h), image.YCbCrSubsampleRatio420)
	fx, fy := 2+4*rng.Float64(), 2+4*rng.Float64()
	cx, cy, radius := rng.Float64()*float64(w), rng.Float64()*float64(h), float64(min(w, h))/3
	for y := range h {
		for x := range w {
			u, v := float64(x)/float64(w), float64(y)/float64(h)
			l, inside := 128+50*math.Sin(fx*u*3+v)+30*math.Cos(fy*v*5), math.Hypot(float64(x)-cx, float64(y)-cy) < radius
			if inside {
				l += 35 * math.Sin(float64(x+y)/3)
			}
			m.Y[m.YOffset(x, y)] = byte(min(max(l+5*rng.NormFloat64(), 0), 255))
			if inside {
				m.Cb[m.COffset(x, y)] = byte(120 + 40*u + 3*rng.NormFloat64())
			} else {
				m.Cb[m.COffset(x, y)] = byte(110 + 20*v)
			}
			m.Cr[m.COffset(x, y)] = byte(130 + 40*u*v + 2*rng.NormFloat64())
		}
	}
	return m
}

// BenchmarkDecode measures one goroutine from the bytes of a file to its planes, on
// every level of this CPU, and image/jpeg on the same files.
func BenchmarkDecode(b *testing.B) {
	name, files := photoset.Files(b, func(i, w, h int) []byte {
		data, err := jpegenc.Append(nil, scene(w, h, uint64(i)), jpegenc.Options{Quality: 92})
		if err != nil {
			b.Fatal(err)
		}
		return data
	})
	run := func(kind string, decode func([]byte) (w, h int, err error)) {
		b.Run(fmt.Sprintf("%s/%s", name, kind), func(b *testing.B) {
			var pixels, size int
			i := 0
			cpu := photoset.CPUSeconds()
			for b.Loop() {
				data := files[i%len(files)]
				w, h, err := decode(data)
				if err != nil {
					b.Fatal(err)
				}
				pixels += w * h
				size += len(data)
				i++
			}
			if cpu = photoset.CPUSeconds() - cpu; cpu > 0 {
				b.ReportMetric(float64(i)/cpu, "images/cpu-s")
			}
			s := b.Elapsed().Seconds()
			b.ReportMetric(float64(i)/s, "images/s")
			b.ReportMetric(float64(pixels)/s/1e6, "MP/s")
			b.ReportMetric(float64(size)/s/1e6, "MB/s")
			b.ReportMetric(0, "ns/op")
		})
	}
	for _, l := range levels() {
		d := Decoder{level: l}
		run(l.String(), func(data []byte) (int, int, error) {
			m, err := d.Decode(data, Options{})
			if err != nil {
				return 0, 0, err
			}
			return m.Width, m.Height, nil
		})
	}
	b.Run(name+"/parallel", func(b *testing.B) { // as many goroutines as -cpu says, at the best level
		var next atomic.Int64
		b.RunParallel(func(pb *testing.PB) {
			var d Decoder
			for pb.Next() {
				if _, err := d.Decode(files[int(next.Add(1))%len(files)], Options{}); err != nil {
					b.Error(err)
					return
				}
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "images/s")
		b.ReportMetric(0, "ns/op")
	})
	run("image-jpeg", func(data []byte) (int, int, error) {
		m, err := stdjpeg.Decode(bytes.NewReader(data))
		if err != nil {
			return 0, 0, err
		}
		return m.Bounds().Dx(), m.Bounds().Dy(), nil
	})
}
