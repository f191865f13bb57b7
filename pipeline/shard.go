package pipeline

import (
	"errors"
	"fmt"
)

// Shard is one of Of runs that share a source out, from 0: each reads a range of
// it, which begins and ends where the files of a sink do (Borderer), so that all
// together write the files of one run. The zero Shard is the whole.
type Shard struct{ Index, Of int }

// A Borderer is a sink whose files each hold so many images of the source's order:
// file k those from k*Border on. Batches end there, so that what is in a file does
// not depend on the images before it.
type Borderer interface{ Border() int }

// Range is the images of a source that the shard reads, first to end-1, where files
// hold border images each. It is empty if there are fewer files than shards.
func (s Shard) Range(samples, border int) (first, end int) {
	if s.Of <= 1 {
		return 0, samples
	}
	files := (samples + border - 1) / border
	at := func(i int) int { return min(files*i/s.Of*border, samples) }
	return at(s.Index), at(s.Index + 1)
}

func (s Shard) check() error {
	if s.Of < 0 || s.Index < 0 || s.Index > max(s.Of-1, 0) {
		return fmt.Errorf("shard %d of %d: the first is 0, the last %d", s.Index, s.Of, s.Of-1)
	}
	return nil
}

// borderOf is that of the sinks, 0 if none has one.
func borderOf[S any](sinks []S, value func(S) any) (border int, err error) {
	for _, s := range sinks {
		b, ok := value(s).(Borderer)
		if !ok {
			continue
		}
		switch n := b.Border(); {
		case border != 0 && n != border:
			return 0, fmt.Errorf("one sink has files of %d images and another of %d: give them the same", border, n)
		default:
			border = n
		}
	}
	return border, nil
}

// stepsOf is how many batches the samples first to end-1 make, none left out.
func stepsOf(first, end, perBatch, border int, drop bool) (steps int) {
	for first < end {
		to := end
		if border > 0 {
			to = min(end, (first/border+1)*border)
		}
		steps += (to - first) / perBatch
		if !drop && (to-first)%perBatch != 0 {
			steps++
		}
		first = to
	}
	return steps
}

// ShareOut makes the line one shard of it. It is an error if the line cannot be
// shared out, or has no such shard.
func (l *Line) ShareOut(s Shard) error {
	l.Shard = s
	if err := l.check(); err != nil {
		return err
	}
	_, err := l.settled(&Env{})
	return err
}

// settled is the line with what follows from its sinks: where batches end, and
// which samples its shard has, which env is told.
func (l *Line) settled(env *Env) (*Line, error) {
	s := *l
	samples, err := l.length()
	if err != nil {
		return nil, err
	}
	border, err := borderOf(l.Sinks, func(s NamedSink) any { return s.Sink })
	if err != nil {
		return nil, err
	}
	if !l.Shuffle {
		s.border = border
	}
	s.end = samples
	if l.Shard.Of > 1 {
		if s.border < 1 || l.DropLast || l.Epochs != 1 {
			return nil, errors.New("a shard is for a run of one epoch, in the source's order, with a sink that writes it in numbered parts, as features")
		}
		var first int
		first, s.end = l.Shard.Range(samples, s.border)
		if s.Start == (Cursor{}) {
			s.Start.Pos = first
		}
		env.StepsPerEpoch = stepsOf(first, s.end, l.BatchSize/l.Frame.views(), s.border, false)
		env.First = first
	}
	env.Shard, env.End = l.Shard, s.end
	return &s, nil
}
