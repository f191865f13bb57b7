package gpu

import (
	"math"
	"strings"
	"testing"
)

func TestStall(t *testing.T) {
	o := EarlyStop{Patience: 3, Threshold: 0.01}
	var s stall
	for i, c := range []struct {
		err    float64
		enough bool
	}{
		{0.9, false}, {0.8, false}, {0.795, false}, {math.NaN(), false}, {0.78, false}, // better in time
		{0.78, false}, {0.771, false}, {0.9, true}, {0.9, true}, {0.1, false},
	} {
		s.observe(c.err, o)
		if s.enough(o) != c.enough {
			t.Errorf("after error %d (%g): %+v", i, c.err, s)
		}
	}
	for range 100 {
		s.observe(1, EarlyStop{})
	}
	if s.enough(EarlyStop{}) {
		t.Error("a patience of 0 has an end")
	}
}

func TestEarlyStopOptions(t *testing.T) {
	o := TrainOptions{Epochs: 1, LogEvery: 1, Device: CPU, EarlyStop: EarlyStop{Patience: -1, Threshold: math.NaN()}}
	_, err := NewTrain(o)
	for _, want := range []string{"early_stop.patience", "early_stop.threshold"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, without %q", err, want)
		}
	}
}
