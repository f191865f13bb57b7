package gpu

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow/memory"

	"sluice/gpu/enginetest"
	"sluice/net"
	"sluice/pipeline"
)

// BenchmarkFeed feeds the train stage records from memory, and in turn computes its
// steps alone, on a batch that is in place: loading a batch should hide behind the
// step before, and what is measured and told of a step should cost nothing. It
// reports the medians of both in images/s, and the first in percent of the second.
func BenchmarkFeed(b *testing.B) {
	for _, p := range []struct {
		net         string
		batch, side int
	}{{"alexnet", 128, 224}, {"alexnet_small", 256, 64}} {
		b.Run(p.net, func(b *testing.B) {
			n := p.batch
			if s := os.Getenv(enginetest.BatchVariable); s != "" {
				var err error
				if n, err = strconv.Atoi(s); err != nil || n < 1 {
					b.Fatalf("%s must be a number of images, is %q", enginetest.BatchVariable, s)
				}
			}
			s := trainStage(b, fmt.Sprintf("net: %s\nepochs: 1\nsolver: {lr: 0.0001}", p.net), nil)
			s.open = Open // all cores, and the level that the environment says
			e := env(n)
			e.Threads, e.Frame = 0, pipeline.Frame{W: p.side, H: p.side, CanvasW: p.side, CanvasH: p.side}
			prepare(b, s, e)
			defer s.Close()
			in := &pipeline.Batch{Kind: pipeline.Samples, Record: record(memory.DefaultAllocator, p.side, 0, n, nil)}
			defer in.Record.Release()

			// The first call loads alone, the second pays for what an engine allocates.
			for range 2 {
				feedBatch(b, s, in)
			}
			var fed, alone []float64
			for b.Loop() {
				at := s.feed.waiting // is computed while the next is loaded
				start := time.Now()
				feedBatch(b, s, in)
				fed = append(fed, since(start))
				if _, _, err := s.feed.waiting.Tensors(); err != nil { // loaded, so that nothing runs beside
					b.Fatal(err)
				}
				start = time.Now()
				if err := s.net.Forward(b.Context(), at.Input, at.step, true); err != nil {
					b.Fatal(err)
				}
				s.net.Backward(b.Context())
				s.net.Update(net.SGD{LR: 0.0001, Momentum: 0.9, Decay: 0.0005})
				if err := s.engine.Sync(); err != nil {
					b.Fatal(err)
				}
				alone = append(alone, since(start))
			}
			b.ReportMetric(float64(n)/median(fed)*1e3, "images/s")
			b.ReportMetric(float64(n)/median(alone)*1e3, "alone-images/s")
			b.ReportMetric(100*median(alone)/median(fed), "%alone")
			b.Logf("%s, batch %d", s.engine.Name(), n)
		})
	}
}

func feedBatch(b *testing.B, s *Train, in *pipeline.Batch) {
	b.Helper()
	if err := s.Process(b.Context(), in, discard); err != nil {
		b.Fatal(err)
	}
	in.Step++
}
