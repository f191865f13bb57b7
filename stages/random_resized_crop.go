package stages

import (
	"cmp"
	"context"
	"errors"
	"image"
	"math"
	"math/rand/v2"

	"sluice/augment"
	"sluice/pipeline"
	"sluice/pipeline/config"
)

func init() {
	pipeline.RegisterSampleStage("random_resized_crop",
		"Keep a part of the image at a random place, of a random area and shape, and scale it to a square, antialiased: torchvision's RandomResizedCrop. "+
			"Where nothing is to be random, resize to 8/7 of the size and center_crop take its place, as PyTorch validates. Sizes and origins count from the part, so that it does not go with a mean image of the whole.",
		RandomResizedCropOptions{Scale: [2]float64{0.08, 1}, Ratio: [2]float64{3. / 4, 4. / 3}, Filter: augment.Bilinear.String()},
		func(o RandomResizedCropOptions) (pipeline.SampleStage, error) { return NewRandomResizedCrop(o) })
}

// RandomResizedCropOptions are the options of the random_resized_crop stage.
type RandomResizedCropOptions struct {
	Size   int        `yaml:"size" config:"required" doc:"width and height in the end, in pixels; the part may be smaller or larger"`
	Scale  [2]float64 `yaml:"scale" doc:"[least, most] share of the image's area that is kept, above 0 and at most 1; each is as likely"`
	Ratio  [2]float64 `yaml:"ratio" doc:"[least, most] width over height of the part; each logarithm is as likely"`
	Filter string     `yaml:"filter" doc:"bilinear, bicubic or lanczos: those of Pillow. Bilinear is several times as fast"`
}

const (
	// cropAttempts is how many areas and shapes are drawn before the middle is taken.
	cropAttempts = 10
	// maxRatio bounds the shape: beyond it, or below its inverse, stands a mistake.
	maxRatio = 1000
)

// RandomResizedCrop is the sample stage of that name: that of torchvision
// (transforms.RandomResizedCrop.get_params), with random numbers of its own. It edits the View; an image
// that is scaled, cropped or flipped already is rendered first.
type RandomResizedCrop struct {
	opt    RandomResizedCropOptions
	filter augment.Filter
}

// NewRandomResizedCrop makes the stage. All options but Filter must be given; no Filter is bilinear.
func NewRandomResizedCrop(o RandomResizedCropOptions) (*RandomResizedCrop, error) {
	errs := []error{checkSide("size", o.Size)}
	filter, ok := augment.FilterOf(cmp.Or(o.Filter, augment.Bilinear.String()))
	if !ok {
		errs = append(errs, config.Fieldf("filter", "must be bilinear, bicubic or lanczos, is %q", o.Filter))
	}
	// Written so that no NaN passes.
	if s := o.Scale; !(s[0] > 0 && s[0] <= s[1] && s[1] <= 1) {
		errs = append(errs, config.Fieldf("scale", "must be [least, most] above 0 and at most 1, is [%g, %g]", s[0], s[1]))
	}
	if r := o.Ratio; !(r[0] >= 1./maxRatio && r[0] <= r[1] && r[1] <= maxRatio) {
		errs = append(errs, config.Fieldf("ratio", "must be [least, most] of %g to %d, is [%g, %g]", 1./maxRatio, maxRatio, r[0], r[1]))
	}
	return &RandomResizedCrop{o, filter}, errors.Join(errs...)
}

// Frame implements pipeline.Framer. The square is a new canvas.
func (c *RandomResizedCrop) Frame(pipeline.Frame) (pipeline.Frame, error) {
	return pipeline.Frame{W: c.opt.Size, H: c.opt.Size}, nil
}

// Random implements pipeline.RandomStage.
func (c *RandomResizedCrop) Random() bool { return true }

// Substitute implements pipeline.Substitute: for 224 it is a shorter side of 256, of which the middle is kept.
func (c *RandomResizedCrop) Substitute() []pipeline.Stand {
	return []pipeline.Stand{
		{Name: "resize", Options: ResizeOptions{Shorter: min(maxSide, (c.opt.Size*8+3)/7), Filter: c.filter.String()}},
		{Name: "center_crop", Options: CropOptions{c.opt.Size}},
	}
}

// Process edits the View of s.
func (c *RandomResizedCrop) Process(_ context.Context, s *pipeline.Sample) error {
	if !s.HasImage() {
		return pipeline.ErrNoImage
	}
	if !s.View().CanScale() {
		if _, err := s.Pixels(); err != nil {
			return err
		}
	}
	v := s.View()
	b := v.Bounds()
	v = v.Cut(c.part(s.Rand(), b.X, b.Y)).Scale(c.opt.Size, c.opt.Size)
	v.Filter = c.filter
	s.SetView(v)
	return nil
}

// part is what is kept of a picture of w x h pixels. Sides are rounded to even, as Python rounds.
func (c *RandomResizedCrop) part(rng *rand.Rand, w, h int) image.Rectangle {
	between := func(lo, hi float64) float64 { return lo + (hi-lo)*rng.Float64() }
	least, most := c.opt.Ratio[0], c.opt.Ratio[1]
	for range cropAttempts {
		area := float64(w) * float64(h) * between(c.opt.Scale[0], c.opt.Scale[1])
		ratio := math.Exp(between(math.Log(least), math.Log(most)))
		cw, ch := math.RoundToEven(math.Sqrt(area*ratio)), math.RoundToEven(math.Sqrt(area/ratio))
		if cw >= 1 && ch >= 1 && cw <= float64(w) && ch <= float64(h) {
			y := rng.IntN(h - int(ch) + 1)
			x := rng.IntN(w - int(cw) + 1)
			return image.Rect(x, y, x+int(cw), y+int(ch))
		}
	}
	// The middle, as much as has a shape that is allowed.
	cw, ch := w, h
	switch ratio := float64(w) / float64(h); {
	case ratio < least:
		ch = max(1, int(math.RoundToEven(float64(w)/least)))
	case ratio > most:
		cw = max(1, int(math.RoundToEven(float64(h)*most)))
	}
	x, y := (w-cw)/2, (h-ch)/2
	return image.Rect(x, y, x+cw, y+ch)
}
