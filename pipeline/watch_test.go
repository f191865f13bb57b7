package pipeline

import (
	"context"
	"errors"
	"fmt"
	"image"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// hangs is a rig in which one call of a kind does not come back until release, whatever
// becomes of its context.
func hangs(t *testing.T, hung string, nth int) (r *rig, inside <-chan struct{}, release func(), warned func() string) {
	t.Helper()
	r = newRig(t, 2)
	r.Stall, r.Grace = time.Hour, 250*time.Millisecond // many looks of those who wait, for a busy machine
	var mu sync.Mutex
	var said strings.Builder
	r.Env = &Env{Warn: func(text string) { mu.Lock(); defer mu.Unlock(); fmt.Fprintln(&said, text) }}
	is, end := make(chan struct{}), make(chan struct{})
	calls := 0
	r.before = func(_ context.Context, call string) error {
		if call != hung {
			return nil
		}
		mu.Lock()
		calls++
		n := calls
		mu.Unlock()
		if n == nth {
			close(is)
			<-end
		}
		return nil
	}
	return r, is, func() { close(end) }, func() string { mu.Lock(); defer mu.Unlock(); return said.String() }
}

// Whatever does not come back is named, when the run is cancelled, or at the end of one
// that went well, and Run returns without it.
func TestACallThatHangsIsNamed(t *testing.T) {
	for _, c := range []struct {
		call string
		nth  int
		want string // of the error, less the time
	}{
		{"folder.Read", 1, "folder: epoch 1, sample "},
		{"decode.Process", 30, "decode: img"},
		{"val.decode.Process", 2, "validate: decode: img"},
		{"train.Prepare", 1, "train: Prepare: "},
		{"features.Prepare", 1, "features: Prepare: "},
		{"train.Process", 3, "train: Process of batch 2 (epoch 1): "},
		{"extract.Process", 2, "extract: Process of batch 1 (epoch 1): "},
		{"evaluate.Process", 1, "validate: Process of batch 0 (epoch 1): "},
		{"extract.Flush", 1, "extract: Flush: "},
		{"features.Write", 4, "features: Write of batch "},
		{"features.Finish", 1, "features: Finish: "},
		{"folder.Close", 1, "folder: Close: "},
		{"train.Close", 1, "train: Close: "},
		{"metrics.Close", 1, "metrics: Close: "},
		{"val.crop.Close", 1, "validate: crop: Close: "},
	} {
		r, inside, release, warned := hangs(t, c.call, c.nth)
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("stopped by the user")
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		select {
		case <-inside:
		case err := <-ended:
			t.Fatalf("there is no call %d of %s: %v", c.nth, c.call, err)
		}
		closing := strings.HasSuffix(c.call, ".Close")
		if !closing {
			cancel(stop)
		}
		var err error
		select {
		case err = <-ended:
		case <-time.After(time.Minute):
			t.Fatalf("%s hangs, and so does Run", c.call)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "this call has not come back in ") {
			t.Errorf("%s: %v, want %q", c.call, err, c.want)
		}
		if errors.Is(err, stop) == closing {
			t.Errorf("%s: %v; is the cause in it where there was one?", c.call, err)
		}
		if n := strings.Count(fmt.Sprint(err), "has not come back"); n != 1 {
			t.Errorf("%s: %v names %d calls, want the one that hangs", c.call, err, n)
		}
		if said := warned(); !strings.Contains(said, "the run is to end, and waits: at work are "+c.want[:strings.Index(c.want, ":")]) {
			t.Errorf("%s: the user was told %q", c.call, said)
		}
		cancel(nil)
		release()
		if err := goleak.Find(); err != nil {
			t.Errorf("%s: when the call came back at last: %v", c.call, err)
		}
		r.mem.AssertSize(t, 0)
	}
}

// A failure elsewhere ends a run all the same, and is told before the call that hangs.
func TestACallThatHangsBesideAFailure(t *testing.T) {
	r, inside, release, _ := hangs(t, "decode.Process", 25)
	boom := errors.New("boom")
	hang := r.before
	r.before = func(ctx context.Context, call string) error {
		if call == "features.Write" {
			<-inside
			return boom
		}
		return hang(ctx, call)
	}
	err := r.Run(t.Context())
	release()
	if text := fmt.Sprint(err); !errors.Is(err, boom) || !strings.HasPrefix(text, "features: boom\ndecode: img") {
		t.Errorf("error is %v", err)
	}
	if err := goleak.Find(); err != nil {
		t.Error(err)
	}
}

// A decoder that is called when a later stage wants pixels is to blame, not that stage.
func TestADecoderThatHangsIsNamed(t *testing.T) {
	inside, end := make(chan struct{}), make(chan struct{})
	l := &Line{Source: &gray{}, SourceName: "gray", Frame: Frame{W: 16, H: 16}, BatchSize: 2, Epochs: 1, Workers: 1, Grace: 250 * time.Millisecond,
		Steps: []Step{
			{"decode", SampleFunc(func(_ context.Context, s *Sample) error { s.SetPicture(&stuckPicture{inside, end}); return nil })},
			{"innocent", SampleFunc(func(_ context.Context, s *Sample) error { _, err := s.Pixels(); return err })},
		}}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-inside; cancel() }()
	err := l.Run(ctx)
	close(end)
	if failed, ok := errors.AsType[*Error](err); !ok || failed.Stage != "decode" || failed.Name != "one" || !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	if err := goleak.Find(); err != nil {
		t.Error(err)
	}
}

