package main

import (
	"context"
	"fmt"
	"image"
	"image/color"

	"sluice/pipeline"
)

func init() {
	pipeline.RegisterSource("stripes", "Stripes made in memory: class 0 lies, class 1 stands.", stripes{Samples: 256, Size: 32},
		func(s stripes) (pipeline.Source, error) { return s, nil })
}

// stripes is a source: how many images there are, and what image i is.
type stripes struct {
	Samples int `yaml:"samples" doc:"how many images"`
	Size    int `yaml:"size" doc:"width and height, in pixels"`
}

func (s stripes) Len() int          { return s.Samples }
func (s stripes) Classes() []string { return []string{"lying", "standing"} }
func (s stripes) Frame(pipeline.Frame) (pipeline.Frame, error) {
	return pipeline.Frame{W: s.Size, H: s.Size}, nil
}
func (s stripes) Read(_ context.Context, i int, sample *pipeline.Sample) error {
	img := image.NewRGBA(image.Rect(0, 0, s.Size, s.Size))
	for y := range s.Size {
		for x := range s.Size {
			level := uint8((y*(1-i%2)+x*(i%2)+i/2)%8) * 32
			img.Set(x, y, color.RGBA{level, level / 2, 255 - level, 255})
		}
	}
	sample.Name, sample.Label = fmt.Sprintf("stripes %d", i), int32(i%2)
	sample.SetImage(img)
	return nil
}
