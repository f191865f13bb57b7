package gpu

import (
	"testing"

	"github.com/apache/arrow/go/v17/arrow/memory"

	"sluice/net"
	"sluice/pipeline"
)

// The train stage, fed from memory, against its steps alone: what the double
// buffer and the metrics cost. Loading a batch should hide behind the step
// before.
func BenchmarkTrain(b *testing.B) {
	const n = 32
	yaml := smallNet + "epochs: 1\nlog_every: 10\n"
	b.Run("stage", func(b *testing.B) {
		s := trainStage(b, yaml, nil)
		prepare(b, s, env(n))
		defer s.Close()
		in := batch(memory.DefaultAllocator, 0, 0, 0, n, nil)
		defer in.Record.Release()
		b.ReportAllocs()
		for b.Loop() {
			if err := s.Process(b.Context(), in, discard); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "images/s")
	})
	b.Run("compute", func(b *testing.B) {
		s := trainStage(b, yaml, nil)
		prepare(b, s, env(n))
		defer s.Close()
		in := batch(memory.DefaultAllocator, 0, 0, 0, n, nil)
		defer in.Record.Release()
		images, err := pipeline.ImagesOf(in.Record)
		if err != nil {
			b.Fatal(err)
		}
		place := s.feed.in[0]
		if err := place.Load(net.ImageBatch{N: n, Pixels: images.Pixels, Shift: images.Shift, Labels: images.Label}); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if err := s.net.Forward(b.Context(), place, 0, true); err != nil {
				b.Fatal(err)
			}
			s.net.Backward(b.Context())
			s.net.Update(net.SGD{LR: 0.01, Momentum: 0.9})
			if err := s.engine.Sync(); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "images/s")
	})
}
