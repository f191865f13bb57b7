package main

import (
	"context"
	"fmt"
	"image"

	"sluice/pipeline"
)

func init() {
	pipeline.DefineSource("stripes", "Stripes made in memory: class 0 lies, class 1 stands.", stripes{Samples: 256, Size: 32})
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
	img := image.NewGray(image.Rect(0, 0, s.Size, s.Size))
	for at := range img.Pix {
		across := []int{at / s.Size, at % s.Size}[i%2]
		img.Pix[at] = uint8((across+i/2)%8) * 32
	}
	sample.Name, sample.Label = fmt.Sprintf("stripes %d", i), int32(i%2)
	sample.SetImage(img)
	return nil
}
