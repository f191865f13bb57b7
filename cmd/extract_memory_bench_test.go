package cmd_test

import (
	"context"
	"fmt"
	"os"
	"runtime/metrics"
	"strconv"
	"strings"
	"testing"

	"sluice/pipeline"
)

// BenchmarkExtractMemory extracts features of SLUICE_IMAGES small images (20,000 if it is not set; a million
// takes minutes) with a small network, to Parquet, and tells what memory the process has as it goes: that after the
// first twentieth, and the most after it. It should not grow with the images.
func BenchmarkExtractMemory(b *testing.B) {
	images := 20_000
	if s := os.Getenv("SLUICE_IMAGES"); s != "" {
		var err error
		if images, err = strconv.Atoi(s); err != nil || images < 1000 {
			b.Fatalf("SLUICE_IMAGES must be a number from 1000 on, is %q", s)
		}
	}
	dir := b.TempDir()
	run := func(yaml string, sets ...string) *pipeline.Line {
		spec, err := pipeline.Parse("memory.yaml", []byte(yaml), append(sets, "run.dir="+dir))
		if err != nil {
			b.Fatal(err)
		}
		line, err := spec.Line("test")
		if err != nil {
			b.Fatal(err)
		}
		return line
	}
	const head = "source: {shapes: {samples: 1000}}\nsamples: [decode, {resize: {shorter: 24}}, {center_crop: {size: 24}}]\nbatch: {size: 64}\n"
	if err := run("name: train\n" + head + "batches: [{train: {net: [{conv: {out: 8, size: 3, stride: 2}}, {dense: {name: fc, out: 64}}, dense, softmax], epochs: 1}}]\nsinks: [weights]").Run(b.Context()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		line := run("name: extract\n" + head + fmt.Sprintf("batches: [{extract: {weights: %q, layers: [fc]}}]\nsinks: [{features: {rows_per_part: 50000}}]", dir+"/train/weights.safetensors"))
		line.Source = again{line.Source, images}
		line.Env.Samples = images
		curve := &memoryCurve{images: images}
		line.Sinks = append(line.Sinks, pipeline.NamedSink{Name: "memory", Sink: curve})
		if err := line.Run(b.Context()); err != nil {
			b.Fatal(err)
		}
		most := 0.0
		var told []string
		for i, m := range curve.megabytes {
			told = append(told, fmt.Sprintf("%d %%: %.0f", 5*(i+1), m))
			if i > 0 {
				most = max(most, m)
			}
		}
		b.Logf("MB after so many of %d images: %s", images, strings.Join(told, ", "))
		b.ReportMetric(curve.megabytes[0], "MB-at-5%")
		b.ReportMetric(most, "MB-most-after")
	}
}

// memoryCurve is what memory the process has after each twentieth of the images.
type memoryCurve struct {
	images, seen int
	megabytes    []float64
}

func (*memoryCurve) Accepts(k pipeline.Kind) bool { return k == pipeline.Features }

func (c *memoryCurve) Write(_ context.Context, b *pipeline.Batch) error {
	c.seen += int(b.Record.NumRows())
	for len(c.megabytes) < 20 && c.seen*20 >= (len(c.megabytes)+1)*c.images {
		of := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
		metrics.Read(of)
		c.megabytes = append(c.megabytes, float64(of[0].Value.Uint64()-of[1].Value.Uint64())/1e6)
	}
	return nil
}

func (*memoryCurve) Close() error { return nil }
