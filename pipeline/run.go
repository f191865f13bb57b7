package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"sync"

	"github.com/apache/arrow/go/v17/arrow/memory"
)

// errStopped is why a place's context ends when the place after it has stopped.
var errStopped = errors.New("a later stage has stopped")

// Run runs the line to its end and closes sources, stages and sinks, each once,
// also those that were never prepared. The error is the first in stream order:
// the same run gives the same error at any worker count. When ctx ends, Run
// returns its cause; it waits for a stage that does not heed the context, for Grace,
// but closes the others meanwhile.
func (l *Line) Run(ctx context.Context) error {
	r := newRun(ctx, l)
	ended := make(chan error, 1)
	go func() { ended <- r.run(ctx) }()
	return r.await(l, ended)
}

// run is Run, however long a call may take.
func (r *run) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { r.toEnd(context.Cause(ctx)) })()
	failed := underCause(ctx, r.prepare(ctx))
	if failed != nil {
		r.toEnd(failed)
	}
	places := r.places()
	var others sync.WaitGroup // all but the provider
	for _, p := range places {
		if p != r.provider {
			others.Add(1)
		}
	}
	var done []<-chan struct{}
	for _, p := range places {
		done = append(done, p.start(func() {
			if failed == nil {
				p.work()
				if p.ended != nil || p == r.sinks {
					r.toEnd(p.ended)
				}
			}
			if p == r.provider {
				// Its memory lies under batches that others may still hold.
				others.Wait()
				if r.pool != nil {
					r.retire(r.pool)
				}
			} else {
				defer others.Done()
			}
			p.closed = p.close()
		}))
	}
	for _, d := range done {
		<-d
	}
	if failed == nil {
		failed = r.verdict(ctx)
	}
	return r.finish(failed)
}

// toEnd notes that the run is to end, and why: nil if all is done.
func (r *run) toEnd(why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.over, r.why = true, why
	}
}

// overBy says whether the run is to end, and why.
func (r *run) overBy() (why error, over bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.why, r.over
}

// A run is one Run of a line: the places where its goroutines work. Each closes
// what it ran as soon as that is safe.
type run struct {
	line    *Line
	classes []string
	warn    func(string) // Env.Warn
	watch   *watch
	post    *post // of what is called before the places work, and after

	input  *place   // source, sample stages and batcher
	stages []*place // one for each batch stage
	sinks  *place   // one for all

	mem      memory.Allocator // for the pools
	provider *place           // the stage that mem comes from, nil if from none
	pool     *pool

	stoppers sync.WaitGroup // stages that may have a last batch for the sinks
	last     chan *Batch    // where they send it when the line has ended
	gone     chan struct{}  // closed when the sinks take no more

	mu     sync.Mutex
	leaked []*pool // closed with buffers on their way
	over   bool    // the run is to end
	why    error   // and why, nil if all is done
	// unsaved is why stages could not save what they wanted to.
	unsaved []error
}

// A place is where one goroutine of the line works.
type place struct {
	thread
	post  *post
	ctx   context.Context
	in    <-chan message
	out   chan message
	loop  func() error
	close func() error
	// stopUp ends the contexts of all places before this one.
	stopUp context.CancelCauseFunc

	ended, closed error // of loop and close
}

