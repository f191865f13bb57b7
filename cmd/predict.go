package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/spf13/cobra"

	"sluice/gpu"
	"sluice/pipeline"
	"sluice/sinks"
)

func newPredict() *cobra.Command {
	var i inference
	var picture string
	c := &cobra.Command{
		Use:   "predict WEIGHTS IMAGE...",
		Short: "Say what is on images: the five likeliest classes of each",
		Long: `Says for each image which classes the network of a file of weights takes it for,
the five likeliest with their probabilities. Images are made as the weights say.
An image that cannot be read is told, the others are done, and the exit code is
1.`,
		Example: `  pipeline predict runs/quickstart/weights.safetensors photo.jpg
  pipeline predict alexnet.safetensors *.jpg --ten-crop --json
  pipeline predict alexnet.safetensors *.jpg --picture top5.png`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usagef("%s needs %s\nSee '%s --help'.", c.Name(), strings.Join([]string{"WEIGHTS", "IMAGE"}[len(args):], " "), c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := i.read(args[:1]); err != nil {
				return err
			}
			return i.predict(c, args[1:], picture)
		},
	}
	i.flags(c)
	c.Flags().StringVar(&picture, "picture", "", "`FILE` for a PNG of the images with bars of what they are taken for")
	return c
}

// imageFiles is a source of the images that were named.
type imageFiles []string

const (
	maxImageBytes = 128 << 20
	readingStage  = "read" // the name of the source
)

func (f imageFiles) Len() int { return len(f) }

func (f imageFiles) Read(_ context.Context, i int, s *pipeline.Sample) error {
	s.Name = f[i]
	if err := regular(f[i], maxImageBytes); err != nil {
		return err
	}
	data, err := os.ReadFile(f[i])
	s.Bytes = data
	return reason(err)
}

// prediction is what predict prints of an image, a line of JSON if asked.
type prediction struct {
	Image   string      `json:"image"`
	Classes []predicted `json:"predictions,omitempty"`
	Error   string      `json:"error,omitempty"`
}

type predicted struct {
	Class string  `json:"class"`
	Label int32   `json:"label"`
	Score float64 `json:"score"` // probability
}

func (i *inference) predict(c *cobra.Command, files []string, picture string) error {
	classes := i.weights[0].Classes
	stage, err := gpu.NewExtract(gpu.ExtractOptions{
		Weights: i.files[0], TopK: min(5, len(classes)), Pool: "none", DType: "float32", Preprocessing: "same", Device: i.device, LogEvery: 1,
	})
	if err != nil {
		return &exitError{exitUsage, err}
	}
	all := &predictionSink{classes: classes, of: make([]prediction, len(files))}
	l := i.line(imageFiles(files), readingStage, pipeline.NamedStage{Name: "extract", Stage: stage}, pipeline.NamedSink{Name: "predictions", Sink: all})
	l.OnError = pipeline.Policy{Quarantine: true}
	if err := begin(l); err != nil {
		return err
	}
	ctx, stop := untilSignal(c.Context(), c.ErrOrStderr())
	defer stop()
	if err := l.Run(ctx); err != nil && all.bad < len(files) {
		return err
	}
	for n := range all.of {
		all.of[n].Image = files[n]
	}
	if err := all.print(c.OutOrStdout(), c.ErrOrStderr(), i.asJSON); err != nil {
		return err
	}
	if picture != "" && all.bad < len(files) {
		if err := i.draw(ctx, all.of, picture); err != nil {
			return err
		}
	}
	if all.bad > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}

// predictionSink keeps what the features batches say, by the image's place.
type predictionSink struct {
	classes []string
	of      []prediction
	bad     int
}

func (s *predictionSink) Accepts(k pipeline.Kind) bool {
	return k == pipeline.Features || k == pipeline.Quarantine
}

func (s *predictionSink) Write(_ context.Context, b *pipeline.Batch) error {
	if b.Kind == pipeline.Quarantine {
		rows, err := pipeline.QuarantineOf(b.Record)
		for _, r := range rows {
			s.bad++
			text := r.Reason
			if r.Stage != readingStage {
				text = r.Stage + ": " + r.Reason
			}
			s.of[r.Index].Error = strings.Clone(text)
		}
		return err
	}
	column := func(name string) arrow.Array { return b.Record.Column(b.Record.Schema().FieldIndices(name)[0]) }
	index := column("index").(*array.Int64).Int64Values()
	labels := column("top_labels").(*array.FixedSizeList).ListValues().(*array.Int32).Int32Values()
	scores := column("top_scores").(*array.FixedSizeList).ListValues().(*array.Float32).Float32Values()
	if len(index) == 0 {
		return nil
	}
	k := len(labels) / len(index)
	for row, at := range index {
		for j := row * k; j < (row+1)*k; j++ {
			s.of[at].Classes = append(s.of[at].Classes, predicted{s.classes[labels[j]], labels[j], float64(scores[j])})
		}
	}
	return nil
}

func (s *predictionSink) Close() error { return nil }

func (s *predictionSink) print(out, stderr io.Writer, asJSON bool) error {
	for _, p := range s.of {
		if asJSON {
			text, err := json.Marshal(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "%s\n", text)
			continue
		}
		if p.Error != "" {
			fmt.Fprintf(stderr, "pipeline: %s: %s\n", p.Image, p.Error)
			continue
		}
		fmt.Fprintln(out, p.Image)
		for _, c := range p.Classes {
			fmt.Fprintf(out, "  %8s  %s\n", percent(c.Score), clipped(c.Class, 68))
		}
	}
	return nil
}

// draw makes each image once more, as the network sees its middle.
func (i *inference) draw(ctx context.Context, of []prediction, path string) error {
	steps, _, err := pipeline.ParseSamples(i.files[0], gpu.OneCrop(i.samples))
	if err != nil {
		return err
	}
	var all []sinks.Prediction
	for n, p := range of {
		if p.Error != "" {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s := pipeline.NewSample(0, "predict", pipeline.Key{Index: n})
		if err := imageFiles([]string{p.Image}).Read(ctx, 0, s); err != nil {
			return fmt.Errorf("%s: %w", p.Image, err)
		}
		for _, step := range steps {
			if err := step.Stage.Process(ctx, s); err != nil {
				return fmt.Errorf("%s: %s: %w", p.Image, step.Label, err)
			}
		}
		img, err := s.Pixels()
		if err != nil {
			return fmt.Errorf("%s: %w", p.Image, err)
		}
		one := sinks.Prediction{Name: p.Image, Image: img}
		for _, c := range p.Classes {
			one.Classes, one.Scores = append(one.Classes, c.Class), append(one.Scores, c.Score)
		}
		all = append(all, one)
	}
	if len(all) == 0 {
		return errors.New("no image is left to draw")
	}
	return writePicture(path, func(w io.Writer) error { return sinks.DrawPredictions(w, all) })
}
