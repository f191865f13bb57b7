package pipelinetest

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"

	"sluice/pipeline"
)

// soon is a patience for what blocks on purpose, and only for that: it would also be too
// short for what is right, on a busy machine.
const soon = 200 * time.Millisecond

// impatient is so with one run, and patient with the others.
func impatient(with int) func(int) time.Duration {
	return func(run int) time.Duration {
		if run == with {
			return soon
		}
		return patience
	}
}

// What the contract forbids is found, each by the sentence that says what to do.
func TestPlantedSampleStages(t *testing.T) {
	end := make(chan struct{})
	var keeps atomic.Int32
	var kept *pipeline.Sample
	for name, c := range map[string]struct {
		stage  pipeline.SampleFunc
		want   string
		blocks bool
	}{
		"it ignores its context": {func(context.Context, *pipeline.Sample) error {
			<-end
			return nil
		}, "waits for ctx.Done()", true},
		"it keeps a sample and changes it later": {func(_ context.Context, s *pipeline.Sample) error {
			// Only while samples come one by one: beside others it is a race, which the
			// detector finds in this test too.
			if keeps.Add(1) > 64 {
				return nil
			}
			if kept != nil {
				kept.Label = 99
			}
			kept = s
			return nil
		}, "it has changed since the stage returned", false},
		"it replaces the picture's bytes": {func(_ context.Context, s *pipeline.Sample) error {
			rgb, err := s.Pixels()
			if err == nil {
				rgb.Pix = append(rgb.Pix, 1, 2, 3)
			}
			return err
		}, "has replaced the picture", false},
		"it writes past its picture": {func(_ context.Context, s *pipeline.Sample) error {
			s.SetView(s.View().Crop(0, 0, 16, 12)) // into a buffer that held more
			if _, err := s.Pixels(); err != nil {
				return err
			}
			s.SetView(s.View().Crop(0, 0, 9, 9))
			if _, err := s.Pixels(); err != nil {
				return err
			}
			s.SetView(s.View().Crop(0, 0, 8, 8))
			rgb, err := s.Pixels()
			if err == nil {
				rgb.Pix = rgb.Pix[:8*8*3+1]
			}
			return err
		}, "out of range", false},
	} {
		r := &recorder{TB: t}
		wait := patience
		if c.blocks {
			wait = soon
		}
		testSampleStage(r, wait, c.stage, fill)
		if said := strings.Join(r.said, "\n"); !strings.Contains(said, c.want) {
			t.Errorf("%s: %q, want %q", name, said, c.want)
		}
	}
	close(end)
}

func TestSourcesAndLinesThatAreRight(t *testing.T) {
	TestSource(t, &pictures{})
	TestBatchStage(t, func() pipeline.BatchStage { return both{} })
	TestSink(t, func() pipeline.Sink { return &rows{} })
}

// stage is a BatchStage of a function.
type stage func(ctx context.Context, b *pipeline.Batch, emit pipeline.Emit) error

func (f stage) Process(ctx context.Context, b *pipeline.Batch, emit pipeline.Emit) error {
	return f(ctx, b, emit)
}

type sink struct{ write, close func() error }

func (s sink) Write(context.Context, *pipeline.Batch) error { return s.write() }
func (s sink) Close() error                                 { return s.close() }

func TestPlantedLines(t *testing.T) {
	end := make(chan struct{})
	var kept []arrow.Record
	nothing := func() error { return nil }
	block := func() error { <-end; return nil }
	calls := 0
	const forEver = "blocks for ever"
	stages := map[string]struct {
		stage stage
		want  string
	}{
		"it does not release": {func(_ context.Context, b *pipeline.Batch, _ pipeline.Emit) error {
			b.Record.Retain()
			kept = append(kept, b.Record)
			return nil
		}, "not released by the end of the run: of 2 buffers, stage holds 2"},
		"it counts runs": {func(_ context.Context, b *pipeline.Batch, emit pipeline.Emit) error {
			b.Record.Retain()
			calls++
			b.Step = calls
			return emit(b)
		}, "emit different rows"},
		"it blocks": {func(context.Context, *pipeline.Batch, pipeline.Emit) error { return block() }, forEver},
		"it panics": {func(context.Context, *pipeline.Batch, pipeline.Emit) error { panic("oops") }, "stage: panic: oops"},
	}
	for name, c := range stages {
		r := &recorder{TB: t}
		wait := patient
		if c.want == forEver {
			wait = impatient(0)
		}
		testLine(r, wait, func(l *pipeline.Line, rows pipeline.Sink) {
			l.Stages = []pipeline.NamedStage{{Name: "stage", Stage: c.stage}}
			l.Sinks = []pipeline.NamedSink{{Name: "rows", Sink: rows}}
		})
		if said := strings.Join(r.said, "\n"); !strings.Contains(said, c.want) {
			t.Errorf("%s: %q, want %q", name, said, c.want)
		}
	}
	// One that works, and does not heed the end of a run that is cancelled.
	r := &recorder{TB: t}
	run := 0
	testLine(r, impatient(2), func(l *pipeline.Line, _ pipeline.Sink) {
		run++
		l.Sinks = []pipeline.NamedSink{{Name: "sink", Sink: sink{nothing, nothing}}}
		if run == 3 {
			l.Sinks[0].Sink = sink{nothing, block}
		}
	})
	if said := strings.Join(r.said, "\n"); !strings.Contains(said, "was cancelled, and has not ended") {
		t.Errorf("it says %q", said)
	}
	for name, s := range map[string]pipeline.Sink{
		"Write blocks": sink{block, nothing},
		"Close blocks": sink{nothing, block},
	} {
		r := &recorder{TB: t}
		testLine(r, impatient(0), func(l *pipeline.Line, _ pipeline.Sink) {
			l.Sinks = []pipeline.NamedSink{{Name: "sink", Sink: s}}
		})
		if !slices.ContainsFunc(r.said, func(s string) bool { return strings.Contains(s, forEver) }) {
			t.Errorf("%s: %q", name, r.said)
		}
	}
	close(end)
	for _, rec := range kept {
		rec.Release()
	}
}
