package pipeline

import (
	"context"
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
	return consume(s.ctx, s.in, s.name, s.stage, s.run.pool, s.emit)
}

func (s *stagePlace) close() error {
	if c, ok := s.stage.(io.Closer); ok {
		return guard(s.name, c.Close)
	}
	return nil
}

// consume runs what comes in through a batch stage until it ends, then flushes
// the stage. What the stage does not accept goes by it, in order.
func consume(ctx context.Context, in <-chan message, name string, stage BatchStage, pool *pool, emit Emit) error {
	for {
		b, err := receive(ctx, in)
		if err != nil {
			return err
		}
		if b == nil {
			break
		}
		if err := process(ctx, b, name, stage, pool, emit); err != nil {
			return err
		}
	}
	flusher, ok := stage.(Flusher)
	if !ok {
		return nil
	}
	defer pool.working()()
	if err := guard(name, func() error { return flusher.Flush(ctx, emit) }); err != nil {
		return err
	}
	return context.Cause(ctx) // a stage may have dropped an error of emit
}

func process(ctx context.Context, b *Batch, name string, stage BatchStage, pool *pool, emit Emit) error {
	defer pool.working()()
	record := b.Record // the stage may change b
	pass := false
	err := guard(name, func() error {
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
