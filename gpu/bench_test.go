package gpu

import (
	"testing"

	"github.com/apache/arrow/go/v17/arrow/memory"

	"sluice/net"
	"sluice/pipeline"
)

// The train stage, fed from memory, against its steps alone (the same network
// on a batch that is in place): loading a batch should hide behind the step
// before, and metrics should cost nothing.
func BenchmarkTrainStage(b *testing.B) {
	const n, side = 32, 64
	setUp := func(b *testing.B) (*Train, *pipeline.Batch) {
		s := trainStage(b, "net: alexnet_small\nepochs: 1\nsolver: {lr: 0.0001}", nil)
		e := env(n)
		e.Frame = pipeline.Frame{W: side, H: side, CanvasW: side, CanvasH: side}
		prepare(b, s, e)
		return s, &pipeline.Batch{Kind: pipeline.Samples, Record: record(memory.DefaultAllocator, side, 0, n, nil)}
	}
	report := func(b *testing.B) { b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "images/s") }

	b.Run("stage", func(b *testing.B) {
		s, in := setUp(b)
		defer s.Close()
		defer in.Record.Release()
		b.ReportAllocs()
		for b.Loop() {
			if err := s.Process(b.Context(), in, discard); err != nil {
				b.Fatal(err)
			}
			in.Step++
		}
		report(b)
	})
	b.Run("compute", func(b *testing.B) {
		s, in := setUp(b)
		defer s.Close()
		defer in.Record.Release()
		if err := s.feed.load(in); err != nil {
			b.Fatal(err)
		}
		p := s.feed.take()
		b.ReportAllocs()
		for b.Loop() {
			if err := s.net.Forward(b.Context(), p, p.step, true); err != nil {
				b.Fatal(err)
			}
			s.net.Backward(b.Context())
			s.net.Update(net.SGD{LR: 0.0001, Momentum: 0.9, Decay: 0.0005})
			if err := s.engine.Sync(); err != nil {
				b.Fatal(err)
			}
			p.step++
		}
		report(b)
	})
}

// What watching a run costs, at the paper's network and batch: the norm of the
// gradient, which every update asks for, and a look at every layer, each beside a
// whole step.
func BenchmarkWatch(b *testing.B) {
	const n, side = 128, 224
	s := trainStage(b, "net: alexnet\nepochs: 1\nsolver: {lr: 0.0001}", nil)
	e := env(n)
	e.Frame = pipeline.Frame{W: side, H: side, CanvasW: side, CanvasH: side}
	e.Classes = make([]string, 1000)
	prepare(b, s, e)
	defer s.Close()
	in := &pipeline.Batch{Kind: pipeline.Samples, Record: record(memory.DefaultAllocator, side, 0, n, nil)}
	defer in.Record.Release()
	if err := s.feed.load(in); err != nil {
		b.Fatal(err)
	}
	p := s.feed.take()
	step := func(b *testing.B) {
		if err := s.net.Forward(b.Context(), p, p.step, true); err != nil {
			b.Fatal(err)
		}
		s.net.Backward(b.Context())
		s.net.Update(net.SGD{LR: 0.0001, Momentum: 0.9, Decay: 0.0005})
		if err := s.engine.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	step(b)
	b.Run("step", func(b *testing.B) {
		for b.Loop() {
			step(b)
		}
	})
	b.Run("norm", func(b *testing.B) {
		s.engine.Begin(b.Context())
		for b.Loop() {
			if _, _, err := s.net.GradientNorm(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("look", func(b *testing.B) {
		s.engine.Begin(b.Context())
		for b.Loop() {
			s.net.Peaks()
			if _, err := s.net.Layers(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
