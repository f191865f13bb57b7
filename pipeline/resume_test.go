package pipeline

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

// resumer is a sink that says where a run goes on and keeps what it gets.
type resumer struct {
	at     Cursor
	step   int
	err    error
	env    Env // of Prepare
	got    []int
	cursor Cursor // of the last batch
	closed int
}

func (s *resumer) Resume(_ context.Context, env *Env) (Cursor, int, error) {
	if s.env.RunDir != "" {
		return Cursor{}, 0, errors.New("Resume came after Prepare")
	}
	env.Start = Cursor{Epoch: 99} // its own copy
	return s.at, s.step, s.err
}

func (s *resumer) Prepare(_ context.Context, env *Env) error { s.env = *env; return nil }
func (s *resumer) Accepts(k Kind) bool                       { return k == Samples }
func (s *resumer) Close() error                              { s.closed++; return nil }

func (s *resumer) Write(_ context.Context, b *Batch) error {
	images, err := ImagesOf(b.Record)
	if err != nil {
		return err
	}
	s.cursor = b.Cursor
	for _, i := range images.Index {
		s.got = append(s.got, b.Epoch*1000+int(i))
	}
	return nil
}

// resumable is a line of two epochs of 23 samples, of which every fifth is left
// out, in batches of 4.
func resumable(t *testing.T, sinks ...Sink) *Line {
	l := &Line{
		Seed: 1, Source: &rigSource{&rig{t: t, closed: map[string]int{}}, "folder", 23}, SourceName: "folder",
		Steps: []Step{{"picky", SampleFunc(func(_ context.Context, s *Sample) error {
			s.SetImage(picture(8, 6, s.Index))
			if s.Index%5 == 0 {
				return ErrSkip
			}
			return nil
		})}},
		Frame: Frame{W: 8, H: 6}, BatchSize: 4, DropLast: true, Shuffle: true, Epochs: 2, Workers: 3,
		Env: &Env{RunDir: t.TempDir(), Resume: true},
	}
	for i, s := range sinks {
		l.Sinks = append(l.Sinks, NamedSink{string(rune('a' + i)), s})
	}
	return l
}

// Ended after any number of steps and resumed there, a line gives the batches of
// one that ran through.
func TestStopAndResume(t *testing.T) {
	whole := &resumer{}
	if err := resumable(t, whole).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for steps := 1; steps*4 < len(whole.got); steps++ {
		first := &resumer{}
		l := resumable(t, first)
		l.StopAfter = steps
		if err := l.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(first.got) != 4*steps {
			t.Fatalf("stopped after %d samples, not %d steps", len(first.got), steps)
		}
		second := &resumer{at: first.cursor, step: steps}
		l = resumable(t, second)
		if err := l.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if second.env.Start != first.cursor || second.env.StartStep != steps || !second.env.Resume {
			t.Errorf("Prepare was told %+v, %d", second.env.Start, second.env.StartStep)
		}
		if l.Start != (Cursor{}) {
			t.Error("the caller's line was changed")
		}
		if got := append(first.got, second.got...); !slices.Equal(got, whole.got) {
			t.Errorf("after %d steps: %v\nwant %v", steps, got, whole.got)
		}
		// Nothing is left to do at a bound that is reached.
		third := &resumer{at: first.cursor, step: steps}
		l = resumable(t, third)
		l.StopAfter = steps
		if err := l.Run(t.Context()); err != nil || len(third.got) > 0 {
			t.Errorf("past the bound it read %d samples (%v)", len(third.got), err)
		}
	}
}

func TestCannotResume(t *testing.T) {
	for name, c := range map[string]struct {
		sinks []Sink
		want  string
	}{
		"nobody":     {nil, "no stage and no sink of this run keeps where it was"},
		"disagree":   {[]Sink{&resumer{at: Cursor{Pos: 4}, step: 1}, &resumer{}}, "a goes on at epoch 0, position 4, step 1, and b at epoch 0, position 0, step 0"},
		"outside":    {[]Sink{&resumer{at: Cursor{Pos: 24}}}, "position 24"},
		"with error": {[]Sink{&resumer{err: errors.Join(ErrResume, errors.New("no file"))}}, "a: cannot resume\nno file"},
	} {
		err := resumable(t, c.sinks...).Run(t.Context())
		if !errors.Is(err, ErrResume) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, want %q", name, err, c.want)
		}
		for _, s := range c.sinks {
			if r := s.(*resumer); r.closed != 1 || r.env.RunDir != "" {
				t.Errorf("%s: closed %d times, prepared: %v", name, r.closed, r.env.RunDir != "")
			}
		}
	}
}

// saver has something to save when its run ends early.
type saver struct {
	process    int
	failAt     int
	enoughAt   int
	onBatch    func(n int)
	stopped    int
	flushed    bool
	cannotSave bool
}

