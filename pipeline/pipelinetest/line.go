package pipelinetest

import (
	"context"
	"errors"
	"fmt"
	"image"
	"sync/atomic"
	"testing"
	"time"

	"sluice/pipeline"
)

// TestBatchStage checks what the engine relies on in a batch stage, with a run of
// two batches of four images of 8x8: that it releases what it retained, that two
// runs emit the same rows (of images and of features), and that it ends when the
// run is cancelled. build makes the stage; each run has one of its own.
func TestBatchStage(t testing.TB, build func() pipeline.BatchStage) {
	t.Helper()
	testLine(t, patient, func(l *pipeline.Line, rows pipeline.Sink) {
		l.Stages = []pipeline.NamedStage{{Name: "stage", Stage: build()}}
		l.Sinks = []pipeline.NamedSink{{Name: "rows", Sink: rows}}
	})
}

// TestSink checks of a sink what TestBatchStage checks of a stage: it gets two
// batches of images and one of metrics, and the same again in a run that is
// cancelled.
func TestSink(t testing.TB, build func() pipeline.Sink) {
	t.Helper()
	testLine(t, patient, func(l *pipeline.Line, _ pipeline.Sink) {
		l.Stages = []pipeline.NamedStage{{Name: "both", Stage: both{}}}
		l.Sinks = []pipeline.NamedSink{{Name: "sink", Sink: build()}}
	})
}

// patient has patience with every run.
func patient(int) time.Duration { return patience }

// testLine runs the line that put fills three times, the last one cancelled, each with its
// own patience.
func testLine(t testing.TB, patienceWith func(run int) time.Duration, put func(l *pipeline.Line, rows pipeline.Sink)) {
	t.Helper()
	var before string
	for i := range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		pictures, rows := &pictures{}, &rows{}
		if i == 2 {
			pictures.cancel = cancel
		}
		l := &pipeline.Line{Source: pictures, SourceName: "pictures", Frame: pipeline.Frame{W: 8, H: 8}, BatchSize: 4, Epochs: 1, Workers: 2,
			Env: &pipeline.Env{Name: "test", RunDir: t.TempDir(), Frame: pipeline.Frame{W: 8, H: 8}, Samples: 8, BatchSize: 4, StepsPerEpoch: 2, Epochs: 1, Workers: 2, Threads: 1}}
		put(l, rows)
		var err error
		patience := patienceWith(i)
		ended := returns(patience, func() { err = l.Run(ctx) })
		cancel()
		switch {
		case !ended && i == 2:
			t.Errorf("the run was cancelled, and has not ended %v later: what waits for something waits for ctx.Done() too", patience)
			return
		case !ended:
			t.Errorf("a run of two batches has not ended in %v: a call blocks for ever", patience)
			return
		case i == 2 && (err == nil || errors.Is(err, context.Canceled)): // it may have been done already
		case err != nil:
			t.Errorf("a run of two batches: %v", err)
			return
		case i == 1 && rows.text != before:
			t.Errorf("two runs emit different rows: first %q, then %q", before, rows.text)
			return
		}
		before = rows.text
	}
}

// pictures is a source of 8 images.
type pictures struct {
	reads  atomic.Int32
	cancel func()
}

func (*pictures) Len() int { return 8 }

func (p *pictures) Read(_ context.Context, i int, s *pipeline.Sample) error {
	if p.reads.Add(1) == 6 && p.cancel != nil {
		p.cancel()
	}
	img := image.NewRGBA(image.Rect(0, 0, 8, 8))
	for at := range img.Pix {
		img.Pix[at] = byte((i + 3) * at)
	}
	s.Name, s.Label = fmt.Sprint("picture", i), int32(i%2)
	s.SetImage(img)
	return nil
}

// both emits a row of metrics after the images it passes on.
type both struct{}

func (both) Process(_ context.Context, b *pipeline.Batch, emit pipeline.Emit) error {
	b.Record.Retain()
	if err := emit(b); err != nil {
		return err
	}
	return emit(&pipeline.Batch{Kind: pipeline.Metrics, Step: b.Step, Cursor: b.Cursor,
		Record: pipeline.MetricsRecord(pipeline.Metric{Event: "step", Step: b.Step, Loss: 1})})
}

// rows is a sink that notes images and features; other kinds may hold times.
type rows struct{ text string }

func (*rows) Accepts(k pipeline.Kind) bool { return k == pipeline.Samples || k == pipeline.Features }

func (r *rows) Write(_ context.Context, b *pipeline.Batch) error {
	text, err := b.Record.MarshalJSON()
	r.text += fmt.Sprintf("%s %d %s\n", b.Kind, b.Step, text)
	return err
}

func (*rows) Close() error { return nil }
