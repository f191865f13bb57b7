package gpu

import (
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"go.uber.org/goleak"

	"sluice/net"
	"sluice/pipeline"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The load of batch n+1 begins before the step of batch n ends, and does not
// wait for it: the spied engine ends no load before that step.
func TestTrainLoadsWhileItComputes(t *testing.T) {
	j := newJournal()
	s := trainStage(t, smallNet+"epochs: 1", func(e net.Engine) net.Engine { return &spy{Engine: e, journal: j, lazy: true} })
	run(t, s, env(6), 4, 1, discard)
	want := []string{
		"load 0 begins",
		"load 1 begins", "step 0 ends",
		"load 2 begins", "step 1 ends",
		"load 3 begins", "step 2 ends",
		"step 3 ends",
	}
	if !slices.Equal(j.events, want) {
		t.Errorf("the engine was asked for\n%s\nwant\n%s", strings.Join(j.events, "\n"), strings.Join(want, "\n"))
	}
	if s.Holds() != 2 {
		t.Errorf("Holds is %d: the pool would be too small or too large", s.Holds())
	}
}

// A counted record knows how often it is held.
type counted struct {
	arrow.Record
	held *atomic.Int64
}

func (c counted) Retain() { c.held.Add(1); c.Record.Retain() }
func (c counted) Release() {
	if c.held.Add(-1) < 0 {
		panic("released more often than retained")
	}
	c.Record.Release()
}

// However a run ends, every record is released as often as it was retained.
func TestTrainReleasesEveryRecord(t *testing.T) {
	boom := errors.New("boom")
	for _, tt := range []struct {
		name   string
		on     func(batch int) error                // when a batch is loaded
		cancel int                                  // cancelled before the batch, if above 0
		labels func(batch int) func(labels []int32) // changes labels
		emit   func(*pipeline.Batch) error
		want   error
	}{
		{name: "success"},
		{name: "load fails", on: func(n int) error {
			if n == 2 {
				return boom
			}
			return nil
		}, want: boom},
		{name: "cancel", cancel: 2, want: context.Canceled},
		{name: "bad label", labels: func(n int) func([]int32) {
			if n == 2 {
				return func(l []int32) { l[1] = 99 }
			}
			return nil
		}, want: errAny},
		{name: "sink fails", emit: func(b *pipeline.Batch) error { b.Record.Release(); return boom }, want: boom},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
			defer mem.AssertSize(t, 0)
			loads, j := 0, newJournal()
			s := trainStage(t, smallNet+"epochs: 1\nlog_every: 1", func(e net.Engine) net.Engine {
				return &spy{Engine: e, journal: j, onLoad: func() error {
					loads++
					if tt.on != nil {
						return tt.on(loads - 1)
					}
					return nil
				}}
			})
			emit := discard
			if tt.emit != nil {
				emit = tt.emit
			}
			var held atomic.Int64
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			prepare(t, s, env(6))
			var err error
			for n := range 4 {
				var edit func([]int32)
				if tt.labels != nil {
					edit = tt.labels(n)
				}
				if n > 0 && n == tt.cancel {
					cancel()
				}
				b := batch(mem, 0, n, n*6, 6, edit)
				held.Add(1)
				b.Record = counted{b.Record, &held}
				record := b.Record
				err = s.Process(ctx, b, emit)
				record.Release()
				if err != nil {
					break
				}
			}
			if err == nil {
				err = s.Flush(ctx, emit)
			}
			if !is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if n := held.Load(); n != 0 {
				t.Errorf("%d records are still held", n)
			}
			// An engine need not wait for a load by itself when it is closed.
			if slices.Contains(j.events, "closed while it loads") {
				t.Error("an input was closed while a batch was loaded into it")
			}
		})
	}
}

