package main

import (
	"context"
	"fmt"

	"sluice/pipeline"
)

func init() {
	pipeline.DefineBatchStage("brightness", "Refuses a batch whose images are all too dark to learn from, and passes on the others.", brightness{Least: 5})
}

// brightness is a batch stage: it looks at batches on their way to the network.
type brightness struct {
	Least float64 `yaml:"least" doc:"mean of all pixels of a batch below which the run ends, in levels of 0 to 255"`
}

func (b brightness) Process(_ context.Context, batch *pipeline.Batch, emit pipeline.Emit) error {
	images, err := pipeline.ImagesOf(batch.Record)
	if err != nil {
		return err
	}
	sum := 0
	for _, p := range images.Pixels {
		sum += int(p)
	}
	if mean := float64(sum) / float64(len(images.Pixels)); mean < b.Least {
		return fmt.Errorf("batch %d has a mean of %.1f, and %g is the least: are these the right images?", batch.Step, mean, b.Least)
	}
	return batch.Pass(emit)
}
