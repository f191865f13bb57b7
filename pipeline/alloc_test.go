package pipeline

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"sluice/augment"
)

// still is a source that allocates nothing: pictures of one size, made before.
type still struct {
	pictures []*augment.RGB
	n        int
}

func newStill(w, h, n int) *still {
	s := &still{n: n}
	for i := range 8 {
		s.pictures = append(s.pictures, picture(w, h, i))
	}
	return s
}

func (s *still) Len() int { return s.n }

func (s *still) Read(_ context.Context, i int, x *Sample) error {
	x.Name, x.Label = "still", 1
	x.Bytes = append(x.Bytes[:0], "encoded"...)
	x.SetImage(s.pictures[i%len(s.pictures)])
	return nil
}

type drop struct{}

func (drop) Process(context.Context, *Batch, Emit) error { return nil }

// cropLine crops w x h at random out of a picture 32 pixels larger, and flips.
func cropLine(w, h, samples int) *Line {
	return &Line{
		Seed: 1, Source: newStill(w+32, h+32, samples), SourceName: "still",
		Steps: []Step{
			{"random_crop", SampleFunc(func(_ context.Context, s *Sample) error {
				s.SetView(s.View().Crop(s.Rand().IntN(33), s.Rand().IntN(33), w, h))
				return nil
			})},
			{"flip", SampleFunc(func(_ context.Context, s *Sample) error {
				if s.Rand().IntN(2) == 0 {
					s.SetView(s.View().Mirror())
				}
				return nil
			})},
		},
		Frame: Frame{W: w, H: h, CanvasW: w + 32, CanvasH: h + 32}, BatchSize: 32, Shuffle: true, DropLast: true, Epochs: 1, Workers: 2,
		Stages: []NamedStage{{"drop", drop{}}},
	}
}

// A worker that is warm allocates nothing for a sample.
func TestAWorkerAllocatesNothing(t *testing.T) {
	l := cropLine(64, 64, 1000)
	f := &feed{line: l, labels: []uint64{1, 2, 3}}
	w := &worker{feed: f}
	order := newOrder(1, 0, 1000, true)
	pos := 0
	sample := func() {
		w.sample.reset(Key{Epoch: 0, Index: order.at(pos % 1000)})
		pos++
		w.work(t.Context())
		if w.err != nil {
			t.Fatal(w.err)
		}
	}
	for range 20 {
		sample()
	}
	if n := testing.AllocsPerRun(500, sample); n != 0 {
		t.Errorf("%v allocations a sample, want 0", n)
	}
}

// What a run allocates at steady state does not grow with the pictures: the same
// line costs as much with sixteen times the pixels, and little at all.
func TestNoAllocationGrowsWithPixels(t *testing.T) {
	perSample := func(side int) float64 {
		bytes := func(samples int) uint64 {
			l := cropLine(side, side, samples)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			if err := l.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			return after.TotalAlloc - before.TotalAlloc
		}
		bytes(32) // what is made once a process
		// The pool, the workers' buffers and the start are in both.
		few, many := bytes(320), bytes(320+1600)
		return (float64(many) - float64(few)) / 1600
	}
	small, large := perSample(16), perSample(64)
	t.Logf("%.0f bytes a sample of 768 bytes, %.0f of 12288", small, large)
	if large > 1024 || large > small+512 {
		t.Errorf("%.0f bytes allocated a sample of 64x64, %.0f of 16x16: it grows with the pixels", large, small)
	}
}

func TestSamplesAreReused(t *testing.T) {
	l := cropLine(16, 16, 640)
	seen := map[*Sample]bool{}
	l.Workers = 1
	l.Steps = append(l.Steps, Step{"count", SampleFunc(func(_ context.Context, s *Sample) error {
		seen[s] = true
		if s.Name != "still" || s.Label != 1 {
			return errors.New("the sample is not as the source made it")
		}
		s.Name, s.Label, s.Shift = "changed", 9, [3]float32{1, 2, 3}
		return nil
	})})
	l.Steps = append([]Step{{"fresh", SampleFunc(func(_ context.Context, s *Sample) error {
		if s.Shift != [3]float32{} || string(s.Bytes) != "encoded" {
			return fmt.Errorf("the sample before left its traces: %v %q", s.Shift, s.Bytes)
		}
		return nil
	})}}, l.Steps...)
	if err := l.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 2 {
		t.Errorf("one worker used %d samples, want 2", len(seen))
	}
}

// BenchmarkEngine is what the engine costs for a sample: order, randomness, crop
// and flip of 224x224, rendering, and the copy into the batch.
func BenchmarkEngine(b *testing.B) {
	for _, c := range []struct{ side, workers int }{{1, 1}, {1, 2}, {224, 1}, {224, 2}} {
		b.Run(fmt.Sprintf("%dx%d/workers=%d", c.side, c.side, c.workers), func(b *testing.B) {
			l := cropLine(c.side, c.side, max(b.N, 32))
			l.Workers, l.DropLast = c.workers, false
			b.ReportAllocs()
			b.ResetTimer()
			if err := l.Run(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}
