package host

import (
	"strings"
	"sync/atomic"
	"testing"

	"sluice/gpu/host/simd"
)

// faulty panics in one task.
type faulty struct{ done atomic.Int64 }

func (f *faulty) do(_ *worker, task int) {
	if task == 3 {
		panic("of task 3")
	}
	f.done.Add(1)
}

func TestPanicOfATaskIsAnError(t *testing.T) {
	for threads := 1; threads < 4; threads++ {
		e := New(threads, simd.Generic)
		e.run("Conv", 10, &faulty{})
		err := e.Sync()
		if err == nil || !strings.Contains(err.Error(), "Conv") || !strings.Contains(err.Error(), "of task 3") {
			t.Errorf("%d threads: %v", threads, err)
		}
		var after faulty
		e.run("Conv", 2, &after)
		if after.done.Load() != 0 {
			t.Error("tasks run after an error")
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEveryTaskRunsOnce(t *testing.T) {
	e := New(3, simd.Generic)
	defer e.Close()
	j := &counts{n: make([]atomic.Int64, 1000)}
	for range 20 {
		e.run("Add", len(j.n), j)
	}
	for i := range j.n {
		if n := j.n[i].Load(); n != 20 {
			t.Fatalf("task %d ran %d times in 20 jobs", i, n)
		}
	}
}

type counts struct{ n []atomic.Int64 }

func (c *counts) do(_ *worker, task int) { c.n[task].Add(1) }

func TestPeakIsOfAllThreads(t *testing.T) {
	for _, level := range simd.Levels() {
		one, three := New(1, level), New(3, level)
		a, b := one.Peak(), three.Peak()
		if level == simd.Generic {
			if a != 0 || b != 0 {
				t.Errorf("plain Go has a peak of %g and %g", a, b)
			}
		} else if !(a > 0) || !(b > 0) {
			t.Errorf("%v: the peaks are %g of one thread and %g of three", level, a, b)
		}
		for _, e := range []*Engine{one, three} {
			if err := e.Sync(); err != nil {
				t.Error(err)
			}
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
