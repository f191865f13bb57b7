package sinks

import (
	"context"
	"encoding/json"
	"fmt"
	"image/png"
	"io"
	"path/filepath"

	"sluice/net"
	"sluice/pipeline"
	"sluice/pipeline/config"
)

func init() {
	pipeline.RegisterSink("pictures",
		"Draws curves.png, the loss and the accuracy of training and validation, when the run ends; kernels.png, what the first convolution looks for, with every epoch's weights and every checkpoint; "+
			"and confusion.png, which classes an evaluation took for which.",
		PicturesOptions{},
		func(o PicturesOptions) (pipeline.Sink, error) { return NewPictures(o) })
}

// PicturesOptions are the options of the pictures sink.
type PicturesOptions struct {
	Every int `yaml:"every" doc:"draw the curves anew every so many steps while the run goes, too; 0: only at its end, also by an error"`
}

// The files of the pictures sink, in the run folder.
const (
	curvesFile    = "curves.png"
	kernelsFile   = "kernels.png"
	matrixPicture = "confusion.png"
)

// PicturesSink draws what it has seen of the run: curves from Metrics batches, the
// first convolution's kernels from each Weights or Checkpoint batch, and the
// confusion matrix of an Evaluation batch. What it has seen nothing of it does not
// draw. Its memory is bounded however long the run.
type PicturesSink struct {
	opt           PicturesOptions
	dir           string // empty until Prepare
	name          string
	stepsPerEpoch int

	train, validation series
	drawn             int // step of the last drawing
}

// NewPictures makes the pictures sink.
func NewPictures(o PicturesOptions) (*PicturesSink, error) {
	if o.Every < 0 {
		return nil, config.Fieldf("every", "must not be negative, is %d", o.Every)
	}
	return &PicturesSink{opt: o}, nil
}

// Outputs are the pictures.
func (p *PicturesSink) Outputs() []string { return []string{curvesFile, kernelsFile, matrixPicture} }

// Accepts metrics, weights, checkpoints and evaluations.
func (p *PicturesSink) Accepts(k pipeline.Kind) bool {
	return k == pipeline.Metrics || k == pipeline.Weights || k == pipeline.Checkpoint || k == pipeline.Evaluation
}

// Prepare removes the pictures of an earlier run. On resuming it leaves those of the
// run so far, for what is left of the run may draw no new ones, and the curves go on
// from the metrics sink's file, if it has its usual name.
func (p *PicturesSink) Prepare(_ context.Context, env *pipeline.Env) error {
	ready := startAfresh
	if env.Resume {
		ready = probeAll
		_, rows, err := metricsBefore(filepath.Join(env.RunDir, metricsFile), env)
		if err != nil {
			return err
		}
		for _, row := range rows {
			p.add(row)
		}
		p.drawn = env.StartStep
	}
	if err := ready(filepath.Join(env.RunDir, curvesFile), filepath.Join(env.RunDir, kernelsFile), filepath.Join(env.RunDir, matrixPicture)); err != nil {
		return err
	}
	p.dir, p.name, p.stepsPerEpoch = env.RunDir, env.Name, env.StepsPerEpoch
	return nil
}

// Write takes in a batch, and draws if it is time to.
func (p *PicturesSink) Write(_ context.Context, b *pipeline.Batch) error {
	switch b.Kind {
	case pipeline.Metrics:
		rows, err := pipeline.MetricsOf(b.Record)
		if err != nil {
			return err
		}
		for _, row := range rows {
			p.add(row)
			if p.opt.Every > 0 && row.Step >= p.drawn+p.opt.Every {
				p.drawn = row.Step
				if err := p.drawCurves(); err != nil {
					return err
				}
			}
		}
	case pipeline.Weights, pipeline.Checkpoint:
		return p.drawKernels(b)
	case pipeline.Evaluation:
		outcomes, err := pipeline.OutcomesOf(b.Record)
		if err != nil {
			return err
		}
		return replaceFile(filepath.Join(p.dir, matrixPicture), func(w io.Writer) error {
			return DrawConfusion(w, p.name, outcomes)
		})
	}
	return nil
}

// add puts a metric into its curve.
func (p *PicturesSink) add(row pipeline.Metric) {
	switch row.Event {
	case "step":
		p.train.add(row)
	case "validation":
		p.validation.add(row)
	}
}

// drawKernels draws the first convolution's weights. Only rows up to that one are
// decoded: the rest of a network can be hundreds of megabytes.
func (p *PicturesSink) drawKernels(b *pipeline.Batch) error {
	for i := range b.Record.NumRows() {
		row := b.Record.NewSlice(i, i+1)
		tensors, meta, err := net.TensorsOf(row)
		if err == nil {
			for _, t := range tensors {
				if t.Role == net.RoleWeight && len(t.Dims) == 4 {
					defer row.Release() // it is t's memory
					return replaceFile(filepath.Join(p.dir, kernelsFile), func(w io.Writer) error {
						img, err := drawKernels(&t, isBGR(meta))
						if err != nil {
							return fmt.Errorf("kernels %s: %w", t.Name, err)
						}
						return png.Encode(w, img)
					})
				}
			}
		}
		row.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// isBGR reads the channel order from the metadata of weights.
func isBGR(meta map[string]string) bool {
	var input struct {
		Channels string `json:"channels"`
	}
	// Weights of another making say nothing of it, and have the usual order.
	return json.Unmarshal([]byte(meta["input"]), &input) == nil && input.Channels == "bgr"
}

// Close draws what there is.
func (p *PicturesSink) Close() error {
	if p.dir == "" {
		return nil
	}
	return p.drawCurves()
}

func (p *PicturesSink) drawCurves() error {
	if p.train.rows+p.validation.rows == 0 {
		return nil
	}
	return replaceFile(filepath.Join(p.dir, curvesFile), func(w io.Writer) error {
		return drawCurves(w, p.name, p.stepsPerEpoch, &p.train, &p.validation)
	})
}
