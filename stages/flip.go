package stages

import (
	"context"

	"sluice/pipeline"
	"sluice/pipeline/config"
)

func init() {
	pipeline.RegisterSampleStage("flip",
		"Mirror the image left to right, at random.",
		FlipOptions{Probability: 0.5},
		func(o FlipOptions) (pipeline.SampleStage, error) { return NewFlip(o) })
}

// FlipOptions are the options of the flip stage.
type FlipOptions struct {
	Probability float64 `yaml:"probability" doc:"how often, 0 to 1"`
}

// Flip is the sample stage of that name. It edits the View.
type Flip struct{ probability float64 }

// NewFlip makes the stage.
func NewFlip(o FlipOptions) (*Flip, error) {
	if !(o.Probability >= 0 && o.Probability <= 1) {
		return nil, config.Fieldf("probability", "must be 0 to 1, is %g", o.Probability)
	}
	return &Flip{o.Probability}, nil
}

// Random implements pipeline.RandomStage.
func (f *Flip) Random() bool { return true }

// Process edits the View of s.
func (f *Flip) Process(_ context.Context, s *pipeline.Sample) error {
	if !s.HasImage() {
		return pipeline.ErrNoImage
	}
	if s.Rand().Float64() < f.probability {
		s.SetView(s.View().Mirror())
	}
	return nil
}
