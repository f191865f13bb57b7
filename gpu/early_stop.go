package gpu

import (
	"errors"
	"math"

	"sluice/pipeline/config"
)

// EarlyStop are the options of ending a run that learns no more.
type EarlyStop struct {
	Patience  int     `yaml:"patience" doc:"validations without a better error after which the run ends (epochs, in a run without validation); 0: never"`
	Threshold float64 `yaml:"threshold" doc:"by how much an error must be below the best one to be better; 0.001 is a tenth of a point"`
}

func (o EarlyStop) check() error {
	var errs []error
	if o.Patience < 0 {
		errs = append(errs, config.Fieldf("early_stop.patience", "must be at least 0, is %d", o.Patience))
	}
	if !(o.Threshold >= 0) {
		errs = append(errs, config.Fieldf("early_stop.threshold", "must not be negative, is %g", o.Threshold))
	}
	return errors.Join(errs...)
}

// stall is how long a run has not become better.
type stall struct {
	Seen bool    `json:"seen"` // an error, ever
	Best float64 `json:"best"` // of the errors seen
	Bad  int     `json:"bad"`  // errors since then
}

func (s *stall) observe(err float64, o EarlyStop) {
	if !math.IsNaN(err) && (!s.Seen || err < s.Best-o.Threshold) {
		*s = stall{Seen: true, Best: err}
		return
	}
	s.Bad++
}

// enough reports whether the run is to end.
func (s *stall) enough(o EarlyStop) bool { return o.Patience > 0 && s.Bad >= o.Patience }
