package stages

import (
	"context"

	"sluice/pipeline"
)

func init() {
	pipeline.RegisterSampleStage("random_crop",
		"Keep a square of the image at a random place, every place being as likely (section 4.1 of the AlexNet paper).",
		CropOptions{},
		func(o CropOptions) (pipeline.SampleStage, error) { return NewRandomCrop(o) })
}

// RandomCrop is the sample stage of that name. It edits the View.
type RandomCrop struct{ size int }

// NewRandomCrop makes the stage.
func NewRandomCrop(o CropOptions) (*RandomCrop, error) {
	return &RandomCrop{o.Size}, checkSide("size", o.Size)
}

// Frame implements pipeline.Framer.
func (c *RandomCrop) Frame(in pipeline.Frame) (pipeline.Frame, error) { return cropFrame(in, c.size) }

// Random implements pipeline.RandomStage.
func (c *RandomCrop) Random() bool { return true }

// Substitute implements pipeline.Substitute.
func (c *RandomCrop) Substitute() []pipeline.Stand {
	return []pipeline.Stand{{Name: "center_crop", Options: CropOptions{c.size}}}
}

// Process edits the View of s.
func (c *RandomCrop) Process(_ context.Context, s *pipeline.Sample) error {
	w, h, err := cropRoom(s, c.size)
	if err != nil {
		return err
	}
	rng := s.Rand()
	x, y := rng.IntN(w-c.size+1), rng.IntN(h-c.size+1)
	s.SetView(s.View().Crop(x, y, c.size, c.size))
	return nil
}
