package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/sourcegraph/conc/stream"
)

// A feed turns a line's source into a stream of batches.
type feed struct {
	line   *Line
	prefix string // of the stages' labels in errors: "" or "validate: "
	layout *layout
	pool   *pool
	watch  *watch
	out    chan<- message
	quiet  bool // sends no quarantine rows, and no warnings
	warn   func(string)

	labels []uint64 // of the source and the steps, hashed
}

// run reads and processes the samples of all epochs in parallel and batches them
// in order. It returns the first error in the order of the stream, after all
// batches before it are sent.
func (f *feed) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l := f.line
	samples, err := l.length()
	if err != nil {
		return err
	}
	end := l.end
	if l.Shard.Of <= 1 {
		end = samples
	}
	if l.StopAfter > 0 && l.StartStep >= l.StopAfter {
		return nil
	}
	f.labels = []uint64{labelHash(l.SourceName)}
	for _, s := range l.Steps {
		f.labels = append(f.labels, labelHash(s.Label))
	}

	b := &batcher{
		ctx: ctx, out: f.out, layout: f.layout, pool: f.pool,
		policy: l.OnError, quiet: f.quiet, dropLast: l.DropLast, samples: samples, border: l.border, end: end,
		cursor: l.Start, step: l.StartStep, stopAfter: l.StopAfter,
		warnings: warnings{warn: f.warn, prefix: f.prefix},
	}
	defer b.close()

	// Twice as many samples as workers: those at work, and as many that are done
	// but wait for an earlier one. They are made once and used again and again.
	free := make(chan *worker, 2*l.Workers)
	var failed error // read after Wait, written by the callbacks, which run one at a time
	for range cap(free) {
		w := &worker{feed: f}
		w.sample.seed, w.sample.post = l.Seed, f.watch.post(f.prefix)
		defer f.watch.leave(w.sample.post)
		deliver := func() {
			if ctx.Err() == nil {
				if failed = b.add(w); failed != nil {
					cancel(failed)
				}
			}
			free <- w
		}
		w.task = func() stream.Callback {
			w.work(ctx)
			return deliver
		}
		free <- w
	}

	st := stream.New().WithMaxGoroutines(l.Workers)
	for epoch := l.Start.Epoch; epoch < l.Epochs && ctx.Err() == nil; epoch++ {
		order := newOrder(l.Seed, epoch, samples, l.Shuffle)
		pos := 0
		if epoch == l.Start.Epoch {
			pos = l.Start.Pos
		}
		for ; pos < end && ctx.Err() == nil; pos++ {
			w := <-free // never long: a worker ends when ctx does
			w.sample.reset(Key{Epoch: epoch, Index: order.at(pos)})
			st.Go(w.task)
		}
	}
	st.Wait()
	if errors.Is(failed, errStepsDone) {
		return nil
	}
	if failed != nil {
		return failed
	}
	return context.Cause(ctx)
}

// A worker is one sample in the making, and what became of it.
type worker struct {
	feed   *feed
	task   stream.Task
	sample Sample

	err    error
	stage  string // where err came from
	sha256 string // of the bytes, if err
}

// work reads the sample, sends it through the steps and renders it, all that can
// be done beside other samples, so that the batcher only copies.
func (w *worker) work(ctx context.Context) {
	w.sha256 = ""
	key := w.sample.Key
	w.err = w.steps(ctx)
	w.sample.post.enter(call{})
	w.sample.Key = key // the order's, whatever a stage did to it
	if w.err == nil && len(w.sample.notices) == 0 || errors.Is(w.err, ErrSkip) || ctx.Err() != nil {
		return
	}
	if len(w.sample.Bytes) > 0 && w.stage != w.feed.prefix+w.feed.line.SourceName {
		sum := sha256.Sum256(w.sample.Bytes)
		w.sha256 = hex.EncodeToString(sum[:])
	}
}

func (w *worker) steps(ctx context.Context) (err error) {
	s, l := &w.sample, w.feed.line
	stage := l.SourceName
	var stack []byte
	defer func() {
		if v := recover(); v != nil {
			err, stack = panicked(v), debug.Stack()
		}
		if err != nil {
			if s.blamed != "" {
				stage = s.blamed // it decoded later than it was called
			}
			w.stage = w.feed.prefix + stage
			err = &Error{Stage: w.stage, Name: s.Name, Key: s.Key, Err: err, Stack: stack}
		}
	}()

	s.enter(stage, w.feed.labels[0])
	if err := l.Source.Read(ctx, s.Index, s); err != nil {
		return err
	}
	for i, step := range l.Steps {
		stage = step.Label
		s.enter(stage, w.feed.labels[1+i])
		if err := step.Stage.Process(ctx, s); err != nil {
			return err
		}
		if err := s.intact(); err != nil {
			return err
		}
	}
	// Geometry is lazy, so what the last stages asked for may fail only here.
	stage = "render"
	s.post.enter(call{stage: stage, name: s.Name, key: s.Key})
	pictures, err := s.render()
	if err != nil {
		return err
	}
	stage = "batch"
	if len(pictures) != l.Frame.views() {
		return fmt.Errorf("the image has become %d pictures after the last stage, and in a batch there are %d of each", len(pictures), l.Frame.views())
	}
	for _, p := range pictures {
		if p.rgb.W != l.Frame.W || p.rgb.H != l.Frame.H {
			return fmt.Errorf("the picture is %dx%d after the last stage, and those of a batch are %dx%d: end the samples with a crop to one size",
				p.rgb.W, p.rgb.H, l.Frame.W, l.Frame.H)
		}
	}
	return nil
}
