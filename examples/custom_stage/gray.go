package main

import (
	"context"

	"sluice/pipeline"
)

func init() {
	pipeline.DefineSampleStage("gray", "Takes the colours away, as far as amount says.", gray{Amount: 1})
}

// gray is a sample stage: its options, and what it does to one image.
type gray struct {
	Amount float32 `yaml:"amount" doc:"0 keeps the colours, 1 leaves none"`
}

func (g gray) Process(_ context.Context, s *pipeline.Sample) error {
	img, err := s.Pixels() // renders what is pending; the bytes are ours to change
	if err != nil {
		return err
	}
	for p := img.Pix; len(p) >= 3; p = p[3:] {
		y := 0.299*float32(p[0]) + 0.587*float32(p[1]) + 0.114*float32(p[2])
		for c := range 3 {
			p[c] = byte(float32(p[c]) + g.Amount*(y-float32(p[c])))
		}
	}
	return nil
}
