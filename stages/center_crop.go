package stages

import (
	"context"
	"fmt"

	"sluice/augment"
	"sluice/pipeline"
	"sluice/pipeline/config"
)

func init() {
	pipeline.RegisterSampleStage("center_crop",
		"Keep the middle of the image. The first crop after a resize is the canvas that later crop origins, and a mean image, belong to.",
		CropOptions{},
		func(o CropOptions) (pipeline.SampleStage, error) { return NewCenterCrop(o) })
}

// CropOptions are the options of the crops.
type CropOptions struct {
	Size int `yaml:"size" config:"required" doc:"width and height to keep, in pixels; a smaller image is an error"`
}

// CenterCrop is the sample stage of that name. It edits the View; an odd rest is rounded as torchvision does.
type CenterCrop struct{ size int }

// NewCenterCrop makes the stage.
func NewCenterCrop(o CropOptions) (*CenterCrop, error) {
	return &CenterCrop{o.Size}, checkSide("size", o.Size)
}

// Frame implements pipeline.Framer.
func (c *CenterCrop) Frame(in pipeline.Frame) (pipeline.Frame, error) { return cropFrame(in, c.size) }

// Process edits the View of s.
func (c *CenterCrop) Process(_ context.Context, s *pipeline.Sample) error {
	w, h, err := cropRoom(s, c.size)
	if err != nil {
		return err
	}
	s.SetView(s.View().Crop(augment.Centre(w, c.size), augment.Centre(h, c.size), c.size, c.size))
	return nil
}

// cropRoom is the size of the picture that a crop is taken from.
func cropRoom(s *pipeline.Sample, size int) (w, h int, err error) {
	if !s.HasImage() {
		return 0, 0, pipeline.ErrNoImage
	}
	b := s.View().Bounds()
	if size > b.X || size > b.Y {
		return 0, 0, fmt.Errorf("a crop of %d x %d does not fit the image of %d x %d; resize it before", size, size, b.X, b.Y)
	}
	return b.X, b.Y, nil
}

func cropFrame(in pipeline.Frame, size int) (pipeline.Frame, error) {
	if in.W != 0 && size > in.W || in.H != 0 && size > in.H {
		return in, config.Fieldf("size", "%d is more than the image has here: %d x %d", size, in.W, in.H)
	}
	if in.Shorter != 0 && size > in.Shorter {
		return in, config.Fieldf("size", "%d is more than the shorter side of the images here, %d", size, in.Shorter)
	}
	out := pipeline.Frame{W: size, H: size, CanvasW: in.CanvasW, CanvasH: in.CanvasH}
	if out.CanvasW == 0 {
		out.CanvasW, out.CanvasH = size, size
	}
	return out, nil
}