// newRun makes the places and links them. Their contexts are linked against the
// stream: a place that stops ends all before it, while those after it finish
// what they were sent.
func newRun(ctx context.Context, l *Line) *run {
	r := &run{
		line: l, warn: func(text string) { log.Print(text) }, watch: newWatch(), mem: memory.NewGoAllocator(),
		stages: make([]*place, len(l.Stages)), last: make(chan *Batch), gone: make(chan struct{}),
	}
	r.post = r.watch.post("")
	if l.Env != nil && l.Env.Warn != nil {
		r.warn = l.Env.Warn
	}
	up := ctx
	add := func(next *place) *place {
		p := &place{thread: newThread(), post: r.watch.post(""), ctx: up}
		up, p.stopUp = context.WithCancelCause(up)
		if next != nil {
			p.out = make(chan message)
			next.in = p.out
		}
		return p
	}
	r.sinks = add(nil)
	r.sinks.loop, r.sinks.close = r.sinkLoop, r.closeSinks
	next := r.sinks
	for i := len(l.Stages) - 1; i >= 0; i-- {
		next = add(next)
		r.stages[i] = next
		s := &stagePlace{run: r, place: next, name: l.Stages[i].Name, stage: l.Stages[i].Stage}
		next.loop, next.close = s.loop, s.close
		if _, ok := s.stage.(Stopper); ok {
			r.stoppers.Add(1)
		}
	}
	r.input = add(next)
	r.input.loop, r.input.close = r.inputLoop, func() error { return l.closeInput(r.input.post, "") }
	return r
}

// places are all places, in stream order.
func (r *run) places() []*place {
	return append(append([]*place{r.input}, r.stages...), r.sinks)
}

// work runs the loop and tells the neighbours of its end.
func (p *place) work() {
	p.ended = p.loop()
	if p.out != nil {
		_ = send(p.ctx, p.out, message{err: p.ended}) // fails only if nobody listens any more
	}
	p.stopUp(errStopped)
}

// emit sends a batch to the place after this one.
func (p *place) emit(b *Batch) error {
	if b == nil || b.Record == nil {
		return errors.New("emit: a batch without a record")
	}
	copied := *b // the stage may use its own again
	return send(p.ctx, p.out, message{batch: &copied})
}

