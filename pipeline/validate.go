package pipeline

import (
	"context"
	"sync"
)

// validatePrefix stands before the labels of validation's source and stages in errors.
const validatePrefix = "validate: "

// asValidationOf fills in what a validation line takes from the line it belongs to.
func (l *Line) asValidationOf(main *Line) *Line {
	v := *l
	v.Seed, v.Workers = main.Seed, main.Workers
	v.DropLast, v.Shuffle = false, false
	v.Start, v.StartStep, v.Epochs, v.StopAfter = Cursor{}, 0, 1, 0
	v.Shard, v.border = Shard{}, 0
	return &v
}

// validation is Env.Validate for the stage at p. It runs on p's goroutine; the
// samples are read and processed on others, while those of the main line wait
// for a buffer, so both together stay within the worker budget.
func (r *run) validation(p *place) func(ctx context.Context, stage BatchStage) error {
	line := r.line.Validation.asValidationOf(r.line)
	layout := newLayout(line.Frame, line.BatchSize, r.classes)
	told := false // a bad sample is one row a run, not one a validation
	return func(ctx context.Context, stage BatchStage) error {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		// ctx may be any; the line's end must reach the validation all the same.
		defer context.AfterFunc(p.ctx, func() { cancel(context.Cause(p.ctx)) })()

		mem, buffers := r.mem, 2
		p.post.wait(1)
		defer p.post.wait(-1)
		mine := r.watch.post("")
		defer r.watch.leave(mine)
		err := guard("validate", func() error {
			if own := memoryOf(stage); own != nil {
				mem = own
			}
			buffers += holds(stage)
			return nil
		})
		if err != nil {
			return err
		}
		pool, err := r.newPool(mem, buffers, layout.size)
		if err != nil {
			return err
		}
		in := make(chan message)
		f := &feed{line: line, prefix: validatePrefix, layout: layout, pool: pool, watch: r.watch, out: in, quiet: told, warn: r.warn}
		told = true
		var reading sync.WaitGroup
		reading.Go(func() { _ = send(ctx, in, message{err: f.run(ctx)}) })
		err = guard("validate", func() error {
			_, err := consume(ctx, in, "validate", stage, pool, mine, p.emit)
			return err
		})
		cancel(errStopped)
		reading.Wait()
		r.retire(pool)
		return err
	}
}
