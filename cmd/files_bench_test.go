package cmd_test

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/jpeg"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"sluice/gpu"
	"sluice/gpu/enginetest"
	"sluice/pipeline"
)

// BenchmarkTrainFromFiles trains alexnet from the JPEG files under SLUICE_PHOTOS (folders of classes), or from
// generated ones, by the paper's recipe, and in turn measures what the network alone does. It reports the medians of
// both in images/s, and the first in percent of the second.
func BenchmarkTrainFromFiles(b *testing.B) {
	batch, name, dir := benchmarkPhotos(b, 128)
	b.Run(name, func(b *testing.B) {
		const steps = 4 // after the first, which pays for what begins
		var fed, alone []float64
		for b.Loop() {
			line := alexnetFromFiles(b, dir, batch)
			profiles, err := gpu.Measure(b.Context(), line.Stages[0].Stage, line.Env, 2)
			if err != nil {
				b.Fatal(err)
			}
			alone = append(alone, profiles[0].ImagesPerSecond)

			line = alexnetFromFiles(b, dir, batch)
			line.StopAfter = 1 + steps
			var times stepTimes
			line.Sinks = append(line.Sinks, pipeline.NamedSink{Name: "times", Sink: &times})
			if err := line.Run(b.Context()); err != nil {
				b.Fatal(err)
			}
			if len(times) < 2 {
				b.Fatalf("of %d steps there are %d rows", 1+steps, len(times))
			}
			first, last := times[0], times[len(times)-1]
			fed = append(fed, float64((last.Step-first.Step)*batch)/(last.Seconds-first.Seconds))
		}
		slices.Sort(fed)
		slices.Sort(alone)
		f, a := fed[len(fed)/2], alone[len(alone)/2]
		b.ReportMetric(f, "images/s")
		b.ReportMetric(a, "alone-images/s")
		b.ReportMetric(100*f/a, "%alone")
		b.ReportMetric(0, "ns/op")
	})
}

// benchmarkPhotos is the images to a batch, or what the environment says, and a folder of photos with what to call them.
func benchmarkPhotos(b *testing.B, batch int) (n int, name, dir string) {
	b.Helper()
	if s := os.Getenv(enginetest.BatchVariable); s != "" {
		var err error
		if batch, err = strconv.Atoi(s); err != nil || batch < 1 {
			b.Fatalf("%s must be a number of images, is %q", enginetest.BatchVariable, s)
		}
	}
	if dir := os.Getenv("SLUICE_PHOTOS"); dir != "" {
		return batch, "photos", dir
	}
	return batch, "generated", generatedPhotos(b, 2*batch)
}

// alexnetFromFiles is the paper's recipe on a folder.
func alexnetFromFiles(b *testing.B, dir string, batch int) *pipeline.Line {
	b.Helper()
	spec, err := pipeline.Parse("files.yaml", fmt.Appendf(nil, `
name: files
source: {image_folder: {dir: %q}}
samples: [decode, {resize: {shorter: 256}}, {center_crop: {size: 256}}, {random_crop: {size: 224}}, flip, {pca_jitter: {sigma: 0.1}}]
batch: {size: %d}
batches: [{train: {net: alexnet, epochs: 1000, solver: {lr: 1e-4}, watch: {every: 0}}}]
`, dir, batch), []string{"run.dir=" + b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	line, err := spec.Line("test")
	if err != nil {
		b.Fatal(err)
	}
	return line
}

// stepTimes is a sink that keeps the rows of steps, which say when they were done. Not every step has one.
type stepTimes []pipeline.Metric

func (*stepTimes) Accepts(k pipeline.Kind) bool { return k == pipeline.Metrics }

func (s *stepTimes) Write(_ context.Context, batch *pipeline.Batch) error {
	rows, err := pipeline.MetricsOf(batch.Record)
	for _, r := range rows {
		if r.Event == "step" {
			*s = append(*s, r)
		}
	}
	return err
}

func (*stepTimes) Close() error { return nil }

// generatedPhotos writes n JPEGs in the size of ImageNet's to two class folders.
func generatedPhotos(b *testing.B, n int) string {
	b.Helper()
	dir := b.TempDir()
	var photos [16][]byte
	for i := range photos {
		rng := rand.New(rand.NewPCG(uint64(i), 1))
		m := image.NewYCbCr(image.Rect(0, 0, 500, 375), image.YCbCrSubsampleRatio420)
		for at := range m.Y {
			x, y := float64(at%m.YStride), float64(at/m.YStride)
			m.Y[at] = byte(128 + 60*math.Sin(x/40+float64(i))*math.Cos(y/30) + 5*rng.NormFloat64())
		}
		for at := range m.Cb {
			m.Cb[at], m.Cr[at] = byte(100+at%m.CStride/5), byte(160-at/m.CStride/4)
		}
		var out bytes.Buffer
		if err := jpeg.Encode(&out, m, &jpeg.Options{Quality: 92}); err != nil {
			b.Fatal(err)
		}
		photos[i] = out.Bytes()
	}
	for i := range n {
		class := filepath.Join(dir, strconv.Itoa(i%2))
		if err := os.MkdirAll(class, 0o777); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(class, fmt.Sprintf("%d.jpg", i)), photos[i%len(photos)], 0o666); err != nil {
			b.Fatal(err)
		}
	}
	return dir
}