// prepare does all that comes before the first read.
func (r *run) prepare(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	l := r.line
	before := r.post.enter(calling(l.SourceName, "Len"))
	err := l.check()
	r.post.enter(before)
	if err != nil {
		return err
	}
	if l.Validation != nil {
		if err := l.Validation.asValidationOf(l).check(); err != nil {
			return fmt.Errorf("validate: %w", err)
		}
	}
	env := Env{}
	if l.Env != nil {
		env = *l.Env
	}
	if env.Accepts == nil {
		env.Accepts = func(k Kind) bool {
			for _, s := range l.Sinks {
				if accepts(s.Sink, k, true) {
					return true
				}
			}
			return false
		}
	}
	env.Warn = r.warn
	if r.classes = env.Classes; r.classes == nil {
		if c, ok := l.Source.(Classer); ok {
			if err := r.post.guard(calling(l.SourceName, "Classes"), func() error { r.classes = c.Classes(); return nil }); err != nil {
				return err
			}
		}
	}
	if env.RunDir != "" {
		if err := os.MkdirAll(env.RunDir, 0o777); err != nil {
			return fmt.Errorf("the run folder: %w", err)
		}
	}

	if env.Checkpoints == nil {
		for _, s := range l.Sinks {
			if c, ok := s.Sink.(Checkpointer); ok && env.Checkpoints == nil {
				wants := c.Checkpoints()
				env.Checkpoints = &wants
			}
		}
	}
	l, err = l.settled(&env)
	if err != nil {
		return err
	}
	r.line = l
	env.Start, env.StartStep, env.StopAfter = l.Start, l.StartStep, l.StopAfter
	if env.Resume {
		start, step, err := r.resume(ctx, &env)
		if err != nil {
			return err
		}
		resumed := *l // the caller's line stays as it is
		resumed.Start, resumed.StartStep = start, step
		if err := resumed.check(); err != nil {
			return fmt.Errorf("%w: %w", ErrResume, err)
		}
		env.Start, env.StartStep = start, step
		l, r.line = &resumed, &resumed
	}

	buffers := 2 // one is filled while the other is worked on
	for i, s := range l.Stages {
		p, stageEnv := r.stages[i], env
		if l.Validation != nil {
			stageEnv.Validate = r.validation(p)
		}
		var err error
		p.do(func() {
			err = p.post.guard(calling(s.Name, "Prepare"), func() error {
				if s, ok := s.Stage.(Preparer); ok {
					if err := s.Prepare(ctx, &stageEnv); err != nil {
						return err
					}
				}
				buffers += holds(s.Stage)
				if mem := memoryOf(s.Stage); mem != nil && r.provider == nil {
					r.mem, r.provider = mem, p
				}
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
	for _, s := range l.Sinks {
		if sink, ok := s.Sink.(Preparer); ok {
			var err error
			sinkEnv := env
			r.sinks.do(func() {
				err = r.sinks.post.guard(calling(s.Name, "Prepare"), func() error { return sink.Prepare(ctx, &sinkEnv) })
			})
			if err != nil {
				return err
			}
		}
	}
	r.pool, err = r.newPool(r.mem, buffers, newLayout(l.Frame, l.BatchSize, r.classes).size)
	return err
}

// resume asks everybody who knows where the run goes on.
func (r *run) resume(ctx context.Context, env *Env) (start Cursor, step int, err error) {
	who := "" // said so first
	ask := func(p *place, name string, v any) {
		resumer, ok := v.(Resumer)
		if !ok || err != nil {
			return
		}
		own := *env
		var at Cursor
		var n int
		p.do(func() {
			err = p.post.guard(calling(name, "Resume"), func() (err error) { at, n, err = resumer.Resume(ctx, &own); return err })
		})
		switch {
		case err != nil:
		case who == "":
			who, start, step = name, at, n
		case at != start || n != step:
			err = fmt.Errorf("%w: %s goes on at epoch %d, position %d, step %d, and %s at epoch %d, position %d, step %d: run it anew",
				ErrResume, who, start.Epoch, start.Pos, step, name, at.Epoch, at.Pos, n)
		}
	}
	for i, s := range r.line.Stages {
		ask(r.stages[i], s.Name, s.Stage)
	}
	for _, s := range r.line.Sinks {
		ask(r.sinks, s.Name, s.Sink)
	}
	if err == nil && who == "" {
		err = fmt.Errorf("%w: no stage and no sink of this run keeps where it was", ErrResume)
	}
	return start, step, err
}

func (r *run) newPool(mem memory.Allocator, n, size int) (p *pool, err error) {
	err = guard("batch buffers", func() error { // an allocator can only panic
		p = newPool(mem, n, size, r.watch)
		return nil
	})
	if err == nil && r.line.onPool != nil {
		r.line.onPool(p)
	}
	return p, err
}

// retire closes a pool, and remembers it if batches of it are still held.
func (r *run) retire(p *pool) {
	p.close()
	if p.idle() < p.n {
		r.mu.Lock()
		r.leaked = append(r.leaked, p)
		r.mu.Unlock()
	}
}

func holds(s BatchStage) int {
	if h, ok := s.(Holder); ok {
		return max(0, h.Holds())
	}
	return 0
}

func memoryOf(s BatchStage) memory.Allocator {
	if m, ok := s.(PoolMemory); ok {
		return m.PoolMemory()
	}
	return nil
}

// accepts says whether a stage or a sink wants batches of a kind.
func accepts(v any, k Kind, byDefault bool) bool {
	if a, ok := v.(Acceptor); ok {
		return a.Accepts(k)
	}
	return byDefault
}

func (r *run) inputLoop() error {
	l := r.line
	f := &feed{line: l, layout: newLayout(l.Frame, l.BatchSize, r.classes), pool: r.pool, watch: r.watch, out: r.input.out, warn: r.warn}
	return f.run(r.input.ctx)
}

func (r *run) sinkLoop() error {
	defer close(r.gone)
	err := r.sinkStream()
	ctx := r.sinks.ctx
	if ctx.Err() == nil || !errors.Is(err, context.Cause(ctx)) {
		return err
	}
	// The run was ended; what its stages save of it is still written.
	stopped := make(chan struct{})
	go func() { r.stoppers.Wait(); close(stopped) }()
	for {
		select {
		case b := <-r.last:
			failed := r.write(context.WithoutCancel(ctx), b)
			b.Record.Release()
			if failed != nil {
				return errors.Join(err, failed)
			}
		case <-stopped:
			return err
		}
	}
}

// sinkStream writes what comes down the line, to its end.
func (r *run) sinkStream() error {
	p := r.sinks
	for {
		b, err := receive(p.ctx, p.in)
		if err != nil {
			return err
		}
		if b == nil {
			return underCause(p.ctx, r.finishSinks(p.ctx))
		}
		ctx := p.ctx
		if b.Kind == Checkpoint { // an interrupted run goes on from it
			ctx = context.WithoutCancel(ctx)
		}
		err = r.write(ctx, b)
		b.Record.Release()
		if err != nil {
			return underCause(p.ctx, err)
		}
	}
}

func (r *run) write(ctx context.Context, b *Batch) error {
	for _, s := range r.line.Sinks {
		err := r.sinks.post.guard(calledWith(s.Name, "Write", b), func() error {
			if !accepts(s.Sink, b.Kind, true) {
				return nil
			}
			r.pool.handed(b.Record, s.Name)
			return s.Sink.Write(ctx, b)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// finishSinks tells the sinks that all batches have come.
func (r *run) finishSinks(ctx context.Context) error {
	for _, s := range r.line.Sinks {
		if f, ok := s.Sink.(Finisher); ok {
			if err := r.sinks.post.guard(calling(s.Name, "Finish"), func() error { return f.Finish(ctx) }); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *run) closeSinks() error {
	var errs []error
	for _, s := range r.line.Sinks {
		if s.Sink != nil {
			errs = append(errs, r.sinks.post.guard(calling(s.Name, "Close"), s.Sink.Close))
		}
	}
	return errors.Join(errs...)
}

// underCause is err, if ctx has not ended. If it has, its cause comes first, and
// err only if it is more than an echo of it.
func underCause(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if err == nil || cause == nil || errors.Is(err, cause) {
		return err
	}
	if errors.Is(err, ctx.Err()) {
		return cause
	}
	return errors.Join(cause, err)
}

// verdict is the error of a run that flowed: the one that reached the sinks. If
// ctx ended the run, what else went wrong is told too.
func (r *run) verdict(ctx context.Context) error {
	err := r.sinks.ended
	cause := context.Cause(ctx)
	if err == nil || cause == nil || !errors.Is(err, cause) {
		return err
	}
	errs := []error{err}
	for _, p := range append(r.stages, r.input) {
		ordinary := p.ended == nil || errors.Is(p.ended, cause) || errors.Is(p.ended, errStopped) ||
			errors.Is(p.ended, context.Canceled) || errors.Is(p.ended, context.DeadlineExceeded)
		if !ordinary {
			errs = append(errs, p.ended)
		}
	}
	if len(errs) == 1 {
		return err
	}
	return errors.Join(errs...)
}

// finish ends the threads, closes what is left and adds what went wrong in closing.
func (r *run) finish(failed error) error {
	var errs []error
	for _, p := range r.places() {
		p.stopUp(errStopped)
		p.end()
		errs = append(errs, p.closed)
	}
	if v := r.line.Validation; v != nil {
		errs = append(errs, v.closeInput(r.post, validatePrefix))
	}
	if r.provider == nil && r.pool != nil {
		r.retire(r.pool)
	}
	errs = append(errs, r.unsaved...)
	for _, p := range r.leaked {
		if failed == nil && p.idle() < p.n {
			errs = append(errs, fmt.Errorf("batches were not released by the end of the run: of %d buffers, %s", p.n, p.holders()))
		}
	}
	closing := errors.Join(errs...)
	if closing == nil {
		return failed
	}
	return errors.Join(failed, closing)
}
