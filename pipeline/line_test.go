package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"go.uber.org/goleak"
)

// A rig is a line of test doubles, each of which tells the rig of every call
// before it does its work, so that a test can make any call fail.
type rig struct {
	*Line
	t *testing.T
	// before is asked at every call: "decode.Process", "metrics.Write", ...
	before func(ctx context.Context, call string) error

	mem    *memory.CheckedAllocator // of the batch buffers
	small  int                      // bytes of small records that were there before
	mu     sync.Mutex
	pools  []*pool
	closed map[string]int
	got    []arrived
}

// arrived is a batch as the last sink saw it.
type arrived struct {
	Kind        Kind
	Epoch, Step int
	Cursor      Cursor
	Index       []int64
	Sum         string // of all columns
	Bad         []BadSample
}

func (r *rig) call(ctx context.Context, name string) error {
	if r.before == nil {
		return nil
	}
	return r.before(ctx, name)
}

func (r *rig) close(name string) error {
	r.mu.Lock()
	r.closed[name]++
	r.mu.Unlock()
	return r.call(context.Background(), name+".Close")
}

type rigSource struct {
	*rig
	name string
	n    int
}

func (s *rigSource) Len() int {
	if err := s.call(context.Background(), s.name+".Len"); err != nil {
		panic(err)
	}
	return s.n
}

func (s *rigSource) Read(ctx context.Context, i int, x *Sample) error {
	x.Name = fmt.Sprintf("img%03d.jpg", i)
	if err := s.call(ctx, s.name+".Read"); err != nil {
		return err
	}
	x.Label = int32(i % 7)
	x.Bytes = fmt.Appendf(x.Bytes, "bytes of %d", i)
	if i%20 == 0 {
		time.Sleep(time.Duration(x.Rand().IntN(200)) * time.Microsecond)
	}
	return nil
}

func (s *rigSource) Close() error { return s.close(s.name) }

func (s *rigSource) Classes() []string {
	if err := s.call(context.Background(), s.name+".Classes"); err != nil {
		panic(err)
	}
	return []string{"a", "b", "c", "d", "e", "f", "g"}
}

type rigStep struct {
	*rig
	name string
	f    func(s *Sample) error
}

func (s *rigStep) Process(ctx context.Context, x *Sample) error {
	if err := s.call(ctx, s.name+".Process"); err != nil {
		return err
	}
	return s.f(x)
}

func (s *rigStep) Close() error { return s.close(s.name) }

// rigStage hands every batch on, one call later if it holds.
type rigStage struct {
	*rig
	name     string
	hold     int
	pinned   bool
	validate bool
	held     []*Batch
	env      *Env
}

func (s *rigStage) Holds() int {
	if err := s.call(context.Background(), s.name+".Holds"); err != nil {
		panic(err)
	}
	return s.hold
}

func (s *rigStage) PoolMemory() memory.Allocator {
	if s.pinned {
		return s.mem
	}
	return nil
}

func (s *rigStage) Prepare(ctx context.Context, env *Env) error {
	s.env = env
	return s.call(ctx, s.name+".Prepare")
}

func (s *rigStage) Process(ctx context.Context, b *Batch, emit Emit) error {
	if err := s.call(ctx, s.name+".Process"); err != nil {
		return err
	}
	b.Record.Retain()
	copied := *b
	s.held = append(s.held, &copied)
	if len(s.held) <= s.hold {
		return nil
	}
	first := s.held[0]
	s.held = s.held[1:]
	return emit(first)
}

func (s *rigStage) Flush(ctx context.Context, emit Emit) error {
	if err := s.call(ctx, s.name+".Flush"); err != nil {
		return err
	}
	for len(s.held) > 0 {
		first := s.held[0]
		s.held = s.held[1:]
		if err := emit(first); err != nil {
			return err
		}
	}
	if s.validate {
		return s.env.Validate(ctx, &rigStage{rig: s.rig, name: "evaluate"})
	}
	return nil
}

func (s *rigStage) Close() error {
	for _, b := range s.held {
		b.Record.Release()
	}
	s.held = nil
	return s.close(s.name)
}

type rigSink struct {
	*rig
	name    string
	accepts func(Kind) bool
	collect bool
	kept    arrow.Record // the last one, as a sink that writes in the background would
}

