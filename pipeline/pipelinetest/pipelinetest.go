// Package pipelinetest helps to test stages of one's own.
package pipelinetest

import (
	"context"
	"fmt"
	"hash/fnv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/pipeline"
)

// patience is how long a call may take that has nothing to wait for, or whose
// context has ended.
const patience = time.Minute

// TestSampleStage checks what the engine relies on in a sample stage: that what
// it does is a function of the sample and s.Rand alone, that it returns when its
// context ends, and that it leaves a sample alone once it has returned. It sends 64
// samples through the stage, again in the opposite order, and again from many
// goroutines at once (run it with -race), and compares what comes out. fill makes a
// sample as the stage will get it: SetImage for one that changes pictures, Bytes for
// a decoder. The stage may fail a sample, as long as it
// always does; a panic, and a picture that cannot be rendered, are mistakes.
func TestSampleStage(t testing.TB, stage pipeline.SampleStage, fill func(s *pipeline.Sample)) {
	t.Helper()
	testSampleStage(t, patience, stage, fill)
}

// TestSource checks of a source what TestSampleStage checks of a stage, with its
// first 32 images, and that there are some.
func TestSource(t testing.TB, source pipeline.Source) {
	t.Helper()
	n := source.Len()
	if n < 1 {
		t.Errorf("the source has %d images", n)
		return
	}
	read := func(ctx context.Context, s *pipeline.Sample) error { return source.Read(ctx, s.Index%n, s) }
	TestSampleStage(t, pipeline.SampleFunc(read), func(*pipeline.Sample) {})
}

func testSampleStage(t testing.TB, patience time.Duration, stage pipeline.SampleStage, fill func(s *pipeline.Sample)) {
	t.Helper()
	const n = 64
	sample := func(i int) *pipeline.Sample {
		s := pipeline.NewSample(1, "stage", pipeline.Key{Epoch: i / 32, Index: i % 32})
		fill(s)
		return s
	}
	once := func(i int) string { return outcome(t.Context(), stage, sample(i)) }

	if !endsWith(t.Context(), patience, func(ctx context.Context) { outcome(ctx, stage, sample(0)) }) {
		t.Errorf("it has not returned %v after its context ended: a stage that waits for something waits for ctx.Done() too", patience)
		return
	}
	var samples [n]*pipeline.Sample
	var first, left, again, beside [n]string
	for i := range n {
		samples[i] = sample(i)
		first[i] = outcome(t.Context(), stage, samples[i])
		left[i] = look(samples[i])
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
		case strings.HasPrefix(first[i], "mistake: "):
			t.Errorf("epoch %d, sample %d: %s", i/32, i%32, strings.TrimPrefix(first[i], "mistake: "))
			return
		case look(samples[i]) != left[i]:
			t.Errorf("epoch %d, sample %d: it has changed since the stage returned; a stage keeps neither the sample nor its bytes and pixels, for the next image is put there",
				i/32, i%32)
			return
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

// endsWith runs f with a context that ends soon, and reports whether f returns
// within patience then.
func endsWith(ctx context.Context, patience time.Duration, f func(context.Context)) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	return returns(patience, func() { f(ctx) })
}

// returns runs f, and reports whether it returns within patience.
func returns(patience time.Duration, f func()) bool {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
		return true
	case <-time.After(patience):
		return false
	}
}

// look is what is in a sample that has been rendered.
func look(s *pipeline.Sample) string {
	h := fnv.New64a()
	fmt.Fprint(h, s.Name, s.Label, s.Shift)
	h.Write(s.Bytes)
	if rgb, ok := s.Image().(interface{ Row(int) []byte }); ok {
		for y := range s.Image().Bounds().Dy() {
			h.Write(rgb.Row(y))
		}
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// outcome is all that a later stage or the record could see of a sample.
func outcome(ctx context.Context, stage pipeline.SampleStage, s *pipeline.Sample) (text string) {
	defer func() {
		if v := recover(); v != nil {
			text = fmt.Sprintf("mistake: it panics with %v", v)
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
			return fmt.Sprintf("mistake: its picture cannot be rendered: %v", err)
		}
		h.Write(rgb.Pix[:rgb.W*rgb.H*3])
		fmt.Fprint(h, view.Origin(), view.Flip)
		size = fmt.Sprintf("%dx%d pixels", rgb.W, rgb.H)
	}
	return fmt.Sprintf("it gives %s, hash %016x", size, h.Sum64())
}
