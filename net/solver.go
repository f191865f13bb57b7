package net

import (
	"errors"
	"math"

	"go.yaml.in/yaml/v3"

	"sluice/pipeline/config"
)

// Solver is how a network learns: stochastic gradient descent with momentum and
// weight decay by the paper's rule (section 5), see Ops.SGD.
type Solver struct {
	LR       float64 `yaml:"lr" doc:"learning rate at the start"`
	Momentum float64 `yaml:"momentum" doc:"how much of the last step is repeated"`
	// Form is how momentum and a rate that changes go together.
	Form        MomentumForm   `yaml:"momentum_form" doc:"paper: what is repeated is a step, made at the rate of its time (the paper, cuda-convnet, Caffe); torch: it is a gradient, and takes today's rate (PyTorch); nesterov: PyTorch's, with nesterov. The first two are the same while the rate is"`
	WeightDecay float64        `yaml:"weight_decay" doc:"pulls every weight towards 0, times the learning rate"`
	Warmup      int            `yaml:"warmup" doc:"steps in which the learning rate rises from 0, in equal parts"`
	Schedule    ScheduleChoice `yaml:"schedule" doc:"how the learning rate falls: constant, plateau, multistep, polynomial or cosine"`
	// Accumulate counts batches, each of which is a step of its own.
	Accumulate     int     `yaml:"accumulate" doc:"batches whose mean gradient makes one update of the weights, in the memory of one and a second gradient; an epoch's last update may be of fewer. Each batch is a step"`
	ClipNorm       float64 `yaml:"clip_norm" doc:"shrinks the gradient where the norm of all of it (grad_norm in the metrics) is greater; 0: never"`
	ClipValue      float64 `yaml:"clip_value" doc:"holds each number of the gradient within minus this and this, after clip_norm; 0: not"`
	LabelSmoothing float64 `yaml:"label_smoothing" doc:"part of a label's weight that is shared among all classes, as 0.1; the loss in training is of such labels, that of a validation is not"`
}

// DefaultSolver has the paper's numbers, and a constant rate.
func DefaultSolver() Solver {
	return Solver{LR: 0.01, Momentum: 0.9, WeightDecay: 0.0005, Accumulate: 1}
}

// Check finds mistakes; the solver is taken to be the field "solver".
func (s Solver) Check() error {
	var errs []error
	// An update multiplies by it in 32 bits, where it must not be 0 or infinite.
	if rate := float32(s.LR); !(rate > 0) || math.IsInf(float64(rate), 0) {
		errs = append(errs, config.Fieldf("solver.lr", "must be greater than 0, and a number of 32 bits, is %g", s.LR))
	}
	if !(s.Momentum >= 0 && s.Momentum < 1) {
		errs = append(errs, config.Fieldf("solver.momentum", "must be at least 0 and less than 1, is %g", s.Momentum))
	}
	if !(s.WeightDecay >= 0 && s.WeightDecay <= math.MaxFloat32) {
		errs = append(errs, config.Fieldf("solver.weight_decay", "must not be negative, nor beyond a number of 32 bits, is %g", s.WeightDecay))
	}
	for _, f := range []struct {
		name  string
		value float64
	}{{"solver.clip_norm", s.ClipNorm}, {"solver.clip_value", s.ClipValue}} {
		if !(f.value >= 0 && f.value <= math.MaxFloat32) {
			errs = append(errs, config.Fieldf(f.name, "must not be negative (0: no clipping), is %g", f.value))
		}
	}
	if !(s.LabelSmoothing >= 0 && s.LabelSmoothing < 1) {
		errs = append(errs, config.Fieldf("solver.label_smoothing", "must be at least 0 and less than 1, is %g", s.LabelSmoothing))
	}
	errs = append(errs, atLeast("solver.accumulate", s.Accumulate, 1))
	return errors.Join(append(errs, atLeast("solver.warmup", s.Warmup, 0))...)
}

// OpenEnded reports whether the learning rates are the same however many epochs
// the run has, so that one may be resumed with more.
func (s Solver) OpenEnded() bool {
	o, ok := s.Schedule.rule().(OpenEnded)
	return ok && o.OpenEnded()
}

// Start begins a run with the solver's schedule.
func (s Solver) Start(h Horizon) Schedule {
	running := s.Schedule.rule().Start(s.LR, h)
	if s.Warmup > 0 {
		running = &warmup{Schedule: running, steps: s.Warmup}
	}
	return running
}

// Horizon is how long a run is.
type Horizon struct{ Epochs, StepsPerEpoch int }

// Schedule gives the learning rate of a run. What json.Marshal makes of it is
// its state; json.Unmarshal into one that was started alike goes on from there.
type Schedule interface {
	// LR is the learning rate of a step, counted from 0 over the whole run.
	LR(step int) float64
	// Observe is told the error (1 - top-1 accuracy) of each validation, or in a run
	// without one that of training after each epoch.
	Observe(err float64)
}

// ScheduleRule is a schedule with its options, before a run.
type ScheduleRule interface {
	// Start begins a run whose first learning rate is lr.
	Start(lr float64, h Horizon) Schedule
}

// OpenEnded is a ScheduleRule that can say whether it does not depend on
// Horizon.Epochs. One without it is taken to depend on it.
type OpenEnded interface{ OpenEnded() bool }

// Schedules is the registry of schedules that a YAML can name.
var Schedules = config.NewRegistry[ScheduleRule]("schedule")

// RegisterSchedule makes a schedule known to the YAML, see pipeline.RegisterSource.
func RegisterSchedule[C any](name, doc string, defaults C, build func(C) (ScheduleRule, error)) {
	config.Add(Schedules, name, doc, defaults, build)
}

// ScheduleChoice is a schedule as the YAML names it; its zero value is constant.
type ScheduleChoice struct{ item *config.Item[ScheduleRule] }

func (s ScheduleChoice) rule() ScheduleRule {
	if s.item == nil {
		return Constant{}
	}
	return s.item.Value
}

// UnmarshalConfig reads `name` or `name: {options}`.
func (s *ScheduleChoice) UnmarshalConfig(d *config.Decoder, n *yaml.Node) {
	if item, ok := Schedules.Decode(d, n); ok {
		s.item = &item
	}
}

// MarshalYAML gives the resolved form.
func (s ScheduleChoice) MarshalYAML() (any, error) {
	if s.item == nil {
		return map[string]struct{}{"constant": {}}, nil
	}
	return *s.item, nil
}

// ConfigType says what the YAML takes.
func (ScheduleChoice) ConfigType() string { return "a schedule, or a schedule with options" }

// Choice gives the options of a schedule.
func (ScheduleChoice) Choice(name string) any { return Schedules.Choice(name) }

// warmup lets another schedule begin gently.
type warmup struct {
	Schedule `json:"schedule"`
	steps    int
}

func (w *warmup) LR(step int) float64 {
	return w.Schedule.LR(step) * min(1, float64(step+1)/float64(w.steps))
}
