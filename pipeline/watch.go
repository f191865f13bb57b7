package pipeline

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// A watch knows which calls into sources, stages and sinks are under way, so that
// those that do not come back can be named.
type watch struct {
	mu    sync.Mutex
	posts map[*post]struct{}
	gone  int64 // moves of the posts that have left
}

// A post is where one goroutine notes the call that it is in. A nil post notes
// nothing.
type post struct {
	prefix string // of its stages' names: "" or "validate: "

	mu      sync.Mutex
	call    call
	since   time.Time // it is in the call, or has come back to it
	waiting int       // times that the call waits for the engine: in emit, or for a validation
	moves   int64     // grows whenever a call begins, ends or waits
}

// A call is one into foreign code; the zero call is none.
type call struct {
	stage  string
	method string // "" for that of a sample
	name   string // of the sample
	key    Key    // of the sample; of a batch only the epoch matters
	step   int    // of the batch, below zero if it is about none
}

// calling is a call that is neither about a sample nor about a batch.
func calling(stage, method string) call { return call{stage: stage, method: method, step: -1} }

// calledWith is one with a batch.
func calledWith(stage, method string, b *Batch) call {
	return call{stage: stage, method: method, key: Key{Epoch: b.Epoch}, step: b.Step}
}

func newWatch() *watch { return &watch{posts: map[*post]struct{}{}} }

func (w *watch) post(prefix string) *post {
	p := &post{prefix: prefix}
	w.mu.Lock()
	w.posts[p] = struct{}{}
	w.mu.Unlock()
	return p
}

// leave takes a post away that is not needed any more.
func (w *watch) leave(p *post) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	w.gone += p.moves
	delete(w.posts, p)
}

// enter notes that a call begins, or ends with the zero call. It gives the call that
// was noted before, to be noted again.
func (p *post) enter(c call) (before call) {
	if p == nil {
		return call{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	before, p.call, p.since = p.call, c, time.Now()
	p.moves++
	return before
}

// wait notes that the call waits for the engine (+1), or does so no more (-1).
func (p *post) wait(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting, p.since = p.waiting+n, time.Now()
	p.moves++
}

// emitting is emit, noted as waiting.
func (p *post) emitting(emit Emit) Emit {
	return func(b *Batch) error {
		p.wait(1)
		defer p.wait(-1)
		return emit(b)
	}
}

// guard is the function guard with the call noted.
func (p *post) guard(c call, f func() error) error {
	defer p.enter(p.enter(c))
	return guard(c.stage, f)
}

// atWork is a call that is under way, and does not wait for the engine.
type atWork struct {
	call
	since time.Time
}

// look gives the calls under way, the longest first, and a number that grows whenever
// one begins, ends or waits.
func (w *watch) look() (calls []atWork, moves int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	moves = w.gone
	for p := range maps.Keys(w.posts) {
		p.mu.Lock()
		moves += p.moves
		if p.call.stage != "" && p.waiting == 0 {
			at := atWork{p.call, p.since}
			at.stage = p.prefix + at.stage
			calls = append(calls, at)
		}
		p.mu.Unlock()
	}
	slices.SortFunc(calls, func(a, b atWork) int {
		return cmp.Or(a.since.Compare(b.since), strings.Compare(a.stage, b.stage))
	})
	return calls, moves
}

// String says "decode: flowers/a.jpg (epoch 1, sample 12)", "train: Process of batch
// 7 (epoch 1)" or "metrics: Close".
func (c call) String() string {
	switch {
	case c.method == "":
		return (&Error{Stage: c.stage, Name: c.name, Key: c.key}).place()
	case c.step >= 0:
		return fmt.Sprintf("%s: %s of batch %d (epoch %d)", c.stage, c.method, c.step, c.key.Epoch+1)
	}
	return c.stage + ": " + c.method
}

// fault is the error of a call that has not come back.
func (c atWork) fault(now time.Time) error {
	err := fmt.Errorf("this call has not come back in %v, though the run was to end: what waits for something must wait for its context too", round(now.Sub(c.since)))
	if c.method == "" {
		return &Error{Stage: c.stage, Name: c.name, Key: c.key, Err: err}
	}
	return fmt.Errorf("%v: %w", c.call, err)
}

// fewNamed is how many calls are named at once: with a shared cause, as a server that
// does not answer, there are as many as workers.
const fewNamed = 4

// told says who is at work, and for how long.
func told(calls []atWork, now time.Time) string {
	if len(calls) == 0 {
		return "no stage is at work"
	}
	var who []string
	for _, c := range calls[:min(len(calls), fewNamed)] {
		who = append(who, fmt.Sprintf("%v, for %v", c.call, round(now.Sub(c.since))))
	}
	if n := len(calls) - len(who); n > 0 {
		who = append(who, fmt.Sprintf("and %d more", n))
	}
	return "at work are " + strings.Join(who, "; ")
}

// round keeps what one wants to read of a time.
func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(time.Second)
}

// looks is how often somebody who loses patience looks before he does. He counts looks, and
// no time: a process that was stopped, or a machine that had no time for it, is not to blame
// those that could not go on meanwhile.
const looks = 16

// impatience is how long a run that ends may stand still until the user is told whom
// it waits for.
const impatience = 5 * time.Second

// await waits for the end of the run of l. Where nothing moves for l.Stall, it says who
// is at work; where that is so for l.Grace after the run was to end, it gives up those
// calls, and their names are the error.
func (r *run) await(l *Line, ended <-chan error) error {
	tick := time.Second
	for _, d := range []time.Duration{l.Stall, l.Grace} {
		if d > 0 {
			tick = max(min(tick, d/looks), time.Millisecond)
		}
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	_, last := r.watch.look()
	quiet, ending, said := time.Duration(0), false, false
	for {
		var now time.Time
		select {
		case err := <-ended:
			return err
		case now = <-ticker.C:
		}
		calls, moves := r.watch.look()
		why, over := r.overBy()
		if moves != last || over != ending { // both begin the time anew
			last, ending, quiet, said = moves, over, 0, false
			continue
		}
		quiet += tick
		switch {
		case said && ending && l.Grace > 0 && quiet >= l.Grace:
			return errors.Join(why, givenUp(calls, now, l.Grace))
		case said:
		case ending && quiet >= min(impatience, max(l.Grace/2, tick)):
			said = true
			r.warn("the run is to end, and waits: " + told(calls, now))
		case !ending && l.Stall > 0 && quiet >= l.Stall:
			said = true
			r.warn(fmt.Sprintf("nothing has moved for %v: %s", round(quiet), told(calls, now)))
		}
	}
}

// givenUp is the error of calls that do not come back.
func givenUp(calls []atWork, now time.Time, grace time.Duration) error {
	if len(calls) == 0 {
		return fmt.Errorf("the run has not ended in %v after it was to, and no stage is at work: this is a mistake of the engine", grace)
	}
	var errs []error
	for _, c := range calls[:min(len(calls), fewNamed)] {
		errs = append(errs, c.fault(now))
	}
	if n := len(calls) - len(errs); n > 0 {
		errs = append(errs, fmt.Errorf("and %d more such calls", n))
	}
	return errors.Join(errs...)
}
