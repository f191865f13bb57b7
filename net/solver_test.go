package net_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"sluice/net"
)

func schedule(t *testing.T, text string, h net.Horizon) net.Schedule {
	t.Helper()
	holder, err := decode(t, "net: alexnet_small\nsolver: "+text)
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Solver.Check(); err != nil {
		t.Fatal(err)
	}
	return holder.Solver.Start(h)
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 1e-12 {
		t.Errorf("%s: %g, want %g", what, got, want)
	}
}

func TestSchedules(t *testing.T) {
	h := net.Horizon{Epochs: 10, StepsPerEpoch: 20}
	for _, c := range []struct {
		text string
		want map[int]float64 // step: rate
	}{
		{"{lr: 0.1}", map[int]float64{0: 0.1, 199: 0.1}},
		{"{lr: 0.1, schedule: constant}", map[int]float64{0: 0.1, 199: 0.1}},
		{"{lr: 0.1, schedule: {multistep: {epochs: [3, 6]}}}", map[int]float64{0: 0.1, 59: 0.1, 60: 0.01, 119: 0.01, 120: 0.001, 199: 0.001}},
		{"{lr: 0.1, schedule: cosine}", map[int]float64{0: 0.1, 50: 0.1 * (1 + math.Sqrt2/2) / 2, 100: 0.05, 200: 0, 1000: 0}},
		{"{lr: 0.1, schedule: {cosine: {final: 0.1}}}", map[int]float64{0: 0.1, 100: 0.055, 200: 0.01}},
		{"{lr: 0.1, schedule: polynomial}", map[int]float64{0: 0.1, 50: 0.075, 199: 0.1 / 200, 200: 0, 1000: 0}},
		{"{lr: 0.1, schedule: {polynomial: {power: 2, final: 0.2}}}", map[int]float64{0: 0.1, 100: 0.04, 200: 0.02}},
		{"{lr: 0.1, warmup: 4}", map[int]float64{0: 0.025, 1: 0.05, 3: 0.1, 4: 0.1}},
		{"{lr: 0.1, warmup: 80, schedule: {multistep: {epochs: [3]}}}", map[int]float64{39: 0.05, 59: 0.075, 60: 0.01 * 61 / 80, 100: 0.01}},
	} {
		s := schedule(t, c.text, h)
		for step, want := range c.want {
			near(t, c.text, s.LR(step), want)
		}
	}
}

// The plateau on recorded validation errors: falling, noisy, then flat.
func TestPlateau(t *testing.T) {
	curve := []float64{
		.90, .80, .72, .65, .60, // falls
		.61, .5995, .62, // none better by 0.001: the third drops the rate
		.50, .45, .44, // falls again
		.4395, .46, .45, // and stops: the second drop
		.45, math.NaN(), .45, // still: the third, and the last allowed
		.45, .45, .45, .45,
	}
	want := []int{0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3}
	const text = "{lr: 0.1, schedule: {plateau: {factor: 0.5, patience: 3}}}"
	s := schedule(t, text, net.Horizon{})
	for i, err := range curve {
		s.Observe(err)
		near(t, "rate", s.LR(i), 0.1*math.Pow(0.5, float64(want[i])))
		// A resumed run has the same rates: go on from the state alone.
		state, e := json.Marshal(s)
		if e != nil {
			t.Fatal(e)
		}
		s = schedule(t, text, net.Horizon{})
		if e := json.Unmarshal(state, s); e != nil {
			t.Fatal(e)
		}
	}
}

// The state of a schedule that warms up is that of the one inside.
func TestWarmupState(t *testing.T) {
	const text = "{lr: 0.1, warmup: 10, schedule: {plateau: {patience: 1}}}"
	a := schedule(t, text, net.Horizon{})
	a.Observe(0.5)
	a.Observe(0.6)
	state, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	b := schedule(t, text, net.Horizon{})
	if err := json.Unmarshal(state, b); err != nil {
		t.Fatal(err)
	}
	for _, step := range []int{0, 5, 20} {
		near(t, "rate", b.LR(step), a.LR(step))
	}
	near(t, "rate after a drop", b.LR(20), 0.01)
}

func TestSolverMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"{schedule: platau}":                                `unknown schedule "platau"; did you mean "plateau"?`,
		"{schedule: {plateau: {factor: 2, patience: 0}}}":   "factor must be greater than 0 and less than 1, is 2",
		"{schedule: {plateau: {factor: 0.1, patience: 0}}}": "patience must be at least 1, is 0",
		"{schedule: {multistep: {}}}":                       `missing field "epochs"`,
		"{schedule: {multistep: {epochs: [3, 3]}}}":         "epochs must be at least 1 and rise, are [3 3]",
		"{schedule: {multistep: {epochs: []}}}":             "epochs must have at least one",
		"{schedule: {cosine: {final: 1}}}":                  "final must be at least 0 and less than 1",
		"{lr: 0}":                                           "solver.lr must be greater than 0, and a number of 32 bits, is 0",
		"{lr: 1e300}":                                       "solver.lr must be greater than 0, and a number of 32 bits, is 1e+300",
		"{lr: 1e-300}":                                      "solver.lr must be greater than 0, and a number of 32 bits, is 1e-300",
		"{weight_decay: 1e39}":                              "solver.weight_decay must not be negative",
		"{momentum: 1}":                                     "solver.momentum must be at least 0 and less than 1",
		"{weight_decay: -1}":                                "solver.weight_decay must not be negative",
		"{warmup: -1}":                                      "solver.warmup must be at least 0",
		"{accumulate: 0}":                                   "solver.accumulate must be at least 1, is 0",
		"{momentum_form: pytorch}":                          `momentum_form must be paper, torch or nesterov, is "pytorch"`,
		"{clip_norm: -1}":                                   "solver.clip_norm must not be negative (0: no clipping), is -1",
		"{clip_value: 1e39}":                                "solver.clip_value must not be negative",
		"{label_smoothing: 1}":                              "solver.label_smoothing must be at least 0 and less than 1, is 1",
	} {
		h, err := decode(t, "net: alexnet_small\nsolver: "+text)
		if err == nil {
			err = h.Solver.Check()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if err := net.DefaultSolver().Check(); err != nil {
		t.Error(err)
	}
}
