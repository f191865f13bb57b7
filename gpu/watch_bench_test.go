package gpu

import (
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow/memory"

	"sluice/net"
	"sluice/pipeline"
)

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

// What freezing the convolutions of the paper's network saves of a step.
func BenchmarkFineTune(b *testing.B) {
	const n, side = 32, 224
	for name, frozen := range map[string]string{"all": "", "convolutions_frozen": "conv"} {
		b.Run(name, func(b *testing.B) {
			s := trainStage(b, "net: alexnet\nepochs: 1", nil)
			e := env(n)
			e.Frame = pipeline.Frame{W: side, H: side, CanvasW: side, CanvasH: side}
			e.Classes = make([]string, 1000)
			if _, err := s.Plan(e); err != nil {
				b.Fatal(err)
			}
			for _, l := range s.plan.Layers {
				for i := range l.Plan.Params {
					if frozen != "" && strings.HasPrefix(l.Name, frozen) {
						l.Plan.Params[i].LR = 0
					}
				}
			}
			prepare(b, s, e)
			defer s.Close()
			in := &pipeline.Batch{Kind: pipeline.Samples, Record: record(memory.DefaultAllocator, side, 0, n, nil)}
			defer in.Record.Release()
			fastest := time.Duration(1 << 62)
			for b.Loop() {
				start := time.Now()
				if err := s.Process(b.Context(), in, discard); err != nil {
					b.Fatal(err)
				}
				if in.Step++; in.Step > 1 { // the first has nothing to compute
					fastest = min(fastest, time.Since(start))
				}
			}
			b.ReportMetric(float64(fastest.Milliseconds()), "ms/step")
		})
	}
}
