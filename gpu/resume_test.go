package gpu

import (
	"context"
	"errors"
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
