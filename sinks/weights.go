package sinks

import (
	"context"
	"io"
	"path/filepath"

	"sluice/net"
	"sluice/pipeline"
	"sluice/pipeline/config"
)

func init() {
	pipeline.RegisterSink("weights", "Writes the network's weights as safetensors after an epoch, each time in the place of the ones before.",
		WeightsOptions{File: "weights.safetensors", Every: 1},
		func(o WeightsOptions) (pipeline.Sink, error) { return NewWeights(o) })
}

// WeightsOptions are the options of the weights sink.
type WeightsOptions struct {
	File  string `yaml:"file" doc:"in the run folder; replaced whole, so it is always the weights of one epoch"`
	Every int    `yaml:"every" doc:"epochs between writes; the last epoch is always written"`
}

// WeightsSink writes Weights batches as one safetensors file, atomically: at any
// instant, and after any failure, the file is a whole one or is not there. The
// metadata of the batch (classes, network, epoch, ...) goes into the file's.
type WeightsSink struct {
	opt    WeightsOptions
	path   string
	epochs int
}

// NewWeights makes the weights sink; it is an error for the file to lie outside
// the run folder.
func NewWeights(o WeightsOptions) (*WeightsSink, error) {
	if err := inRunFolder("file", o.File); err != nil {
		return nil, err
	}
	if o.Every < 1 {
		return nil, config.Fieldf("every", "must be at least 1, is %d", o.Every)
	}
	return &WeightsSink{opt: o}, nil
}

// Outputs is the file.
func (s *WeightsSink) Outputs() []string { return []string{s.opt.File} }

// Accepts only weights.
func (s *WeightsSink) Accepts(k pipeline.Kind) bool { return k == pipeline.Weights }

// Prepare finds out that the folder takes a file before hours go into its
// contents. It leaves the weights of a run before in their place until there are
// new ones: an interrupted run must not cost the last one's.
func (s *WeightsSink) Prepare(_ context.Context, env *pipeline.Env) error {
	s.path, s.epochs = filepath.Join(env.RunDir, s.opt.File), env.Epochs
	return probe(s.path)
}

// Write replaces the file, if the batch's epoch is one to be written.
func (s *WeightsSink) Write(_ context.Context, b *pipeline.Batch) error {
	tensors, meta, err := net.TensorsOf(b.Record)
	if err != nil {
		return err
	}
	if after := b.Epoch + 1; after%s.opt.Every != 0 && after != s.epochs && meta["last"] == "" {
		return nil
	}
	return replaceFile(s.path, func(w io.Writer) error {
		return net.WriteSafetensors(w, tensors, meta)
	})
}

// Close has nothing to give back.
func (s *WeightsSink) Close() error { return nil }
