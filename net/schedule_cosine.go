package net

import (
	"math"

	"sluice/pipeline/config"
)

func init() {
	RegisterSchedule("cosine", "The learning rate falls along half a cosine, step by step, to final times itself at the end of the run.",
		Cosine{}, func(c Cosine) (ScheduleRule, error) { return c, c.check() })
}

// Cosine lowers the learning rate smoothly over the whole run.
type Cosine struct {
	Final float64 `yaml:"final" doc:"the fraction of the learning rate that is left at the end"`
}

func (c Cosine) check() error {
	if !(c.Final >= 0 && c.Final < 1) {
		return config.Fieldf("final", "must be at least 0 and less than 1, is %g", c.Final)
	}
	return nil
}

// Start begins a run.
func (c Cosine) Start(lr float64, h Horizon) Schedule {
	return &cosine{c, lr, max(1, h.Epochs*h.StepsPerEpoch)}
}

type cosine struct {
	rule  Cosine
	lr    float64
	steps int
}

func (c *cosine) LR(step int) float64 {
	progress := min(1, float64(step)/float64(c.steps))
	return c.lr * (c.rule.Final + (1-c.rule.Final)*(1+math.Cos(math.Pi*progress))/2)
}

func (c *cosine) Observe(float64) {}