func (s *rigSink) Accepts(k Kind) bool {
	if err := s.call(context.Background(), s.name+".Accepts"); err != nil {
		panic(err)
	}
	return s.accepts == nil || s.accepts(k)
}

func (s *rigSink) Prepare(ctx context.Context, _ *Env) error { return s.call(ctx, s.name+".Prepare") }

func (s *rigSink) Write(ctx context.Context, b *Batch) error {
	if err := s.call(ctx, s.name+".Write"); err != nil {
		return err
	}
	if s.kept != nil {
		s.kept.Release()
	}
	s.kept = b.Record
	s.kept.Retain()
	if !s.collect {
		return nil
	}
	a := arrived{Kind: b.Kind, Epoch: b.Epoch, Step: b.Step, Cursor: b.Cursor}
	switch b.Kind {
	case Samples:
		m, err := ImagesOf(b.Record)
		if err != nil {
			return err
		}
		h := sha256.New()
		fmt.Fprint(h, m)
		a.Sum, a.Index = hex.EncodeToString(h.Sum(nil)), slices.Clone(m.Index)
	case Quarantine:
		var err error
		if a.Bad, err = QuarantineOf(b.Record); err != nil {
			return err
		}
	}
	s.got = append(s.got, a)
	return nil
}

func (s *rigSink) Finish(ctx context.Context) error { return s.call(ctx, s.name+".Finish") }

func (s *rigSink) Close() error {
	if s.kept != nil {
		s.kept.Release()
		s.kept = nil
	}
	return s.close(s.name)
}

// newRig is a line of 103 samples with random crops and flips, two batch stages,
// two sinks and a validation of 11.
func newRig(t *testing.T, workers int) *rig {
	r := &rig{t: t, mem: memory.NewCheckedAllocator(memory.NewGoAllocator()), small: smallRecords.CurrentAlloc(), closed: map[string]int{}}
	decode := func(s *Sample) error { s.SetImage(picture(12, 10, s.Index)); return nil }
	crop := func(s *Sample) error {
		v := s.View()
		size := v.Bounds()
		s.SetView(v.Crop(s.Rand().IntN(size.X-8+1), s.Rand().IntN(size.Y-6+1), 8, 6))
		return nil
	}
	flip := func(s *Sample) error {
		if s.Rand().IntN(2) == 0 {
			s.SetView(s.View().Mirror())
		}
		s.Shift = [3]float32{s.Rand().Float32(), s.Rand().Float32(), s.Rand().Float32()}
		return nil
	}
	step := func(prefix, label string, f func(*Sample) error) Step {
		return Step{Label: label, Stage: &rigStep{r, prefix + label, f}}
	}
	frame := Frame{W: 8, H: 6, CanvasW: 12, CanvasH: 10}
	r.Line = &Line{
		Seed: 42, Source: &rigSource{r, "folder", 103}, SourceName: "folder",
		Steps: []Step{step("", "decode", decode), step("", "crop", crop), step("", "flip", flip)},
		Frame: frame, BatchSize: 10, Shuffle: true, Epochs: 2, Workers: workers,
		Stages: []NamedStage{
			{"train", &rigStage{rig: r, name: "train", hold: 1, pinned: true, validate: true}},
			{"extract", &rigStage{rig: r, name: "extract"}},
		},
		Sinks: []NamedSink{
			{"metrics", &rigSink{rig: r, name: "metrics", accepts: func(k Kind) bool { return k == Metrics }}},
			{"features", &rigSink{rig: r, name: "features", collect: true}},
		},
		Validation: &Line{
			Source: &rigSource{r, "val.folder", 11}, SourceName: "folder",
			Steps: []Step{step("val.", "decode", decode), step("val.", "crop", crop)},
			Frame: frame, BatchSize: 4,
		},
	}
	r.onPool = func(p *pool) {
		p.poison = true
		r.mu.Lock()
		defer r.mu.Unlock()
		r.pools = append(r.pools, p)
	}
	return r
}

