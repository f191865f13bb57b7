package stages

import (
	"cmp"
	"context"
	"errors"

	"sluice/augment"
	"sluice/pipeline"
	"sluice/pipeline/config"
)

func init() {
	pipeline.RegisterSampleStage("resize",
		"Scale the image, antialiased as Pillow and torchvision do: either the shorter side to a length, keeping the proportions, "+
			"or both sides to a size. It is computed when the pixels are needed and only where they are. An image that has the size already keeps its exact pixels.",
		ResizeOptions{Filter: augment.Bilinear.String()},
		func(o ResizeOptions) (pipeline.SampleStage, error) { return NewResize(o) })
}

// ResizeOptions are the options of the resize stage.
type ResizeOptions struct {
	Shorter int    `yaml:"shorter" doc:"pixels of the shorter side; the longer one is rounded down"`
	Size    []int  `yaml:"size" doc:"[width, height] in pixels, squashing the image if its proportions differ"`
	Filter  string `yaml:"filter" doc:"bilinear, bicubic or lanczos: those of Pillow. Bilinear is several times as fast"`
}

// maxSide is the longest side that a resize or crop may ask for: beyond it stands a mistake.
const maxSide = 1 << 16

// Resize is the sample stage of that name. It edits the View; an image that is cropped, flipped
// or scaled already is rendered first.
type Resize struct {
	opt    ResizeOptions
	filter augment.Filter
}

// NewResize makes the stage; exactly one of Shorter and Size must be given. No Filter is bilinear.
func NewResize(o ResizeOptions) (*Resize, error) {
	filter, ok := augment.FilterOf(cmp.Or(o.Filter, augment.Bilinear.String()))
	if !ok {
		return nil, config.Fieldf("filter", "must be bilinear, bicubic or lanczos, is %q", o.Filter)
	}
	r := &Resize{o, filter}
	switch {
	case o.Shorter != 0 && o.Size != nil:
		return nil, config.Fieldf("size", "and shorter are both given; a resize has one of them")
	case o.Size != nil:
		if len(o.Size) != 2 {
			return nil, config.Fieldf("size", "must be [width, height], has %d numbers", len(o.Size))
		}
		return r, errors.Join(checkSide("size", o.Size[0]), checkSide("size", o.Size[1]))
	case o.Shorter == 0:
		return nil, errors.New(`say what to resize to: {shorter: 256}, or {size: [256, 256]}`)
	}
	return r, checkSide("shorter", o.Shorter)
}

// checkSide refuses a length that no picture's side can have.
func checkSide(field string, n int) error {
	if n < 1 || n > maxSide {
		return config.Fieldf(field, "must be 1 to %d pixels, is %d", maxSide, n)
	}
	return nil
}

// target is the size that a w x h picture is scaled to.
func (r *Resize) target(w, h int) (int, int) {
	if r.opt.Size != nil {
		return r.opt.Size[0], r.opt.Size[1]
	}
	return augment.ShorterSide(w, h, r.opt.Shorter)
}

// Frame implements pipeline.Framer. After a scaling, the next crop is the new canvas.
func (r *Resize) Frame(in pipeline.Frame) (pipeline.Frame, error) {
	if in.W == 0 && r.opt.Size == nil {
		return pipeline.Frame{Shorter: r.opt.Shorter}, nil
	}
	w, h := r.target(in.W, in.H)
	if w == in.W && h == in.H {
		return in, nil
	}
	return pipeline.Frame{W: w, H: h}, nil
}

// Process edits the View of s.
func (r *Resize) Process(_ context.Context, s *pipeline.Sample) error {
	if !s.HasImage() {
		return pipeline.ErrNoImage
	}
	b := s.View().Bounds()
	w, h := r.target(b.X, b.Y)
	if w == b.X && h == b.Y {
		return nil
	}
	if !s.View().CanScale() {
		if _, err := s.Pixels(); err != nil {
			return err
		}
	}
	v := s.View().Scale(w, h)
	v.Filter = r.filter
	s.SetView(v)
	return nil
}
