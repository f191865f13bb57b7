package gpu

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/memory"

	"sluice/net"
	"sluice/pipeline"
)

// checkpointsOf takes the steps of the checkpoints that a stage emits.
func checkpointsOf(steps *[]int) pipeline.Emit {
	return func(b *pipeline.Batch) error {
		defer b.Record.Release()
		if b.Kind == pipeline.Checkpoint {
			*steps = append(*steps, b.Step)
		}
		return nil
	}
}

// What an interrupted stage saves is its last whole step: nothing before the
// first, nothing twice, and nothing of an update that has failed half way.
func TestStopSavesWholeStepsOnly(t *testing.T) {
	broken := errors.New("the device is gone")
	for name, c := range map[string]struct {
		batches int
		fail    bool
		want    int // the step saved; 0: none
	}{
		"before a step": {batches: 1},
		"after two":     {batches: 3, want: 2},
		"half a step":   {batches: 3, fail: true},
	} {
		t.Run(name, func(t *testing.T) {
			var engines []*atUpdate // Plan and Prepare open some only to ask
			var failing bool
			s := trainStage(t, smallNet+"epochs: 1", func(e net.Engine) net.Engine {
				at := &atUpdate{Engine: e}
				engines = append(engines, at)
				return &failingSync{at, func() error {
					if failing {
						return broken
					}
					return nil
				}}
			})
			e := env(6)
			e.Checkpoints = &pipeline.Checkpoints{}
			prepare(t, s, e)
			defer s.Close()
			var steps []int
			emit := checkpointsOf(&steps)
			for n := range c.batches {
				if c.fail && n == c.batches-1 {
					for _, at := range engines {
						at.do = func() { failing = true }
					}
				}
				err := s.Process(t.Context(), batch(memory.DefaultAllocator, 0, n, n*6, 6, nil), emit)
				if c.fail && n == c.batches-1 {
					if !errors.Is(err, broken) {
						t.Fatalf("error is %v", err)
					}
					failing = false
				} else if err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				if err := s.Stop(context.WithoutCancel(t.Context()), emit); err != nil {
					t.Fatal(err)
				}
			}
			if c.want == 0 && len(steps) > 0 || c.want > 0 && (len(steps) != 1 || steps[0] != c.want) {
				t.Errorf("saved the steps %v, want %d", steps, c.want)
			}
		})
	}
}

// A checkpoint that did not reach the sinks, because the run was interrupted while it
// was on its way, is saved by Stop, with the accuracy that it had.
func TestStopSavesWhatDidNotArrive(t *testing.T) {
	e := env(6)
	e.Checkpoints = &pipeline.Checkpoints{Epochs: 1}
	e.Validate = validating([]int{6})
	s := trainStage(t, smallNet+"epochs: 2", nil)
	prepare(t, s, e)
	defer s.Close()
	interrupted := errors.New("interrupted")
	emit := func(b *pipeline.Batch) error {
		defer b.Record.Release()
		if b.Kind == pipeline.Checkpoint {
			return interrupted
		}
		return nil
	}
	process(t, s, batch(memory.DefaultAllocator, 0, 0, 0, 6, nil), emit)
	next := batch(memory.DefaultAllocator, 1, 1, 0, 6, nil)
	defer next.Record.Release()
	if err := s.Process(t.Context(), next, emit); !errors.Is(err, interrupted) {
		t.Fatalf("error is %v", err)
	}
	saved := 0
	err := s.Stop(t.Context(), func(b *pipeline.Batch) error {
		defer b.Record.Release()
		saved++
		_, meta, err := net.TensorsOf(b.Record)
		if b.Step != 1 || b.Cursor != (pipeline.Cursor{Epoch: 1}) || meta["validation_top1"] == "" {
			t.Errorf("saved step %d, %+v, top-1 %q", b.Step, b.Cursor, meta["validation_top1"])
		}
		return err
	})
	if err != nil || saved != 1 {
		t.Errorf("%d checkpoints were saved (%v), want 1", saved, err)
	}
}

// A run that its bound on steps ends within an epoch, and that is interrupted after it
// has measured what it has, is resumed within that epoch.
func TestStopKeepsAnEpochThatIsCutOpen(t *testing.T) {
	e := env(6)
	e.Checkpoints = &pipeline.Checkpoints{}
	e.StopAfter = 2
	s := trainStage(t, smallNet+"epochs: 1", nil)
	prepare(t, s, e)
	defer s.Close()
	interrupted := errors.New("interrupted")
	var cursors []pipeline.Cursor
	emit := func(b *pipeline.Batch) error {
		defer b.Record.Release()
		switch b.Kind {
		case pipeline.Checkpoint:
			cursors = append(cursors, b.Cursor)
		case pipeline.Metrics:
			if rows, err := pipeline.MetricsOf(b.Record); err != nil || rows[0].Event == "done" {
				return errors.Join(interrupted, err)
			}
		}
		return nil
	}
	for n := range 2 {
		b := batch(memory.DefaultAllocator, 0, n, n*6, 6, nil)
		b.Cursor = pipeline.Cursor{Pos: 6 * (n + 1)}
		process(t, s, b, emit)
	}
	if err := s.Flush(t.Context(), emit); !errors.Is(err, interrupted) {
		t.Fatalf("error is %v", err)
	}
	if err := s.Stop(t.Context(), emit); err != nil {
		t.Fatal(err)
	}
	if want := []pipeline.Cursor{{Pos: 12}}; !slices.Equal(cursors, want) {
		t.Errorf("checkpoints go on at %+v, want %+v", cursors, want)
	}
}

// failingSync fails when it is told to.
type failingSync struct {
	*atUpdate
	fails func() error
}

func (f *failingSync) Sync() error { return errors.Join(f.fails(), f.atUpdate.Sync()) }

func TestDifferences(t *testing.T) {
	old := []string{`a.b: "1"`, `a.c: "x: y"`, `gone: "2"`}
	now := []string{`a.b: "1"`, `a.c: "x: z"`, `new: "3"`}
	want := `a.c: "x: z", was "x: y"|new: "3", was not there|gone: is gone, was "2"`
	if got := strings.Join(differences(old, now), "|"); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if got := differences(old, old); got != nil {
		t.Errorf("the same differs: %v", got)
	}
}
