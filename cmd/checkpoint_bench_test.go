package cmd_test

import (
	"fmt"
	"testing"
	"time"

	"sluice/pipeline"
)

// What a checkpoint costs a run, all in all: the copy that the step waits for, and
// what the writer in the background takes from the step's threads and memory. The
// same steps are run with and without; the difference is divided by the number of
// checkpoints, and told as a part of the time between two of them as they are by
// default: ten minutes for the paper's network, an epoch for the quickstart's.
func BenchmarkCheckpointCost(b *testing.B) {
	for _, c := range []struct {
		net              string
		side, batch      int
		steps, every     int
		between          time.Duration // 0: that of so many steps
		stepsBetween     int
		checkpointsInAll int
	}{
		{"alexnet", 224, 16, 24, 6, 10 * time.Minute, 0, 4},
		{"alexnet_small", 64, 32, 500, 125, 0, 125, 4},
	} {
		b.Run(c.net, func(b *testing.B) {
			run := func(sinks string) time.Duration {
				b.Helper()
				text := fmt.Sprintf(`
name: cost
source: {shapes: {samples: %d}}
samples: [decode, {resize: {shorter: %d}}, {center_crop: {size: %d}}]
batch: {size: %d}
batches: [{train: {net: %s, epochs: 1000, solver: {lr: 1e-6}, watch: {every: 0, chance_epochs: 0}}}]
sinks: [metrics%s]
`, 4*c.batch, c.side, c.side, c.batch, c.net, sinks)
				spec, err := pipeline.Parse("cost.yaml", []byte(text), []string{"run.dir=" + b.TempDir()})
				if err != nil {
					b.Fatal(err)
				}
				line, err := spec.Line("test")
				if err != nil {
					b.Fatal(err)
				}
				line.StopAfter = c.steps
				began := time.Now()
				if err := line.Run(b.Context()); err != nil {
					b.Fatal(err)
				}
				return time.Since(began)
			}
			// The fastest of each: whatever else the machine does only adds to it.
			with, without := time.Duration(1<<62), time.Duration(1<<62)
			for b.Loop() {
				without = min(without, run(""))
				with = min(with, run(fmt.Sprintf(", {checkpoints: {every_steps: %d, every_minutes: 0, every_epochs: 0, keep: 2}}", c.every)))
			}
			cost := (with - without) / time.Duration(c.checkpointsInAll)
			between := c.between
			if between == 0 {
				between = without * time.Duration(c.stepsBetween) / time.Duration(c.steps)
			}
			b.ReportMetric(float64(cost.Milliseconds()), "ms/checkpoint")
			b.ReportMetric(100*float64(cost)/float64(between), "%of_the_time")
			b.ReportMetric(float64(without.Milliseconds())/float64(c.steps), "ms/step")
		})
	}
}
