// Package pipelinetest helps to test stages of one's own.
package pipelinetest

import (
	"context"
	"fmt"
	"hash/fnv"
	"sync"
	"testing"

	"sluice/pipeline"
)

// TestSampleStage checks what the engine relies on in a sample stage: that what
// it does is a function of the sample and s.Rand alone. It sends 64 samples
// through the stage, again in the opposite order, and again from many goroutines
// at once (run it with -race), and compares what comes out. fill makes a sample as
// the stage will get it: SetImage for one that changes pictures, Bytes for a
// decoder. It may fail the sample, as long as it always does.
func TestSampleStage(t testing.TB, stage pipeline.SampleStage, fill func(s *pipeline.Sample)) {
	t.Helper()
	const n = 64
	once := func(i int) string {
		s := pipeline.NewSample(1, "stage", pipeline.Key{Epoch: i / 32, Index: i % 32})
		fill(s)
		return outcome(t.Context(), stage, s)
	}
	var first, again, beside [n]string
	for i := range n {
		first[i] = once(i)
	}
	for i := range n {
		again[n-1-i] = once(n - 1 - i)
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := g; i < n; i += 8 {
				beside[i] = once(i)
			}
		})
	}
	wg.Wait()
	for i := range n {
		switch {
		case again[i] != first[i]:
			t.Errorf("epoch %d, sample %d: first %s, in another order %s; a stage may draw from s.Rand only, and keep nothing from one sample to the next",
				i/32, i%32, first[i], again[i])
			return
		case beside[i] != first[i]:
			t.Errorf("epoch %d, sample %d: alone %s, beside others %s; one value of the stage serves all goroutines, so Process may not change it",
				i/32, i%32, first[i], beside[i])
			return
		}
	}
}

// outcome is all that a later stage or the record could see of a sample.
func outcome(ctx context.Context, stage pipeline.SampleStage, s *pipeline.Sample) (text string) {
	defer func() {
		if v := recover(); v != nil {
			text = fmt.Sprintf("it panics with %v", v)
		}
	}()
	if err := stage.Process(ctx, s); err != nil {
		return fmt.Sprintf("it fails with %q", err)
	}
	h := fnv.New64a()
	fmt.Fprint(h, s.Key, s.Name, s.Label, s.Shift)
	h.Write(s.Bytes)
	view := s.View()
	size := "no picture"
	if s.HasImage() {
		rgb, err := s.Pixels()
		if err != nil {
			return fmt.Sprintf("its picture cannot be rendered: %q", err)
		}
		h.Write(rgb.Pix[:rgb.W*rgb.H*3])
		fmt.Fprint(h, view.Origin(), view.Flip)
		size = fmt.Sprintf("%dx%d pixels", rgb.W, rgb.H)
	}
	return fmt.Sprintf("it gives %s, hash %016x", size, h.Sum64())
}