func TestTrainValidatesAtTheEndOfEpochs(t *testing.T) {
	for _, tt := range []struct {
		every string
		want  []int // epochs with a validation
	}{{"1", []int{0, 1, 2}}, {"2", []int{1, 2}}, {"0", []int{2}}} {
		s := trainStage(t, smallNet+"epochs: 3\nvalidate_every: "+tt.every, nil)
		e := env(6)
		calls := 0
		e.Validate = func(ctx context.Context, v pipeline.BatchStage) error {
			calls++
			return feedBatches(ctx, v, 0, 1000, []int{6, 3}, discard)
		}
		var out outbox
		run(t, s, e, 2, 3, out.emit)
		var epochs []int
		for _, m := range out.of("validation") {
			epochs = append(epochs, m.Epoch)
			if m.Step != (m.Epoch+1)*2 {
				t.Errorf("the validation of epoch %d is of step %d", m.Epoch, m.Step)
			}
			if m.Loss <= 0 || m.Top5 < m.Top1 || m.ImagesPerSecond <= 0 || m.Seconds <= 0 {
				t.Errorf("validation %+v makes no sense", m)
			}
		}
		if !slices.Equal(epochs, tt.want) || calls != len(tt.want) {
			t.Errorf("validate_every %s: validated after epochs %v in %d calls, want %v", tt.every, epochs, calls, tt.want)
		}
		last, done := out.of("validation"), out.of("done")
		if len(done) != 1 || out.order[len(out.order)-1] != "done" {
			t.Fatalf("events %v do not end in the only done", out.order)
		}
		if l, d := last[len(last)-1], done[0]; l.Loss != d.Loss || l.Top1 != d.Top1 || l.Top5 != d.Top5 {
			t.Errorf("done %+v is not the last validation %+v", d, l)
		}
		if tt.every == "1" {
			each := []string{"step", "validation", "weights"}
			want := append(slices.Concat(each, each, each), "done")
			if !slices.Equal(out.order, want) {
				t.Errorf("emitted %v, want %v", out.order, want)
			}
		}
	}
}

// The metrics of many steps are the averages of those of single steps, and the
// first loss is that of the untrained network.
func TestTrainMetrics(t *testing.T) {
	rows := func(every string) []pipeline.Metric {
		var out outbox
		run(t, trainStage(t, smallNet+"epochs: 2\nlog_every: "+every, nil), env(6), 5, 2, out.emit)
		return out.metrics
	}
	single, three := rows("1"), rows("3")
	if len(single) != 11 || len(three) != 5 {
		t.Fatalf("%d and %d metrics, want 10 steps and 4 averages, and a done each", len(single), len(three))
	}
	for i, of := range [][]pipeline.Metric{single[0:3], single[3:5], single[5:8], single[8:10]} {
		var loss, top1, top5 float64
		for _, m := range of {
			n := float64(len(of))
			loss, top1, top5 = loss+m.Loss/n, top1+m.Top1/n, top5+m.Top5/n
		}
		m, end := three[i], of[len(of)-1]
		if !near(m.Loss, loss) || !near(m.Top1, top1) || !near(m.Top5, top5) {
			t.Errorf("average %+v, want loss %g, top1 %g, top5 %g", m, loss, top1, top5)
		}
		if m.Event != "step" || m.Epoch != end.Epoch || m.Step != end.Step || m.LR != end.LR {
			t.Errorf("average %+v, want it to be of %+v", m, end)
		}
	}
	for i, m := range single[:10] {
		if m.Step != i+1 || m.Epoch != i/5 || m.LR != 0.05 {
			t.Errorf("step %d is %+v", i, m)
		}
		if i > 0 && m.Seconds < single[i-1].Seconds {
			t.Errorf("time runs backwards to %+v", m)
		}
	}
	done := three[4]
	var loss float64
	for _, m := range single[5:10] {
		loss += m.Loss / 5
	}
	if done.Event != "done" || !near(done.Loss, loss) || done.Step != 10 || done.Epoch != 1 {
		t.Errorf("done %+v, want the training averages of the last epoch (loss %g), as there is no validation", done, loss)
	}
	if done.ImagesPerSecond <= 0 {
		t.Errorf("done %+v has no throughput", done)
	}
	network, in, engine := untrained(t, 6)
	defer engine.Close()
	load(t, in, 0, 6)
	if err := network.Forward(t.Context(), in, 0, true); err != nil {
		t.Fatal(err)
	}
	want, err := network.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if first := single[0]; !near(first.Loss, want.Loss/6) || !near(first.Top1, float64(want.Top1)/6) {
		t.Errorf("first step %+v, want that of the untrained network %+v", first, want)
	}
}

