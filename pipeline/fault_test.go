package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Every call that a line makes into foreign code fails once, in each of three
// ways. Whatever fails, and however: Run returns an error that says where, every
// part is closed once, and no goroutine, buffer or record is left (see rig.run).
func TestEveryPlaceMayFail(t *testing.T) {
	// Which call fails, and what the error must begin with. A Close is never
	// cancelled, since it is given no context.
	places := []struct{ call, want string }{
		{"folder.Len", "folder: "},
		{"folder.Classes", "folder: "},
		{"folder.Read", "folder: img"},
		{"decode.Process", "decode: img"},
		{"crop.Process", "crop: img"},
		{"flip.Process", "flip: img"},
		{"train.Holds", "train: "},
		{"train.Prepare", "train: "},
		{"train.Process", "train: "},
		{"train.Flush", "train: "},
		{"extract.Holds", "extract: "},
		{"extract.Prepare", "extract: "},
		{"extract.Process", "extract: "},
		{"extract.Flush", "extract: "},
		{"metrics.Prepare", "metrics: "},
		{"metrics.Accepts", "metrics: "},
		{"features.Prepare", "features: "},
		{"features.Accepts", "features: "},
		{"features.Write", "features: "},
		{"features.Finish", "features: "},
		{"val.folder.Len", ""},
		{"val.folder.Read", "validate: folder: img"},
		{"val.decode.Process", "validate: decode: img"},
		{"val.crop.Process", "validate: crop: img"},
		{"evaluate.Holds", "validate: "},
		{"evaluate.Process", "validate: "},
		{"evaluate.Flush", "validate: "},
		{"folder.Close", "folder: "},
		{"decode.Close", "decode: "},
		{"train.Close", "train: "},
		{"extract.Close", "extract: "},
		{"metrics.Close", "metrics: "},
		{"features.Close", "features: "},
		{"val.folder.Close", "validate: folder: "},
		{"val.crop.Close", "validate: crop: "},
	}
	boom := errors.New("boom")
	for _, place := range places {
		for _, how := range []string{"error", "panic", "cancel"} {
			method := place.call[strings.LastIndex(place.call, ".")+1:]
			noError := method == "Len" || method == "Classes" || method == "Holds" || method == "Accepts"
			if how == "error" && noError || how == "cancel" && (noError || method == "Close") {
				continue
			}
			for _, nth := range []int64{1, 3} {
				for _, workers := range []int{1, 4} {
					name := fmt.Sprintf("%s/%s at call %d/%d workers", place.call, how, nth, workers)
					ctx, cancel := context.WithCancelCause(t.Context())
					stop := errors.New("stopped by the user")
					r := newRig(t, workers)
					var calls atomic.Int64
					r.before = func(ctx context.Context, call string) error {
						if call != place.call || calls.Add(1) != nth {
							return nil
						}
						switch how {
						case "panic":
							panic(boom)
						case "cancel":
							cancel(stop)
							<-ctx.Done()
							return ctx.Err()
						}
						return boom
					}
					err := r.run(ctx)
					cancel(nil)
					if t.Failed() {
						t.Fatalf("%s: left something (error %v)", name, err)
					}
					happened := calls.Load() >= nth
					switch {
					case !happened && err != nil:
						t.Fatalf("%s: nothing failed, but: %v", name, err)
					case !happened:
						if nth == 1 {
							t.Fatalf("%s: there is no such call", name)
						}
					case how == "cancel":
						if !errors.Is(err, stop) {
							t.Fatalf("%s: %v, want the context's cause", name, err)
						}
					default:
						if !errors.Is(err, boom) || !strings.HasPrefix(err.Error(), place.want) {
							t.Fatalf("%s: %v, want %s...boom", name, err, place.want)
						}
						if how == "panic" && !strings.Contains(fmt.Sprintf("%+v", stackOf(err)), "(*rig).call") {
							t.Fatalf("%s: the stack does not show where: %+v", name, err)
						}
					}
				}
			}
		}
	}
}

// stackOf is the *Error in err with its stack, or err.
func stackOf(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return err
}

func TestCancelledBeforeItBegins(t *testing.T) {
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	r := newRig(t, 2)
	r.before = func(_ context.Context, call string) error {
		if !strings.HasSuffix(call, ".Close") {
			t.Errorf("%s was called", call)
		}
		return nil
	}
	if err := r.run(ctx); err != stop {
		t.Errorf("error is %v, want %v", err, stop)
	}
}