func (s *saver) Process(ctx context.Context, _ *Batch, _ Emit) error {
	s.process++
	if s.onBatch != nil {
		s.onBatch(s.process)
	}
	switch s.process {
	case s.failAt:
		return errors.New("its own fault")
	case s.enoughAt:
		return ErrEnough
	}
	return context.Cause(ctx)
}

func (s *saver) Flush(context.Context, Emit) error { s.flushed = true; return nil }

func (s *saver) Stop(ctx context.Context, emit Emit) error {
	s.stopped++
	if s.cannotSave {
		return errors.New("no room to save")
	}
	if ctx.Err() != nil {
		return errors.New("Stop was given a context that has ended")
	}
	return emit(&Batch{Kind: Checkpoint, Record: MetricsRecord(Metric{Step: s.process})})
}

// saved counts the checkpoints that came.
type saved struct{ n, closed int }

func (*saved) Accepts(k Kind) bool { return k == Checkpoint }
func (s *saved) Write(ctx context.Context, _ *Batch) error {
	if s.closed > 0 {
		return errors.New("written to after Close")
	}
	s.n++
	return ctx.Err()
}
func (s *saved) Close() error { s.closed++; return nil }

// What a stage saves when the run ends early reaches the sinks before they are
// closed: after an interrupt, also past another stage, and after an error
// upstream; not after its own error or a sink's, and not after success.
func TestStopper(t *testing.T) {
	interrupt := errors.New("interrupted")
	for name, c := range map[string]struct {
		stage         saver
		interruptAt   int
		badSample     bool
		after         bool // another stage after it
		stops, writes int
		flushed       bool
		want          string // in the error
	}{
		"success":      {flushed: true},
		"enough":       {stage: saver{enoughAt: 3}, flushed: true},
		"interrupt":    {interruptAt: 2, stops: 1, writes: 1, want: "interrupted"},
		"cannot save":  {stage: saver{cannotSave: true}, interruptAt: 2, stops: 1, want: "interrupted\nsaver: no room to save"},
		"past another": {interruptAt: 2, after: true, stops: 1, writes: 1, want: "interrupted"},
		"upstream":     {badSample: true, stops: 1, writes: 1, want: "no good"},
		"its own":      {stage: saver{failAt: 2}, want: "its own fault"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			sink := &saved{}
			l := resumable(t, sink)
			l.Env.Resume = false
			if c.badSample {
				l.Steps = append(l.Steps, Step{"bad", SampleFunc(func(_ context.Context, s *Sample) error {
					if s.Epoch == 1 {
						return errors.New("no good")
					}
					return nil
				})})
			}
			stage := &c.stage
			stage.onBatch = func(n int) {
				if n == c.interruptAt {
					cancel(interrupt)
				}
			}
			l.Stages = []NamedStage{{"saver", stage}}
			if c.after {
				l.Stages = append(l.Stages, NamedStage{"after", &saver{}})
			}
			err := l.Run(ctx)
			if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want %q", err, c.want)
			}
			if c.after {
				c.writes++ // the stage after it saves too
			}
			if got := stage.stopped; got != c.stops || sink.n != c.writes || sink.closed != 1 || stage.flushed != c.flushed {
				t.Errorf("stopped %d times, %d checkpoints written, closed %d times, flushed %v; want %d, %d, 1, %v",
					got, sink.n, sink.closed, stage.flushed, c.stops, c.writes, c.flushed)
			}
			if c.stage.enoughAt > 0 && stage.process != c.stage.enoughAt {
				t.Errorf("%d batches came after enough", stage.process-c.stage.enoughAt)
			}
		})
	}
}

// A checkpoint that is on its way when the run is interrupted reaches every sink, also
// after one that is told of the end: the stage that sent it does not send it again.
func TestCheckpointsAreWrittenThoughTheRunEnds(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	interrupt := errors.New("interrupted")
	first, sink := &interrupter{end: func() { cancel(interrupt) }}, &saved{}
	l := resumable(t, first, sink)
	l.Env.Resume = false
	l.Stages = []NamedStage{{"sender", stageFunc(func(_ context.Context, _ *Batch, emit Emit) error {
		return emit(&Batch{Kind: Checkpoint, Record: MetricsRecord(Metric{})})
	})}}
	if err := l.Run(ctx); !errors.Is(err, interrupt) {
		t.Errorf("error is %v", err)
	}
	if sink.n != 1 {
		t.Errorf("%d checkpoints were written, want 1", sink.n)
	}
}

// interrupter is a sink that ends the run as it is written to, and heeds its context.
type interrupter struct{ end func() }

func (i *interrupter) Write(ctx context.Context, _ *Batch) error { i.end(); return context.Cause(ctx) }
func (*interrupter) Close() error                                { return nil }
