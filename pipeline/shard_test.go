package pipeline

import (
	"context"
	"slices"
	"strings"
	"testing"
)

// borderSink keeps the indices of each batch.
type borderSink struct {
	border  int
	batches [][]int64
	env     Env
}

func (s *borderSink) Border() int                               { return s.border }
func (s *borderSink) Prepare(_ context.Context, env *Env) error { s.env = *env; return nil }
func (s *borderSink) Write(_ context.Context, b *Batch) error {
	m, err := ImagesOf(b.Record)
	s.batches = append(s.batches, slices.Clone(m.Index))
	return err
}
func (s *borderSink) Close() error { return nil }

// passOn is a batch stage that hands samples to the sinks.
type passOn struct{}

func (passOn) Process(_ context.Context, b *Batch, emit Emit) error {
	b.Record.Retain()
	return emit(b)
}

func borderLine(samples, batch int, sink *borderSink) *Line {
	l := cropLine(8, 8, samples)
	l.BatchSize, l.Shuffle, l.DropLast = batch, false, false
	l.Steps = append(l.Steps, Step{"skip", SampleFunc(func(_ context.Context, s *Sample) error {
		if s.Index%7 == 3 || s.Index >= 40 && s.Index < 60 {
			return ErrSkip
		}
		return nil
	})})
	l.Stages = []NamedStage{{"pass", passOn{}}}
	l.Sinks = []NamedSink{{"border", sink}}
	return l
}

// The shards of a run have its batches, each those of its own files, and no batch
// has samples of two files.
func TestShardsHaveTheBatchesOfTheWhole(t *testing.T) {
	const samples, batch, border = 97, 6, 20
	whole := &borderSink{border: border}
	if err := borderLine(samples, batch, whole).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, b := range whole.batches {
		if b[0]/border != b[len(b)-1]/border || len(b) > batch {
			t.Errorf("batch %v", b)
		}
	}
	if whole.env.First != 0 || whole.env.End != samples {
		t.Errorf("the whole is %d to %d", whole.env.First, whole.env.End)
	}
	for _, n := range []int{1, 2, 5, 9} {
		var all [][]int64
		next := 0
		for i := range n {
			sink := &borderSink{border: border}
			l := borderLine(samples, batch, sink)
			l.Shard, l.Env = Shard{i, n}, &Env{}
			if err := l.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if first, end := l.Shard.Range(samples, border); first != next || sink.env.First != first || sink.env.End != end || n > 1 && sink.env.Start.Pos != first || n > 1 && sink.env.StepsPerEpoch != stepsOf(first, end, batch, border, false) {
				t.Errorf("shard %d of %d is %d to %d, and is told %+v", i, n, first, end, sink.env)
			}
			next = sink.env.End
			all = append(all, sink.batches...)
		}
		if next != samples || !slices.EqualFunc(all, whole.batches, slices.Equal) {
			t.Errorf("%d shards end at %d with the batches %v, want %v", n, next, all, whole.batches)
		}
	}
}

func TestStepsOf(t *testing.T) {
	for _, c := range []struct {
		first, end, batch, border int
		drop                      bool
		want                      int
	}{
		{0, 97, 6, 0, false, 17}, {0, 97, 6, 0, true, 16}, {0, 97, 6, 20, false, 4*4 + 3}, {20, 60, 6, 20, false, 8}, {30, 40, 6, 20, false, 2}, {5, 5, 6, 20, false, 0},
	} {
		if got := stepsOf(c.first, c.end, c.batch, c.border, c.drop); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

func TestShardsThatCannotBe(t *testing.T) {
	for want, edit := range map[string]func(*Line){
		"shard 3 of 3: the first is 0, the last 2": func(l *Line) { l.Shard = Shard{3, 3} },
		"shard -1 of 3":                          func(l *Line) { l.Shard = Shard{-1, 3} },
		"a shard is for a run of one epoch":      func(l *Line) { l.Epochs = 2 },
		"in the source's order":                  func(l *Line) { l.Shuffle = true },
		"with a sink that writes it in numbered": func(l *Line) { l.Sinks = nil },
		"one sink has files of 20 images and another of 30": func(l *Line) {
			l.Sinks = append(l.Sinks, NamedSink{"other", &borderSink{border: 30}})
		},
	} {
		l := borderLine(50, 6, &borderSink{border: 20})
		l.Shard = Shard{1, 3}
		edit(l)
		for _, err := range []error{l.ShareOut(l.Shard), l.Run(t.Context())} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %q", err, want)
			}
		}
	}
}