// Validation is no training: its time is in no throughput.
func TestTrainLeavesValidationOutOfItsThroughput(t *testing.T) {
	e := env(6)
	e.Validate = func(ctx context.Context, v pipeline.BatchStage) error {
		time.Sleep(300 * time.Millisecond)
		return feedBatches(ctx, v, 0, 1000, []int{6}, discard)
	}
	var out outbox
	began := time.Now()
	run(t, trainStage(t, smallNet+"epochs: 3", nil), e, 2, 3, out.emit)
	rest := time.Since(began).Seconds() - 0.9
	done := out.of("done")[0]
	if trained := 36 / done.ImagesPerSecond; trained > done.Seconds-0.9 {
		t.Errorf("done %+v: 36 images in %g s of training, of which 0.9 s were validation", done, trained)
	}
	// In seconds, as a step of this network is so short that any delay is most of it.
	var waited float64
	for _, m := range out.of("step") {
		waited += m.InputWait * 12 / m.ImagesPerSecond
	}
	if waited > rest {
		t.Errorf("it waited %g s for its input, in %g s that were not validation", waited, rest)
	}
}

// The stage does what its parts do one after the other, to the bit: forward,
// backward, and the update with the solver's numbers.
func TestTrainStepsByTheSolver(t *testing.T) {
	for _, form := range []net.MomentumForm{net.PaperMomentum, net.TorchMomentum, net.NesterovMomentum} {
		t.Run(form.String(), func(t *testing.T) { stepsByTheSolver(t, form) })
	}
}

