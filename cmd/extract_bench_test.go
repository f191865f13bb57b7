package cmd_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sluice/gpu"
	"sluice/net"
	"sluice/pipeline"
	"sluice/pipeline/config"
)

// BenchmarkExtractFromFiles computes fc7 of alexnet for the JPEG files under SLUICE_PHOTOS (folders of classes), or for
// generated ones, and writes it as Parquet. In turn it measures what decoding alone and what the network alone do on
// the same cores. It reports the medians in images/s, and the whole in percent of 1/(1/network + 1/decoding), which is
// what the two can do together where they share the cores; the same of images a second of CPU time, which says what the
// way between them costs where other programs take the cores.
func BenchmarkExtractFromFiles(b *testing.B) {
	batch, name, dir := benchmarkPhotos(b, 64)
	weights := alexnetWeights(b)
	b.Run(name, func(b *testing.B) {
		const steps = 10 // after the first two, which pay for what begins
		var whole, decoding, network, ofCPU []float64
		for b.Loop() {
			var clock rateSink
			line := extractFromFiles(b, dir, weights, batch, steps+2)
			line.Sinks = append(line.Sinks, pipeline.NamedSink{Name: "clock", Sink: &clock})
			if err := line.Run(b.Context()); err != nil {
				b.Fatal(err)
			}
			wall, cpu := clock.rate(2)
			whole = append(whole, wall)

			var decoded rateStage
			line = extractFromFiles(b, dir, weights, batch, 4*steps)
			line.Stages, line.Sinks = []pipeline.NamedStage{{Name: "clock", Stage: &decoded}}, nil
			if err := line.Run(b.Context()); err != nil {
				b.Fatal(err)
			}
			wall, decodingCPU := decoded.rate(2)
			decoding = append(decoding, wall)

			line = extractFromFiles(b, dir, weights, batch, 1)
			alone := &aloneStage{Extract: line.Stages[0].Stage.(*gpu.Extract), steps: steps}
			line.Stages, line.Sinks = []pipeline.NamedStage{{Name: "alone", Stage: alone}}, nil
			if err := line.Run(b.Context()); err != nil {
				b.Fatal(err)
			}
			wall, networkCPU := alone.rate(2)
			network = append(network, wall)
			if cpu > 0 {
				ofCPU = append(ofCPU, 100*cpu*(1/decodingCPU+1/networkCPU))
			}
		}
		w, d, n := middle(whole), middle(decoding), middle(network)
		b.ReportMetric(w, "images/s")
		b.ReportMetric(d, "decoding-images/s")
		b.ReportMetric(n, "network-images/s")
		b.ReportMetric(100*w/(1/(1/n+1/d)), "%bound")
		if len(ofCPU) > 0 {
			b.ReportMetric(middle(ofCPU), "%cpu-bound")
		}
		b.ReportMetric(0, "ns/op")
	})
}

func middle(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// alexnetWeights writes random weights.
func alexnetWeights(b *testing.B) string {
	b.Helper()
	var options struct {
		Net net.Def `yaml:"net"`
	}
	doc, err := config.Parse("alexnet.yaml", []byte("net: alexnet"))
	if err == nil {
		err = doc.Decode(&options)
	}
	if err != nil {
		b.Fatal(err)
	}
	m := &gpu.Model{Net: options.Net, Height: 224, Width: 224}
	for i := range 1000 {
		m.Classes = append(m.Classes, fmt.Sprintf("class %d", i))
	}
	plan, err := m.Net.Plan(1, 224, 224, 1000)
	if err != nil {
		b.Fatal(err)
	}
	engine, err := gpu.Open(gpu.CPU, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer engine.Close()
	n, err := net.New(b.Context(), engine, plan, 1, false)
	if err == nil {
		m.Tensors, err = n.Snapshot(nil, false)
	}
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "weights.safetensors")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	if err := errors.Join(m.Write(f, "test"), f.Close()); err != nil {
		b.Fatal(err)
	}
	return path
}

// again is a source gone through again and again.
type again struct {
	pipeline.Source
	n int
}

func (a again) Len() int { return a.n }
func (a again) Read(ctx context.Context, i int, s *pipeline.Sample) error {
	return a.Source.Read(ctx, i%a.Source.Len(), s)
}

// extractFromFiles is a features run of so many batches.
func extractFromFiles(b *testing.B, dir, weights string, batch, steps int) *pipeline.Line {
	b.Helper()
	spec, err := pipeline.Parse("files.yaml", fmt.Appendf(nil, `
name: files
source: {image_folder: {dir: %q}}
samples: [decode, {resize: {shorter: 256}}, {center_crop: {size: 256}}, {center_crop: {size: 224}}]
batch: {size: %d}
batches: [{extract: {weights: %q, layers: [fc7], log_every: 1}}]
sinks: [features]
`, dir, batch, weights), []string{"run.dir=" + b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	line, err := spec.Line("test")
	if err != nil {
		b.Fatal(err)
	}
	line.Source = again{line.Source, steps * batch}
	line.Env.Samples, line.Env.StepsPerEpoch = steps*batch, steps
	return line
}

// rates are times at which batches were done with.
type rates struct {
	at   []time.Time
	cpu  []float64
	rows []int64
}

func (r *rates) add(rows int64) {
	if rows > 0 {
		r.at, r.cpu, r.rows = append(r.at, time.Now()), append(r.cpu, cpuSeconds()), append(r.rows, rows)
	}
}

// rate is images/s after the first so many batches, and images a second of CPU time,
// 0 if that is not known.
func (r *rates) rate(skip int) (wall, cpu float64) {
	rows, last := int64(0), len(r.at)-1
	for _, n := range r.rows[skip:] {
		rows += n
	}
	if spent := r.cpu[last] - r.cpu[skip-1]; spent > 0 {
		cpu = float64(rows) / spent
	}
	return float64(rows) / r.at[last].Sub(r.at[skip-1]).Seconds(), cpu
}

// rateSink is told of features.
type rateSink struct{ rates }

func (*rateSink) Accepts(k pipeline.Kind) bool { return k == pipeline.Features }
func (s *rateSink) Write(_ context.Context, b *pipeline.Batch) error {
	s.add(b.Record.NumRows())
	return nil
}
func (*rateSink) Close() error { return nil }

// rateStage drops images.
type rateStage struct{ rates }

func (s *rateStage) Process(_ context.Context, b *pipeline.Batch, _ pipeline.Emit) error {
	s.add(b.Record.NumRows())
	return nil
}

// aloneStage lets extract compute one batch over and over while nothing else runs.
type aloneStage struct {
	*gpu.Extract
	rates
	steps int
}

func (s *aloneStage) Process(ctx context.Context, b *pipeline.Batch, emit pipeline.Emit) error {
	drop := func(b *pipeline.Batch) error { b.Record.Release(); return nil }
	for range 2 + s.steps { // one is only loaded, one pays for what begins
		if err := s.Extract.Process(ctx, b, drop); err != nil {
			return err
		}
		s.add(b.Record.NumRows())
	}
	return nil
}
