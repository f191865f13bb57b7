package net

import (
	"errors"
	"math"

	"sluice/pipeline/config"
)

func init() {
	RegisterSchedule("plateau", "Multiplies the learning rate by factor when the error has not fallen for patience epochs (paper section 5).",
		Plateau{Factor: 0.1, Patience: 5, Threshold: 0.001, MaxDrops: 3},
		func(p Plateau) (ScheduleRule, error) { return p, p.check() })
}

// Plateau lowers the learning rate when learning stops.
type Plateau struct {
	Factor    float64 `yaml:"factor" doc:"what the learning rate is multiplied by"`
	Patience  int     `yaml:"patience" doc:"validations without a better error before the rate falls (epochs, in a run without validation)"`
	Threshold float64 `yaml:"threshold" doc:"by how much an error must be below the best one to be better; 0.001 is a tenth of a point"`
	MaxDrops  int     `yaml:"max_drops" doc:"how often the rate falls at most"`
}

func (p Plateau) check() error {
	errs := []error{checkFactor(p.Factor), atLeast("patience", p.Patience, 1), atLeast("max_drops", p.MaxDrops, 0)}
	if !(p.Threshold >= 0) {
		errs = append(errs, config.Fieldf("threshold", "must not be negative, is %g", p.Threshold))
	}
	return errors.Join(errs...)
}

func checkFactor(f float64) error {
	if !(f > 0 && f < 1) {
		return config.Fieldf("factor", "must be greater than 0 and less than 1, is %g", f)
	}
	return nil
}

// OpenEnded is true: it does not matter how long the run is.
func (Plateau) OpenEnded() bool { return true }

// Start begins a run.
func (p Plateau) Start(lr float64, _ Horizon) Schedule { return &plateau{rule: p, lr: lr} }

type plateau struct {
	rule Plateau
	lr   float64

	Seen  bool    `json:"seen"` // an error, ever
	Best  float64 `json:"best"` // of the errors seen
	Bad   int     `json:"bad"`  // epochs since then
	Drops int     `json:"drops"`
}

func (p *plateau) LR(int) float64 { return p.lr * math.Pow(p.rule.Factor, float64(p.Drops)) }

func (p *plateau) Observe(err float64) {
	if !math.IsNaN(err) && (!p.Seen || err < p.Best-p.rule.Threshold) {
		p.Seen, p.Best, p.Bad = true, err, 0
		return
	}
	if p.Bad++; p.Bad >= p.rule.Patience && p.Drops < p.rule.MaxDrops {
		p.Bad = 0
		p.Drops++
	}
}