func stepsByTheSolver(t *testing.T, form net.MomentumForm) {
	s := trainStage(t, smallNet+"epochs: 1\nsolver: {lr: 0.03, momentum: 0.8, weight_decay: 0.01, momentum_form: "+form.String()+"}", nil)
	prepare(t, s, env(6))
	defer s.Close()
	for n := range 4 { // three steps
		process(t, s, batch(memory.DefaultAllocator, 0, n, n*6, 6, nil), discard)
	}
	got, err := s.net.Snapshot(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	network, in, engine := untrained(t, 6)
	defer engine.Close()
	for n := range 3 {
		load(t, in, n*6, 6)
		if err := network.Forward(t.Context(), in, n, true); err != nil {
			t.Fatal(err)
		}
		network.Backward(t.Context())
		network.Update(net.SGD{LR: 0.03, Momentum: 0.8, Decay: 0.01, Form: form})
	}
	want, err := network.Snapshot(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	sameTensors(t, "after three steps", got, want)
}

// The schedule is told how each epoch went: with this threshold no epoch is
// better than the first, so the rate falls after every later one.
func TestTrainFollowsItsSchedule(t *testing.T) {
	var out outbox
	s := trainStage(t, smallNet+"epochs: 4\nsolver: {lr: 0.08, schedule: {plateau: {factor: 0.5, patience: 1, threshold: 1}}}", nil)
	run(t, s, env(6), 2, 4, out.emit)
	var rates []float64
	for _, m := range out.of("step") {
		rates = append(rates, m.LR)
	}
	if want := []float64{0.08, 0.08, 0.04, 0.02}; !slices.Equal(rates, want) {
		t.Errorf("learning rates %v, want %v", rates, want)
	}
}

func TestTrainSaysWhatItWaitsFor(t *testing.T) {
	var slow outbox
	s := trainStage(t, smallNet+"epochs: 1\nlog_every: 3", nil)
	e := env(3)
	prepare(t, s, e)
	defer s.Close()
	emit := func(b *pipeline.Batch) error {
		time.Sleep(200 * time.Millisecond)
		return slow.emit(b)
	}
	for n := range 7 {
		if n > 0 && n < 4 {
			time.Sleep(100 * time.Millisecond) // the source, in the first window
		}
		process(t, s, batch(memory.DefaultAllocator, 0, n, 0, 3, nil), emit)
	}
	m := slow.of("step")
	if len(m) != 2 {
		t.Fatalf("%d step metrics, want 2", len(m))
	}
	// In seconds of waiting for nine images: a busy machine makes the rest longer, and these no shorter.
	if waited := m[0].InputWait * 9 / m[0].ImagesPerSecond; waited < 0.299 || m[0].SinkWait != 0 {
		t.Errorf("first metric %+v should wait for its input for 0.3 s, and does for %g s", m[0], waited)
	}
	if waited := m[1].SinkWait * 9 / m[1].ImagesPerSecond; waited < 0.199 {
		t.Errorf("second metric %+v should wait for the sink of the first for 0.2 s, and does for %g s", m[1], waited)
	}
	for _, m := range m {
		if m.InputWait > 1 || m.SinkWait > 1 || m.InputWait+m.SinkWait > 1 {
			t.Errorf("metric %+v waits longer than there is time", m)
		}
	}
}

func TestTrainNamesTheSampleWithABadLabel(t *testing.T) {
	for label, want := range map[int32]string{3: "label 3 is not among the 3 classes (0 to 2)", -1: "it has no label"} {
		s := trainStage(t, smallNet+"epochs: 1", nil)
		prepare(t, s, env(6))
		b := batch(memory.DefaultAllocator, 4, 9, 60, 6, func(l []int32) { l[2] = label })
		err := s.Process(t.Context(), b, discard)
		var e *pipeline.Error
		if !errors.As(err, &e) || e.Name != "picture 62" || e.Key != (pipeline.Key{Epoch: 4, Index: 62}) || !strings.Contains(err.Error(), want) {
			t.Errorf("label %d: error %v, want picture 62 of epoch 4 and %q", label, err, want)
		}
		b.Record.Release()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A run that diverges says where and what to try, and hands out no weights.
func TestTrainStopsWhenItDiverges(t *testing.T) {
	s := trainStage(t, smallNet+"epochs: 1\nsolver: {lr: 1e30}", nil)
	prepare(t, s, env(6))
	defer s.Close()
	var out outbox
	var err error
	for n := range 6 {
		b := batch(memory.DefaultAllocator, 0, n, n*6, 6, nil)
		err = s.Process(t.Context(), b, out.emit)
		b.Record.Release()
		if err != nil {
			break
		}
	}
	if err == nil {
		err = s.Flush(t.Context(), out.emit)
	}
	if err == nil || !strings.Contains(err.Error(), "epoch 1, step 1: the loss is ") || !strings.Contains(err.Error(), "try a lower solver.lr (it is 1e+30 now)") ||
		!strings.HasSuffix(err.Error(), "the weights are still those after step 1; the batch's images are picture 6, picture 7, picture 8, picture 9, picture 10, picture 11") {
		t.Errorf("error %v", err)
	}
	if rows := out.of("lost"); len(rows) != 1 || rows[0].Step != 1 || !strings.HasSuffix(err.Error(), rows[0].Text) {
		t.Errorf("metrics %+v", rows)
	}
	if out.weights != nil {
		t.Error("weights were handed out all the same")
	}
}

// Weights that are not finite never reach a sink, even if the loss was: here the
// only step is the one that breaks them.
func TestTrainHandsOutNoBrokenWeights(t *testing.T) {
	s := trainStage(t, smallNet+"epochs: 1\nsolver: {lr: 3e38, weight_decay: 10}", nil)
	prepare(t, s, env(6))
	defer s.Close()
	var out outbox
	process(t, s, batch(memory.DefaultAllocator, 0, 0, 0, 6, nil), out.emit)
	err := s.Flush(t.Context(), out.emit)
	if err == nil || !strings.Contains(err.Error(), "weight has become") {
		t.Errorf("error %v", err)
	}
	if out.weights != nil {
		t.Error("weights were handed out all the same")
	}
}

// A cancellation stops a step at once, but never in the middle of the update.
func TestTrainIsCancelledBetweenSteps(t *testing.T) {
	cause := errors.New("the user had enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	s := trainStage(t, smallNet+"epochs: 1", func(e net.Engine) net.Engine {
		return &atUpdate{Engine: e, do: func() { cancel(cause) }}
	})
	prepare(t, s, env(6))
	defer s.Close()
	var got []net.NamedTensor
	for n := range 3 {
		b := batch(memory.DefaultAllocator, 0, n, n*6, 6, nil)
		err := s.Process(ctx, b, discard)
		b.Record.Release()
		switch {
		case n < 2 && err != nil:
			t.Fatalf("batch %d: %v; the update that was under way should have been finished", n, err)
		case n == 2 && !errors.Is(err, cause):
			t.Fatalf("batch %d: %v, want the cause of the cancellation", n, err)
		case n == 1:
			var err error
			if got, err = s.net.Snapshot(nil, true); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The weights are those of one whole step.
	whole := trainStage(t, smallNet+"epochs: 1", nil)
	prepare(t, whole, env(6))
	defer whole.Close()
	for n := range 2 {
		process(t, whole, batch(memory.DefaultAllocator, 0, n, n*6, 6, nil), discard)
	}
	want, err := whole.net.Snapshot(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	sameTensors(t, "after the cancelled step", got, want)
	after, err := s.net.Snapshot(nil, true)
	if err == nil {
		sameTensors(t, "after the step that was not computed", after, want)
	}
}

// atUpdate does something when the first parameter is updated.
type atUpdate struct {
	net.Engine
	do func()
}

func (a *atUpdate) SGD(w, v, dw *net.Tensor, o net.SGD) {
	if a.do != nil {
		a.do()
		a.do = nil
	}
	a.Engine.SGD(w, v, dw, o)
}

func TestTrainRefusesALineItCannotLearnFrom(t *testing.T) {
	for _, tt := range []struct {
		name, net string
		edit      func(*pipeline.Env)
		want      string
	}{
		{"no classes", smallNet, func(e *pipeline.Env) { e.Classes = nil }, "the source knows no classes"},
		{"one class", smallNet, func(e *pipeline.Env) { e.Classes = []string{"cat"} }, `has only "cat"`},
		{"large validation batch", smallNet, func(e *pipeline.Env) { e.ValidationBatch = 7 }, "validation batches of 7 do not fit"},
		{"width", wideNet, func(*pipeline.Env) {}, "5 outputs, and there are 3 classes"},
		{"too small an image", smallNet, func(e *pipeline.Env) { e.Frame = pipeline.Frame{W: 1, H: 1} }, ""},
	} {
		s := trainStage(t, tt.net+"epochs: 1", nil)
		e := env(6)
		tt.edit(e)
		if _, err := s.Plan(e); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
	s := trainStage(t, smallNet+"epochs: 1", nil)
	prepare(t, s, env(6))
	defer s.Close()
	if err := s.Flush(t.Context(), discard); err == nil || !strings.Contains(err.Error(), "smaller than one batch") {
		t.Errorf("a run without a batch: error %v", err)
	}
}

func TestTrainChecksItsOptions(t *testing.T) {
	good := trainOptions(t, smallNet+"epochs: 1")
	for want, edit := range map[string]func(*TrainOptions){
		"epochs must be from 1 to 1000000000, is 0": func(o *TrainOptions) { o.Epochs = 0 },
		"log_every must be at least 1, is -1":       func(o *TrainOptions) { o.LogEvery = -1 },
		"validate_every must be at least 0":         func(o *TrainOptions) { o.ValidateEvery = -1 },
		`device must be auto, cpu or cuda, is "tp`:  func(o *TrainOptions) { o.Device = "tpu" },
	} {
		o := good
		edit(&o)
		if _, err := NewTrain(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// check shows the largest network without allocating any of it.
func TestTrainPlansWithoutAllocating(t *testing.T) {
	s := trainStage(t, "net: alexnet\nepochs: 90", nil)
	s.open = Open
	e := env(128)
	e.Frame = pipeline.Frame{W: 224, H: 224}
	e.Classes = make([]string, 1000)
	for i := range e.Classes {
		e.Classes[i] = string(rune('a'+i%26)) + string(rune('a'+i/26))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	p, err := s.Plan(e)
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
		t.Errorf("the plan allocated %d bytes", got)
	}
	if p.Epochs != 90 || !p.Train {
		t.Errorf("plan %+v", p)
	}
	var bytes int64
	for _, m := range p.Memory {
		bytes += m.Bytes
	}
	// Weights, momentum and gradient alone are 3 x 4 x 61 M.
	if bytes < 3*4*60_965_224 || bytes > 16<<30 {
		t.Errorf("memory %+v sums to %d", p.Memory, bytes)
	}
	for _, want := range []string{"60,965,224", "conv1", "96x55x55", "227x227"} {
		if !strings.Contains(p.Text, want) {
			t.Errorf("the table lacks %q:\n%s", want, p.Text)
		}
	}
}

// After the first steps a step allocates next to nothing.
func TestTrainStepsAllocateLittle(t *testing.T) {
	s := trainStage(t, smallNet+"epochs: 1\nlog_every: 1000000", nil)
	prepare(t, s, env(6))
	defer s.Close()
	b := batch(memory.DefaultAllocator, 0, 0, 0, 6, nil)
	defer b.Record.Release()
	step := func() {
		if err := s.Process(t.Context(), b, discard); err != nil {
			t.Fatal(err)
		}
		b.Step++
	}
	for range 3 {
		step()
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const steps = 50
	for range steps {
		step()
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) / steps; got > 16<<10 {
		t.Errorf("a step allocates %d bytes", got)
	}
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*(1+math.Abs(b)) }
