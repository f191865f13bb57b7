package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/apache/arrow/go/v17/arrow/memory"
)

// errStepsDone ends the reading after Line.StopAfter batches.
var errStepsDone = errors.New("as many steps as wanted")

// A batcher takes the samples of a line in order, applies the policy for bad
// ones and fills batches.
type batcher struct {
	ctx    context.Context
	out    chan<- message
	layout *layout
	pool   *pool

	policy   Policy
	warnings warnings
	quiet    bool // sends no quarantine rows, and no warnings
	dropLast bool
	samples  int // in an epoch
	border   int // a batch ends at each multiple of it; 0: nowhere but in the end
	end      int // of an epoch: as samples, or that of a shard

	cursor    Cursor
	step      int
	stopAfter int            // batches of the whole run; 0 for no bound
	buf       *memory.Buffer // being filled, nil when nothing is in it
	names     []string       // of its rows
	bad       []BadSample    // since the last batch
}

// add takes the next sample of the order with what became of it.
func (b *batcher) add(w *worker) error {
	if w.sample.Epoch != b.cursor.Epoch {
		b.cursor = Cursor{Epoch: w.sample.Epoch}
	}
	b.cursor.Pos++
	err := b.take(w)
	switch {
	case err != nil:
	case b.cursor.Pos == b.end:
		err = b.endEpoch()
	case b.border > 0 && b.cursor.Pos%b.border == 0:
		err = b.flush()
	}
	if err != nil {
		_ = b.flushBad() // what led to err is still told; should it fail, the line has ended already
	}
	return err
}

func (b *batcher) take(w *worker) error {
	switch {
	case w.err == nil:
		b.note(w)
		return b.row(w)
	case errors.Is(w.err, ErrSkip):
		b.cursor.Skipped++
		return nil
	}
	b.cursor.Skipped++
	b.cursor.Failed++
	if !b.policy.Skip && !b.policy.Quarantine {
		return w.err
	}
	if b.policy.Quarantine && !b.quiet {
		b.bad = append(b.bad, w.badSample(b.cursor.Pos-1))
	}
	if allowed, bounded := b.policy.allowed(b.samples); bounded && b.cursor.Failed > allowed {
		return fmt.Errorf("too many bad samples: %d of the %d in epoch %d, and on_error allows %d; the last is %w",
			b.cursor.Failed, b.samples, b.cursor.Epoch+1, allowed, w.err)
	}
	return nil
}

// note tells of a sample that is used though a stage has warned of it.
func (b *batcher) note(w *worker) {
	if len(w.sample.notices) == 0 || b.quiet {
		return
	}
	b.warnings.add(&w.sample)
	for _, n := range w.sample.notices {
		b.bad = append(b.bad, w.row(b.cursor.Pos-1, w.feed.prefix+n.stage, "used all the same: "+n.reason))
	}
}

// allowed is how many of an epoch's samples may fail.
func (p Policy) allowed(samples int) (n int, bounded bool) {
	n = p.Max
	if p.MaxFraction > 0 {
		n = max(n, 1, int(math.Floor(p.MaxFraction*float64(samples))))
	}
	return n, n > 0
}

func (b *batcher) row(w *worker) error {
	if b.buf == nil {
		buf, err := b.pool.get(b.ctx)
		if err != nil {
			return err
		}
		b.buf = buf
	}
	// All views of a sample are in one batch: a batch holds a multiple of them.
	for view := range w.sample.pictures {
		b.layout.put(b.buf.Buf(), len(b.names), &w.sample, view)
		b.names = append(b.names, w.sample.Name)
	}
	if len(b.names) == b.layout.rows {
		return b.flush()
	}
	return nil
}

// flush sends what was gathered: the bad samples first, for a reader that has
// seen the batch has then seen all that its cursor counts.
func (b *batcher) flush() error {
	if err := b.flushBad(); err != nil {
		return err
	}
	if len(b.names) == 0 {
		return nil
	}
	rec := b.layout.record(b.buf, b.names)
	b.buf, b.names = nil, b.names[:0]
	batch := &Batch{Kind: Samples, Epoch: b.cursor.Epoch, Step: b.step, Cursor: b.cursor, Record: rec}
	b.step++
	if err := send(b.ctx, b.out, message{batch: batch}); err != nil {
		return err
	}
	if b.step == b.stopAfter {
		return errStepsDone
	}
	return nil
}

func (b *batcher) flushBad() error {
	if len(b.bad) == 0 {
		return nil
	}
	rec := QuarantineRecord(b.bad...)
	b.bad = nil
	return send(b.ctx, b.out, message{batch: &Batch{Kind: Quarantine, Epoch: b.cursor.Epoch, Step: b.step, Cursor: b.cursor, Record: rec}})
}

func (b *batcher) endEpoch() error {
	b.warnings.endEpoch(b.cursor.Epoch)
	switch good := b.samples - b.cursor.Skipped; {
	case good == 0:
		return fmt.Errorf("every sample of epoch %d was left out: %d failed, %d were skipped by a stage",
			b.cursor.Epoch+1, b.cursor.Failed, b.cursor.Skipped-b.cursor.Failed)
	case b.dropLast && good*b.layout.frame.views() < b.layout.rows:
		return fmt.Errorf("epoch %d has %d good samples, less than one batch of %d, and a short last batch is dropped: make batch.size smaller",
			b.cursor.Epoch+1, good, b.layout.rows)
	}
	if b.dropLast {
		b.names = b.names[:0] // the buffer is filled anew
		return b.flushBad()
	}
	return b.flush()
}

// close gives back a buffer that is not full.
func (b *batcher) close() {
	if b.buf != nil {
		b.buf.Release()
		b.buf = nil
	}
}

// badSample is the row of a sample that failed, the pos-th of its epoch's order.
func (w *worker) badSample(pos int) BadSample { return w.row(pos, w.stage, reason(w.err)) }

func (w *worker) row(pos int, stage, reason string) BadSample {
	return BadSample{
		Name:  strings.ToValidUTF8(w.sample.Name, "\uFFFD"),
		Index: int64(w.sample.Index), Epoch: int32(w.sample.Epoch), Pos: int64(pos),
		Stage: stage, Reason: strings.ToValidUTF8(reason, "\uFFFD"), SHA256: w.sha256,
	}
}

// reason is what an *Error says besides the columns a row has of its own.
func reason(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}
