package net

import (
	"errors"
	"math"

	"sluice/pipeline/config"
)

func init() {
	RegisterSchedule("polynomial", "The learning rate falls to 0 at the end of the run, step by step, as a power of what is left of it.",
		Polynomial{Power: 1}, func(p Polynomial) (ScheduleRule, error) { return p, p.check() })
}

// Polynomial lowers the learning rate by (1 - step/steps)^power, as Caffe's "poly" does.
type Polynomial struct {
	Power float64 `yaml:"power" doc:"1 is a straight line; 0.5 stays high for longer, 2 falls sooner"`
	Final float64 `yaml:"final" doc:"the fraction of the learning rate that is left at the end"`
}

func (p Polynomial) check() error {
	var errs []error
	if !(p.Power > 0) || math.IsInf(p.Power, 0) {
		errs = append(errs, config.Fieldf("power", "must be greater than 0, is %g", p.Power))
	}
	if !(p.Final >= 0 && p.Final < 1) {
		errs = append(errs, config.Fieldf("final", "must be at least 0 and less than 1, is %g", p.Final))
	}
	return errors.Join(errs...)
}

// Start begins a run.
func (p Polynomial) Start(lr float64, h Horizon) Schedule {
	return &polynomial{p, lr, max(1, h.Epochs*h.StepsPerEpoch)}
}

type polynomial struct {
	rule  Polynomial
	lr    float64
	steps int
}

func (p *polynomial) LR(step int) float64 {
	left := max(0, 1-float64(step)/float64(p.steps))
	return p.lr * (p.rule.Final + (1-p.rule.Final)*math.Pow(left, p.rule.Power))
}

func (p *polynomial) Observe(float64) {}
