package stages

import (
	"context"

	"sluice/augment"
	"sluice/pipeline"
)

func init() {
	pipeline.RegisterSampleStage("ten_crop",
		"Make ten pictures of the image: its four corners and its middle, and their mirror images. evaluate and validation average the softmax over them, extract the features "+
			"(section 4.1 of the AlexNet paper). It is the last of the samples, and a batch holds a multiple of ten.",
		CropOptions{},
		func(o CropOptions) (pipeline.SampleStage, error) { return NewTenCrop(o) })
}

// TenCrop is the sample stage of that name.
type TenCrop struct{ size int }

// NewTenCrop makes the stage.
func NewTenCrop(o CropOptions) (*TenCrop, error) {
	return &TenCrop{o.Size}, checkSide("size", o.Size)
}

// Frame implements pipeline.Framer.
func (c *TenCrop) Frame(in pipeline.Frame) (pipeline.Frame, error) {
	out, err := cropFrame(in, c.size)
	if in.CanvasW == 0 { // the crops are of all that there is, and count from its corner
		out.CanvasW, out.CanvasH = in.W, in.H
	}
	out.Views = 10
	return out, err
}

// Process sets the Views of s. What came before is rendered once, for all of them.
func (c *TenCrop) Process(_ context.Context, s *pipeline.Sample) error {
	if _, _, err := cropRoom(s, c.size); err != nil {
		return err
	}
	if _, err := s.Pixels(); err != nil {
		return err
	}
	ten, err := augment.TenCrop(s.View(), c.size, c.size)
	if err != nil {
		return err
	}
	s.SetViews(ten[:]...)
	return nil
}