// run runs the line and checks that nothing is left: every part closed once, all
// buffers back, no goroutine, no memory.
func (r *rig) run(ctx context.Context) error {
	t := r.t
	t.Helper()
	err := r.Run(ctx)
	for _, name := range []string{"folder", "decode", "crop", "flip", "train", "extract", "metrics", "features", "val.folder", "val.decode", "val.crop"} {
		if n := r.closed[name]; n != 1 {
			t.Errorf("%s was closed %d times", name, n)
		}
	}
	for i, p := range r.pools {
		if p.idle() != p.n {
			t.Errorf("pool %d: %d of %d buffers are back: %s", i, p.idle(), p.n, p.holders())
		}
	}
	r.mem.AssertSize(t, 0)
	if n := smallRecords.CurrentAlloc(); n != r.small { // Parquet, of another test, keeps some
		t.Errorf("%d bytes of small records leaked", n-r.small)
		smallRecords.AssertSize(t, r.small)
	}
	if err := goleak.Find(); err != nil {
		t.Error(err)
	}
	return err
}

// samples are the arrived batches of the main line: all before validation's.
func (r *rig) of(kind Kind) []arrived {
	var list []arrived
	for _, a := range r.got {
		if a.Kind == kind {
			list = append(list, a)
		}
	}
	return list
}

func TestSameBatchesForAnyNumberOfWorkers(t *testing.T) {
	var want []arrived
	for _, workers := range []int{1, 2, 5, 16} {
		r := newRig(t, workers)
		r.OnError.Quarantine = true
		r.Steps = append(r.Steps, Step{"picky", SampleFunc(func(_ context.Context, s *Sample) error {
			switch s.Index % 13 {
			case 4:
				return errors.New("not this one")
			case 5:
				return ErrSkip
			case 6:
				panic("nor this")
			}
			return nil
		})})
		if err := r.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = r.got
			continue
		}
		if len(r.got) != len(want) {
			t.Fatalf("%d workers: %d batches, 1 worker had %d", workers, len(r.got), len(want))
		}
		for i := range want {
			if fmt.Sprint(r.got[i]) != fmt.Sprint(want[i]) {
				t.Fatalf("%d workers: batch %d is\n%+v, with 1 worker\n%+v", workers, i, r.got[i], want[i])
			}
		}
	}
	// The comparison must be able to fail: another seed gives other batches.
	r := newRig(t, 2)
	r.Seed++
	if err := r.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.of(Samples)[0].Sum == want[0].Sum {
		t.Error("another seed gives the same first batch")
	}
}

func TestEpochsBatchesAndCursors(t *testing.T) {
	for _, drop := range []bool{false, true} {
		r := newRig(t, 3)
		r.DropLast = drop
		if err := r.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := r.of(Samples)
		got = got[:len(got)-3] // validation: 4 + 4 + 3
		perEpoch := 11
		if drop {
			perEpoch = 10
		}
		if len(got) != 2*perEpoch {
			t.Fatalf("drop %v: %d batches, want %d", drop, len(got), 2*perEpoch)
		}
		for e := range 2 {
			seen := map[int64]bool{}
			for i, b := range got[e*perEpoch : (e+1)*perEpoch] {
				pos := min(10*(i+1), 103)
				if want := (Cursor{Epoch: e, Pos: pos}); b.Epoch != e || b.Step != e*perEpoch+i || b.Cursor != want {
					t.Errorf("drop %v: epoch %d, step %d, cursor %+v; want %d, %d, %+v", drop, b.Epoch, b.Step, b.Cursor, e, e*perEpoch+i, want)
				}
				for _, k := range b.Index {
					if seen[k] {
						t.Errorf("sample %d came twice in epoch %d", k, e)
					}
					seen[k] = true
				}
			}
			if want := map[bool]int{false: 103, true: 100}[drop]; len(seen) != want {
				t.Errorf("drop %v: epoch %d has %d samples, want %d", drop, e, len(seen), want)
			}
		}
		if slices.Equal(got[0].Index, got[perEpoch].Index) {
			t.Error("both epochs have the same order")
		}
	}
}

