//go:build cuda && linux

package cuda

import (
	"fmt"
	"time"

	"gorgonia.org/cu"
)

// tracer measures what the card does, by events around it, and tells it as spans of time
// when they are over. The clock of the card is set to the program's once.
type tracer struct {
	span   func(track, name string, from, to time.Time)
	zero   cu.Event
	at     time.Time // when zero was
	spans  []traced  // begun, in the order of their streams
	unused []cu.Event
}

type traced struct {
	track, name string
	from, to    cu.Event
}

// The card's tracks.
const (
	computeTrack = "card: compute"
	copyTrack    = "card: copies"
)

// Trace has span called with each kernel and copy of a batch from now on, from the
// engine's own goroutine, some time after they ended. It must be called before any op. It
// costs some microseconds of each kernel.
func (e *Engine) Trace(span func(track, name string, from, to time.Time)) error {
	err := e.call(func() error {
		t := &tracer{span: span}
		var err error
		if t.zero, err = t.event(); err == nil {
			err = t.zero.Record(e.compute)
		}
		if err == nil {
			err = t.zero.Synchronize()
		}
		if err != nil {
			return fmt.Errorf("cuda: tracing: CUDA says %w", err)
		}
		t.at = time.Now()
		e.tracer = t
		return nil
	})
	return err
}

func (t *tracer) event() (cu.Event, error) {
	if n := len(t.unused); n > 0 {
		ev := t.unused[n-1]
		t.unused = t.unused[:n-1]
		return ev, nil
	}
	return cu.MakeEvent(cu.BlockingSyncEvent)
}

// begin is before something that a stream does, by the owner; nil if nobody traces.
func (e *Engine) begin(s cu.Stream) (from cu.Event, err error) {
	if e.tracer == nil {
		return from, nil
	}
	if from, err = e.tracer.event(); err == nil {
		err = from.Record(s)
	}
	if err != nil {
		return from, fmt.Errorf("tracing: CUDA says %w", err)
	}
	return from, nil
}

// end is after it.
func (e *Engine) end(from cu.Event, s cu.Stream, track, name string) error {
	if e.tracer == nil {
		return nil
	}
	to, err := e.tracer.event()
	if err == nil {
		err = to.Record(s)
	}
	if err != nil {
		return fmt.Errorf("tracing: CUDA says %w", err)
	}
	e.tracer.spans = append(e.tracer.spans, traced{track, name, from, to})
	return nil
}

// tell tells what is over, and keeps the rest.
func (t *tracer) tell() {
	if t == nil {
		return
	}
	kept := t.spans[:0]
	for _, s := range t.spans {
		from, err := t.zero.Elapsed(s.from)
		to, err2 := t.zero.Elapsed(s.to)
		switch {
		case err == cu.NotReady || err2 == cu.NotReady:
			kept = append(kept, s)
			continue
		case err == nil && err2 == nil:
			t.span(s.track, s.name, t.at.Add(milliseconds(from)), t.at.Add(milliseconds(to)))
		}
		t.unused = append(t.unused, s.from, s.to)
	}
	t.spans = kept
}

func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

func (t *tracer) close() {
	if t == nil {
		return
	}
	t.tell()
	for _, s := range t.spans {
		t.unused = append(t.unused, s.from, s.to)
	}
	for _, ev := range append(t.unused, t.zero) {
		_ = cu.DestroyEvent(&ev)
	}
}
