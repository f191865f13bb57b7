package net

func init() {
	RegisterSchedule("constant", "The learning rate stays as it is.", Constant{},
		func(c Constant) (ScheduleRule, error) { return c, nil })
}

// Constant keeps the learning rate.
type Constant struct{}

// OpenEnded is true: it does not matter how long the run is.
func (Constant) OpenEnded() bool { return true }

// Start begins a run.
func (Constant) Start(lr float64, _ Horizon) Schedule { return &constant{lr} }

type constant struct{ lr float64 }

func (c *constant) LR(int) float64  { return c.lr }
func (c *constant) Observe(float64) {}