// A run started at the cursor of any batch gives the batches after it.
func TestStartGivesTheTail(t *testing.T) {
	build := func() *rig {
		r := newRig(t, 3)
		r.DropLast = true
		r.OnError.Quarantine = true
		r.OnError.Max = 20
		r.Steps = append(r.Steps, Step{"picky", SampleFunc(func(_ context.Context, s *Sample) error {
			switch s.Index % 9 {
			case 4:
				return errors.New("not this one")
			case 5:
				return ErrSkip
			}
			return nil
		})})
		return r
	}
	whole := build()
	if err := whole.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, b := range whole.of(Samples) {
		r := build()
		r.Start, r.StartStep = b.Cursor, b.Step+1
		if err := r.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Bad samples overtake the batch that train holds, so the kinds are compared
		// one by one.
		if got, want := fmt.Sprint(r.of(Samples)), fmt.Sprint(after(b.Cursor, whole.of(Samples))); got != want {
			t.Fatalf("from %+v:\n%s\nwant\n%s", b.Cursor, got, want)
		}
		if got, want := fmt.Sprint(r.of(Quarantine)), fmt.Sprint(after(b.Cursor, whole.of(Quarantine))); got != want {
			t.Fatalf("from %+v:\n%s\nwant\n%s", b.Cursor, got, want)
		}
		if b.Epoch == 1 {
			break // one start in the second epoch is enough
		}
	}
}

// after are the batches behind a cursor. Validation's, at the end, always are.
func after(c Cursor, list []arrived) []arrived {
	for len(list) > 0 && (list[0].Epoch < c.Epoch || list[0].Epoch == c.Epoch && list[0].Cursor.Pos <= c.Pos) {
		list = list[1:]
	}
	return list
}

// The sample that fails first in the order of the stream is the one reported,
// also if a later one, or a later batch, fails earlier in time.
func TestSameErrorForAnyNumberOfWorkers(t *testing.T) {
	for _, workers := range []int{1, 2, 5, 16} {
		for range 5 {
			r := newRig(t, workers)
			r.Shuffle = false
			r.Steps = append(r.Steps, Step{"picky", SampleFunc(func(_ context.Context, s *Sample) error {
				switch {
				case s.Index == 37:
					time.Sleep(3 * time.Millisecond)
					return errors.New("late but first")
				case s.Index > 37:
					return errors.New("early but later")
				}
				return nil
			})})
			err := r.run(t.Context())
			if want := "picky: img037.jpg (epoch 1, sample 37): late but first"; err == nil || err.Error() != want {
				t.Fatalf("%d workers: %v, want %s", workers, err, want)
			}
			if e, ok := errors.AsType[*Error](err); !ok || e.Stage != "picky" || e.Key != (Key{0, 37}) {
				t.Fatalf("%d workers: %#v", workers, err)
			}
		}
	}
}

// A stage that fails with an early batch comes before a sample of a later batch,
// however long it takes; and a sink with an earlier batch comes before the stage.
func TestErrorsOfStagesKeepTheOrderToo(t *testing.T) {
	for _, workers := range []int{1, 16} {
		for _, sinkFails := range []bool{false, true} {
			r := newRig(t, workers)
			r.Shuffle = false
			calls, writes := 0, 0
			r.before = func(ctx context.Context, call string) error {
				switch call {
				case "extract.Process":
					if calls++; calls == 3 {
						time.Sleep(5 * time.Millisecond) // the bad sample has failed by now
						return errors.New("no extract")
					}
				case "features.Write":
					if writes++; writes == 2 && sinkFails {
						time.Sleep(10 * time.Millisecond)
						return errors.New("disk full")
					}
				}
				return nil
			}
			r.Steps = append(r.Steps, Step{"picky", SampleFunc(func(_ context.Context, s *Sample) error {
				if s.Index == 41 {
					return errors.New("bad sample of the fifth batch")
				}
				return nil
			})})
			want := "extract: no extract"
			if sinkFails {
				want = "features: disk full"
			}
			if err := r.run(t.Context()); err == nil || err.Error() != want {
				t.Errorf("%d workers: %v, want %s", workers, err, want)
			}
		}
	}
}

