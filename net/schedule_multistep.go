package net

import (
	"errors"
	"math"
	"slices"

	"sluice/pipeline/config"
)

func init() {
	RegisterSchedule("multistep", "Multiplies the learning rate by factor at the beginning of given epochs.",
		MultiStep{Factor: 0.1}, func(m MultiStep) (ScheduleRule, error) { return m, m.check() })
}

// MultiStep lowers the learning rate at fixed times.
type MultiStep struct {
	Epochs []int   `yaml:"epochs" config:"required" doc:"epochs, counted from 0, at whose beginning the rate falls; rising"`
	Factor float64 `yaml:"factor" doc:"what the learning rate is multiplied by"`
}

func (m MultiStep) check() error {
	var errs []error
	for i, e := range m.Epochs {
		if e < 1 || i > 0 && e <= m.Epochs[i-1] {
			errs = append(errs, config.Fieldf("epochs", "must be at least 1 and rise, are %v", m.Epochs))
			break
		}
	}
	if len(m.Epochs) == 0 {
		errs = append(errs, config.Fieldf("epochs", "must have at least one; without any, use constant"))
	}
	return errors.Join(append(errs, checkFactor(m.Factor))...)
}

// OpenEnded is true: it does not matter how long the run is.
func (MultiStep) OpenEnded() bool { return true }

// Start begins a run.
func (m MultiStep) Start(lr float64, h Horizon) Schedule { return &multiStep{m, lr, h} }

type multiStep struct {
	rule    MultiStep
	lr      float64
	horizon Horizon
}

func (m *multiStep) LR(step int) float64 {
	epoch := step / max(1, m.horizon.StepsPerEpoch)
	passed, found := slices.BinarySearch(m.rule.Epochs, epoch)
	if found {
		passed++
	}
	return m.lr * math.Pow(m.rule.Factor, float64(passed))
}

func (m *multiStep) Observe(float64) {}