type stuckPicture struct{ inside, end chan struct{} }

func (*stuckPicture) Bounds() image.Rectangle { return image.Rect(0, 0, 16, 16) }
func (p *stuckPicture) Decode(*Sample, image.Rectangle) (image.Image, error) {
	close(p.inside)
	<-p.end
	return image.NewGray(image.Rect(0, 0, 16, 16)), nil
}

// A run that stands still says who is at work on what, once, and goes on when it can.
func TestAStallIsTold(t *testing.T) {
	for hung, want := range map[string]string{
		"crop.Process":    "at work are crop: img",
		"extract.Process": "at work are extract: Process of batch 4 (epoch 1), for ",
		"features.Write":  "at work are features: Write of batch ",
	} {
		r, inside, release, warned := hangs(t, hung, 5)
		r.Stall, r.Grace = 200*time.Millisecond, time.Hour
		ended := make(chan error, 1)
		go func() { ended <- r.Run(t.Context()) }()
		<-inside
		for range 6000 {
			if warned() != "" {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(3 * r.Stall) // enough for a second one, were there to be any
		release()
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", hung, err)
		}
		if said := warned(); !strings.HasPrefix(said, "nothing has moved for ") || !strings.Contains(said, want) || strings.Count(said, "\n") != 1 {
			t.Errorf("%s: it says %q, want %q, once", hung, said, want)
		}
	}
}

// A run that takes its time is not disturbed, however short the patience.
func TestAPatientRunIsLeftAlone(t *testing.T) {
	r := newRig(t, 2)
	r.Stall, r.Grace = 500*time.Millisecond, 500*time.Millisecond
	r.Env = &Env{Warn: func(text string) { t.Errorf("it says %q", text) }}
	r.before = func(_ context.Context, call string) error {
		if call == "extract.Process" {
			time.Sleep(40 * time.Millisecond)
		}
		return nil
	}
	if err := r.Run(t.Context()); err != nil {
		t.Error(err)
	}
}

// Workers that all wait for the same server are not all listed.
func TestManyAtWorkAreFew(t *testing.T) {
	w := newWatch()
	for i := range 9 {
		w.post("").enter(call{stage: "read", key: Key{Index: i}})
	}
	calls, _ := w.look()
	if text := told(calls, time.Now()); strings.Count(text, "sample ") != fewNamed || !strings.HasSuffix(text, "and 5 more") {
		t.Errorf("it says %q", text)
	}
	if err := givenUp(calls, time.Now(), time.Minute); strings.Count(err.Error(), "\n") != fewNamed || !strings.Contains(err.Error(), "and 5 more") {
		t.Errorf("it says %q", err)
	}
	if err := givenUp(nil, time.Now(), time.Minute); !strings.Contains(err.Error(), "mistake of the engine") {
		t.Errorf("it says %q", err)
	}
}