func TestQuarantine(t *testing.T) {
	r := newRig(t, 4)
	r.Shuffle, r.Epochs = false, 1
	r.OnError.Quarantine = true
	r.Steps = append(r.Steps, Step{"picky", SampleFunc(func(_ context.Context, s *Sample) error {
		switch s.Index {
		case 3, 4, 57:
			return errors.New("no good")
		case 5:
			return ErrSkip
		case 102:
			panic("the last")
		}
		return nil
	})})
	if err := r.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	sum := func(i int) string {
		s := sha256.Sum256(fmt.Appendf(nil, "bytes of %d", i))
		return hex.EncodeToString(s[:])
	}
	bad := func(i int, reason string) BadSample {
		return BadSample{Name: fmt.Sprintf("img%03d.jpg", i), Index: int64(i), Pos: int64(i), Stage: "picky", Reason: reason, SHA256: sum(i)}
	}
	var kinds []string
	var rows []BadSample
	for _, a := range r.got {
		kinds = append(kinds, string(a.Kind[:1]))
		rows = append(rows, a.Bad...)
	}
	// train holds a batch and does not take bad samples, which so overtake it.
	if got, want := strings.Join(kinds, ""), "qssssqssssqss"+"sss"; got != want {
		t.Errorf("kinds %s, want %s", got, want)
	}
	want := []BadSample{bad(3, "no good"), bad(4, "no good"), bad(57, "no good"), bad(102, "panic: the last")}
	if !slices.Equal(rows, want) {
		t.Errorf("rows %+v, want %+v", rows, want)
	}
	first := r.of(Samples)[0]
	if wantIndex := []int64{0, 1, 2, 6, 7, 8, 9, 10, 11, 12}; !slices.Equal(first.Index, wantIndex) || first.Cursor != (Cursor{0, 13, 3, 2}) {
		t.Errorf("the first batch has %v, cursor %+v", first.Index, first.Cursor)
	}
}

func TestBudget(t *testing.T) {
	failing := func(n int) Step {
		return Step{"picky", SampleFunc(func(_ context.Context, s *Sample) error {
			if s.Index < n {
				return errors.New("no good")
			}
			return nil
		})}
	}
	for name, c := range map[string]struct {
		policy Policy
		bad    int
		want   string
	}{
		"within max":            {Policy{Skip: true, Max: 5}, 5, ""},
		"above max":             {Policy{Skip: true, Max: 5}, 8, "too many bad samples: 6 of the 103 in epoch 1, and on_error allows 5; the last is picky: img005.jpg (epoch 1, sample 5): no good"},
		"within fraction":       {Policy{Quarantine: true, MaxFraction: 0.02}, 2, ""},
		"above fraction":        {Policy{Quarantine: true, MaxFraction: 0.02}, 3, "too many bad samples: 3 of the 103 in epoch 1, and on_error allows 2; the last is picky: img002.jpg"},
		"fraction of one":       {Policy{Quarantine: true, MaxFraction: 0.0001}, 1, ""},
		"the larger of the two": {Policy{Quarantine: true, Max: 7, MaxFraction: 0.02}, 7, ""},
		"no bound":              {Policy{Skip: true}, 90, ""},
		"all bad":               {Policy{Skip: true}, 103, "every sample of epoch 1 was left out: 103 failed, 0 were skipped by a stage"},
		"fail":                  {Policy{}, 1, "picky: img000.jpg (epoch 1, sample 0): no good"},
	} {
		for _, workers := range []int{1, 5} {
			r := newRig(t, workers)
			r.Shuffle = false
			r.OnError = c.policy
			r.Steps = append(r.Steps, failing(c.bad))
			err := r.run(t.Context())
			switch {
			case c.want == "" && err != nil:
				t.Errorf("%s: %v", name, err)
			case c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)):
				t.Errorf("%s: %v, want %s", name, err, c.want)
			}
			rows := 0
			for _, a := range r.of(Quarantine) {
				rows += len(a.Bad)
			}
			// Every bad sample is told, the one too many as well; twice for two epochs.
			want := 0
			if c.policy.Quarantine {
				if want = c.bad; err == nil {
					want *= 2
				}
			}
			if rows != want {
				t.Errorf("%s: %d rows, want %d", name, rows, want)
			}
		}
	}
}

// A resumed run counts what failed before it began.
func TestBudgetGoesOnAfterAResume(t *testing.T) {
	r := newRig(t, 2)
	r.Shuffle = false
	r.OnError = Policy{Skip: true, Max: 5}
	r.Start = Cursor{Epoch: 0, Pos: 50, Skipped: 6, Failed: 5}
	r.Steps = append(r.Steps, Step{"picky", SampleFunc(func(_ context.Context, s *Sample) error {
		if s.Index == 60 {
			return errors.New("no good")
		}
		return nil
	})})
	if err := r.run(t.Context()); err == nil || !strings.Contains(err.Error(), "6 of the 103 in epoch 1") {
		t.Errorf("error is %v", err)
	}
}

