package pipeline

import (
	"context"
	"errors"
	"io"
)

// A stagePlace is the place of one batch stage.
type stagePlace struct {
	*place
	run   *run
	name  string
	stage BatchStage
}

func (s *stagePlace) loop() error {
	own, err := consume(s.ctx, s.in, s.name, s.stage, s.run.pool, s.post, s.emit)
	stopper, ok := s.stage.(Stopper)
	if !ok {
		return err
	}
	defer s.run.stoppers.Done()
	cause := context.Cause(s.ctx)
	if err == nil || own && cause == nil || errors.Is(cause, errStopped) {
		return err
	}
	stopped := s.post.guard(calling(s.name, "Stop"), func() error {
		return stopper.Stop(context.WithoutCancel(s.ctx), s.post.emitting(s.emitLast))
	})
	if stopped != nil { // told beside err, which is what ended the run
		s.run.mu.Lock()
		s.run.unsaved = append(s.run.unsaved, stopped)
		s.run.mu.Unlock()
	}
	return err
}

// emitLast sends a batch on, if need be straight to the sinks.
func (s *stagePlace) emitLast(b *Batch) error {
	if s.ctx.Err() == nil {
		b.Record.Retain()
		if s.emit(b) == nil {
			b.Record.Release()
			return nil
		}
	}
	copied := *b
	select {
	case s.run.last <- &copied:
		return nil
	case <-s.run.gone:
		b.Record.Release()
		return errors.New("the sinks have ended")
	}
}

func (s *stagePlace) close() error {
	if c, ok := s.stage.(io.Closer); ok {
		return s.post.guard(calling(s.name, "Close"), c.Close)
	}
	return nil
}

// consume runs what comes in through a batch stage until it ends, then flushes
// the stage. What the stage does not accept goes by it, in order. own says that
// an error came out of the stage. post is where its calls are noted.
func consume(ctx context.Context, in <-chan message, name string, stage BatchStage, pool *pool, post *post, emit Emit) (own bool, err error) {
	emit = post.emitting(emit)
	for {
		b, err := receive(ctx, in)
		if err != nil {
			return false, err
		}
		if b == nil {
			break
		}
		err = process(ctx, b, name, stage, pool, post, emit)
		if errors.Is(err, ErrEnough) {
			break
		}
		if err != nil {
			return true, err
		}
	}
	flusher, ok := stage.(Flusher)
	if !ok {
		return false, nil
	}
	if err := post.guard(calling(name, "Flush"), func() error { return flusher.Flush(ctx, emit) }); err != nil {
		return true, err
	}
	return false, context.Cause(ctx) // a stage may have dropped an error of emit
}

func process(ctx context.Context, b *Batch, name string, stage BatchStage, pool *pool, post *post, emit Emit) error {
	record := b.Record // the stage may change b
	pass := false
	err := post.guard(calledWith(name, "Process", b), func() error {
		if pass = !accepts(stage, b.Kind, b.Kind == Samples); pass {
			return nil
		}
		pool.handed(record, name)
		return stage.Process(ctx, b, emit)
	})
	if pass {
		return emit(b)
	}
	record.Release()
	return err
}
