package pipeline

import (
	"image"
	"math/rand/v2"

	"sluice/augment"
)

// Key names a sample by its place in the dataset, never by its place in the
// stream.
type Key struct{ Epoch, Index int }

// Sample is one image on its way. It is owned by the engine and lent to one
// stage at a time; a stage must not keep it, its Bytes, its pixels or its Rand.
type Sample struct {
	Key
	Name  string
	Label int32
	Bytes []byte // encoded
	// Shift is added to every pixel, a channel (RGB, in levels of 0..255); the
	// device does it, so stages see pixels without it.
	Shift [3]float32

	sampleState
}

type sampleState struct{}

// NewSample makes a sample outside a run, for tests of stages: seed and stage
// decide what Rand gives, as in a run.
func NewSample(seed uint64, stage string, key Key) *Sample { panic("skeleton") }

// Rand is the stage's own random numbers for this sample: a pure function of
// (seed, epoch, index, stage label).
func (s *Sample) Rand() *rand.Rand { panic("skeleton") }

// SetImage gives the sample a decoded picture and resets the View to all of it.
// The sample holds img until it is rendered. Pictures other than *image.YCbCr
// and *augment.RGB are converted when rendered.
func (s *Sample) SetImage(img image.Image) { panic("skeleton") }

// Image is the decoded picture that the View is of, nil before decode.
func (s *Sample) Image() image.Image { panic("skeleton") }

// View is the pending geometry. It is an error of the stage to ask for it
// before there is an image (ErrNoImage from the setters).
func (s *Sample) View() augment.View { panic("skeleton") }

// SetView replaces the pending geometry.
func (s *Sample) SetView(v augment.View) { panic("skeleton") }

// Pixels renders the pending View (8-bit RGB, H x W x 3, rows without gaps) and
// makes it the sample's image, keeping crop origin and flip for the record. The
// caller may change the pixels. They are the engine's memory: valid until the
// sample leaves the stage.
func (s *Sample) Pixels() (*augment.RGB, error) { panic("skeleton") }