// Cancelled at any moment, a run ends soon and leaves nothing.
func TestCancelAtAnyTime(t *testing.T) {
	stop := errors.New("stop")
	for i := range 40 {
		ctx, cancel := context.WithCancelCause(t.Context())
		timer := time.AfterFunc(time.Duration(i)*250*time.Microsecond, func() { cancel(stop) })
		r := newRig(t, 1+i%5)
		r.Epochs = 1000
		var late atomic.Int32 // calls that began after the end
		r.before = func(_ context.Context, call string) error {
			if ctx.Err() != nil && !strings.HasSuffix(call, ".Close") {
				late.Add(1)
			}
			return nil
		}
		err := r.run(ctx)
		timer.Stop()
		if err != stop {
			t.Fatalf("error is %v, want the cause alone", err)
		}
		// What was under way: a few samples of each worker, and what the stages and sinks were at.
		if n := late.Load(); n > 100 {
			t.Fatalf("%d calls were made after the end", n)
		}
		cancel(nil)
	}
}

// A stage that does not heed the context cannot be stopped, but all the others
// are closed while it goes on.
func TestOthersCloseWhileAStageIgnoresCancel(t *testing.T) {
	for _, stuck := range []string{"train", "extract"} {
		ctx, cancel := context.WithCancel(t.Context())
		r := newRig(t, 2)
		release := make(chan struct{})
		var once sync.Once
		r.before = func(_ context.Context, call string) error {
			if call == stuck+".Process" {
				once.Do(func() {
					cancel()
					<-release
				})
			}
			return nil
		}
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		// train's memory lies under the batches, so it waits for the others.
		want := []string{"folder", "decode", "crop", "flip", "metrics", "features"}
		if stuck == "train" {
			want = append(want, "extract")
		}
		closed := func(name string) bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.closed[name] == 1
		}
		for _, name := range want {
			for begin := time.Now(); !closed(name); time.Sleep(time.Millisecond) {
				if time.Since(begin) > time.Minute {
					t.Fatalf("%s ignores cancel: %s was not closed", stuck, name)
				}
			}
		}
		select {
		case err := <-done:
			t.Fatalf("Run returned %v while %s is at work", err, stuck)
		default:
		}
		close(release)
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v", err)
		}
		if !closed(stuck) {
			t.Errorf("%s was not closed", stuck)
		}
		r.mem.AssertSize(t, 0)
	}
}

// A stage that keeps more than it says, and nobody at work: a deadlock, which is
// told with names instead of waiting forever.
func TestADeadlockIsTold(t *testing.T) {
	r := newRig(t, 2)
	onPool := r.onPool
	r.onPool = func(p *pool) { onPool(p); p.stall = 200 * time.Millisecond }
	r.Stages[0].Stage.(*rigStage).hold = 0
	r.Stages[0].Stage = &hoarder{rigStage: r.Stages[0].Stage.(*rigStage)}
	err := r.run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no batch buffer came back in 200ms") || !strings.Contains(err.Error(), "of 2, train holds 2") {
		t.Errorf("error is %v", err)
	}
}

type hoarder struct{ *rigStage }

func (s *hoarder) Process(_ context.Context, b *Batch, _ Emit) error {
	b.Record.Retain()
	copied := *b
	s.held = append(s.held, &copied)
	return nil
}

// A slow stage is no deadlock.
func TestASlowStageIsNoDeadlock(t *testing.T) {
	r := newRig(t, 2)
	onPool := r.onPool
	r.onPool = func(p *pool) { onPool(p); p.stall = 100 * time.Millisecond }
	calls := 0
	r.before = func(_ context.Context, call string) error {
		if call == "extract.Process" {
			if calls++; calls%8 == 3 {
				time.Sleep(300 * time.Millisecond)
			}
		}
		return nil
	}
	if err := r.run(t.Context()); err != nil {
		t.Error(err)
	}
}

// A stage that never releases what it retained is told at the end.
func TestALeakIsTold(t *testing.T) {
	r := newRig(t, 2)
	r.Epochs, r.Validation = 1, nil
	leak := &leaker{}
	r.Stages = []NamedStage{{"leaker", leak}}
	err := r.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "batches were not released by the end of the run: of 2 buffers, leaker holds 1") {
		t.Errorf("error is %v", err)
	}
	leak.kept.Record.Release()
	if p := r.pools[0]; p.idle() != p.n {
		t.Errorf("%d of %d buffers came back", p.idle(), p.n)
	}
}

type leaker struct{ kept *Batch }

func (s *leaker) Process(_ context.Context, b *Batch, _ Emit) error {
	if s.kept == nil {
		b.Record.Retain()
		copied := *b
		s.kept = &copied
	}
	return nil
}