func TestSkipsAreNoErrors(t *testing.T) {
	r := newRig(t, 4)
	r.Steps = append(r.Steps, Step{"skipper", SampleFunc(func(_ context.Context, s *Sample) error {
		if s.Index%2 == 0 {
			return fmt.Errorf("even: %w", ErrSkip)
		}
		return nil
	})})
	r.Epochs, r.DropLast = 1, true
	if err := r.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := r.of(Samples)
	got = got[:len(got)-3]
	if len(got) != 5 {
		t.Errorf("%d batches of 51 samples, want 5", len(got))
	}
	for _, b := range got {
		if len(b.Index) != 10 {
			t.Errorf("a batch of %d", len(b.Index))
		}
	}
}

func TestTooFewForABatch(t *testing.T) {
	r := newRig(t, 2)
	r.DropLast, r.BatchSize = true, 104
	if err := r.run(t.Context()); err == nil || !strings.Contains(err.Error(), "epoch 1 has 103 good samples, less than one batch of 104") {
		t.Errorf("error is %v", err)
	}
}

func TestWrongSize(t *testing.T) {
	r := newRig(t, 2)
	r.Steps = r.Steps[:1]
	r.closed["crop"], r.closed["flip"] = 1, 1
	err := r.run(t.Context())
	if err == nil || !strings.HasPrefix(err.Error(), "batch: img") || !strings.Contains(err.Error(), "12x10 after the last stage, and those of a batch are 8x6") {
		t.Errorf("error is %v", err)
	}
}

func TestBadLines(t *testing.T) {
	for want, change := range map[string]func(r *rig){
		"has no samples":             func(r *rig) { r.Source.(*rigSource).n = 0 },
		"cannot be batched":          func(r *rig) { r.Frame = Frame{} },
		"batch size is 0":            func(r *rig) { r.BatchSize = 0 },
		"0 workers":                  func(r *rig) { r.Workers = 0 },
		"cannot start at epoch 0":    func(r *rig) { r.Start.Pos = 104 },
		"validate: the batch size":   func(r *rig) { r.Validation.BatchSize = 0 },
		"validate: folder: the sour": func(r *rig) { r.Validation.Source.(*rigSource).n = 0 },
	} {
		r := newRig(t, 2)
		change(r)
		if err := r.run(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestValidation(t *testing.T) {
	r := newRig(t, 3)
	r.OnError.Quarantine = true
	r.Validation.OnError.Quarantine = true
	r.Validation.Steps = append(r.Validation.Steps, Step{"picky", SampleFunc(func(_ context.Context, s *Sample) error {
		if s.Index == 6 {
			return errors.New("no good")
		}
		return nil
	})})
	evaluated := 0
	r.Stages[0].Stage = &epochStage{rigStage: r.Stages[0].Stage.(*rigStage), n: &evaluated}
	if err := r.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if evaluated != 2 {
		t.Errorf("%d validations, want 2", evaluated)
	}
	var got [][]int64
	var bad []BadSample
	for _, a := range r.got {
		bad = append(bad, a.Bad...)
		if n := len(a.Index); n == 4 || n == 2 {
			got = append(got, a.Index)
		}
	}
	once := [][]int64{{0, 1, 2, 3}, {4, 5, 7, 8}, {9, 10}}
	if want := append(slices.Clone(once), once...); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("validation batches %v, want %v", got, want)
	}
	if len(bad) != 1 || bad[0].Stage != "validate: picky" || bad[0].Index != 6 {
		t.Errorf("bad samples %+v, want sample 6 once", bad)
	}
	if len(r.pools) != 3 {
		t.Errorf("%d pools, want the line's and one each validation", len(r.pools))
	}
}

// epochStage validates whenever an epoch begins after another, and at the end.
type epochStage struct {
	*rigStage
	n     *int
	epoch int
}

func (s *epochStage) Process(ctx context.Context, b *Batch, emit Emit) error {
	if b.Epoch != s.epoch {
		s.epoch = b.Epoch
		*s.n++
		if err := s.env.Validate(ctx, &rigStage{rig: s.rig, name: "evaluate", hold: 1}); err != nil {
			return err
		}
	}
	return s.rigStage.Process(ctx, b, emit)
}

func (s *epochStage) Flush(ctx context.Context, emit Emit) error {
	*s.n++
	return s.rigStage.Flush(ctx, emit)
}
