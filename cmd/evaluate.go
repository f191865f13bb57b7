package cmd

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"sluice/gpu"
	"sluice/pipeline"
	"sluice/sinks"
	"sluice/stages"
)

// inference is what evaluate and predict have in common: weights, which say how
// images are made for them.
type inference struct {
	tenCrop, asJSON, skipBad bool
	device                   string

	files   []string
	weights []*gpu.Description
	samples string
	steps   []pipeline.Step
	frame   pipeline.Frame
}

func (i *inference) flags(c *cobra.Command) {
	f := c.Flags()
	f.BoolVar(&i.tenCrop, "ten-crop", false, "average over ten crops of each image, as the paper does: slower, and a little better")
	f.BoolVar(&i.asJSON, "json", false, "print JSON on standard output")
	f.StringVar(&i.device, "device", gpu.Auto, "auto (cuda where there is one, else the CPU), cpu or cuda")
}

// read reads what the weights say about themselves.
func (i *inference) read(files []string) error {
	i.files = files
	for _, file := range files {
		if err := mustBeFile(file, wantWeights); err != nil {
			return err
		}
		d, err := gpu.Describe(file)
		if err != nil {
			return &exitError{exitUsage, err}
		}
		if d.Samples == "" {
			return usagef("%s does not say how images are made for it: use it in a YAML that says so, with preprocessing: any (pipeline init shows one)", file)
		}
		i.weights = append(i.weights, d)
		if first := i.weights[0]; gpu.OneCrop(d.Samples) != gpu.OneCrop(first.Samples) {
			return usagef("%s and %s see images that are made in other ways, so they cannot be averaged:\n%s\nand\n%s", first.File, file, first.Samples, d.Samples)
		}
	}
	i.samples = gpu.OneCrop(i.weights[0].Samples)
	if i.tenCrop {
		var err error
		if i.samples, err = gpu.TenCrop(i.samples); err != nil {
			return usagef("%s: %w", files[0], err)
		}
	}
	var err error
	if i.steps, i.frame, err = pipeline.ParseSamples(files[0], i.samples); err != nil {
		return &exitError{exitUsage, err}
	}
	return nil
}

// line is a run of one epoch over a source through a stage. Few images make small
// batches.
func (i *inference) line(source pipeline.Source, name string, stage pipeline.NamedStage, out ...pipeline.NamedSink) *pipeline.Line {
	views := max(1, i.frame.Views)
	batch := views * max(1, min(64/views, source.Len()))
	l := &pipeline.Line{
		Source: source, SourceName: name, Steps: i.steps, Frame: i.frame, BatchSize: batch,
		Epochs: 1, Workers: runtime.GOMAXPROCS(0), Stages: []pipeline.NamedStage{stage}, Sinks: out,
	}
	rows := source.Len() * views
	l.Env = &pipeline.Env{
		Name: stage.Name, Version: currentVersions().String(), Frame: i.frame, Samples: source.Len(), BatchSize: batch,
		StepsPerEpoch: (rows + batch - 1) / batch, Epochs: 1, Workers: l.Workers, Preprocessing: i.samples,
		Accepts: func(k pipeline.Kind) bool {
			return slices.ContainsFunc(out, func(s pipeline.NamedSink) bool {
				a, ok := s.Sink.(pipeline.Acceptor)
				return !ok || a.Accepts(k)
			})
		},
	}
	if c, ok := source.(pipeline.Classer); ok {
		l.Env.Classes = c.Classes()
	}
	return l
}

// begin looks at the whole line before it runs: what is found then is a mistake of
// whoever typed the command.
func begin(l *pipeline.Line) error {
	for _, s := range l.Stages {
		if p, ok := s.Stage.(pipeline.Planner); ok {
			if _, err := p.Plan(l.Env); err != nil {
				return &exitError{exitUsage, err}
			}
		}
	}
	return nil
}

func newEvaluate() *cobra.Command {
	var i inference
	var data, output string
	c := &cobra.Command{
		Use:   "evaluate WEIGHTS... --data DIR",
		Short: "Measure trained weights on a folder of images",
		Long: `Measures weights on a folder that has a sub-folder for each class, named as in
training: top-1 and top-5 accuracy, loss, and how each class comes out. Images
are made as the weights say. The predictions of several files of weights are
averaged, as those of the paper's five and seven networks are.`,
		Example: `  pipeline evaluate runs/quickstart/weights.safetensors --data DIR/val
  pipeline evaluate a.safetensors b.safetensors --data DIR/val --ten-crop -o out`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s needs WEIGHTS\nSee '%s --help'.", c.Name(), c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if data == "" {
				return usagef("say which images to measure on: --data DIR, with a sub-folder for each class")
			}
			if err := i.read(args); err != nil {
				return err
			}
			return i.evaluate(c, data, output)
		},
	}
	i.flags(c)
	c.Flags().StringVar(&data, "data", "", "folder `DIR` of images, a sub-folder a class")
	c.Flags().BoolVar(&i.skipBad, "skip-bad", false, "leave images out that cannot be read, and count them")
	c.Flags().StringVarP(&output, "output", "o", "", "folder `DIR` for classes.parquet, confusion.parquet and confusion.png")
	return c
}

// evaluation is what evaluate prints.
type evaluation struct {
	Weights []string      `json:"weights"`
	Data    string        `json:"data"`
	Images  int64         `json:"images"`
	Skipped int           `json:"skipped"`
	TenCrop bool          `json:"ten_crop"`
	Top1    float64       `json:"top1"`
	Top5    float64       `json:"top5"`
	Loss    float64       `json:"loss"`
	Speed   float64       `json:"images_per_second"`
	Classes []classResult `json:"classes"`
}

type classResult struct {
	Class  string  `json:"class"`
	Images int64   `json:"images"`
	Top1   float64 `json:"top1"`
	Top5   float64 `json:"top5"`
	Taken  string  `json:"most_mistaken_for,omitempty"`
	Times  int64   `json:"times,omitempty"`
}

func (i *inference) evaluate(c *cobra.Command, data, output string) error {
	source, err := stages.NewImageFolder(stages.ImageFolderOptions{Dir: data, MaxBytes: 128 << 20})
	if err != nil {
		return usagef("--data: %w", err)
	}
	stage, err := gpu.NewEvaluate(gpu.EvaluateOptions{Weights: i.files, Preprocessing: "same", Device: i.device, LogEvery: 1})
	if err != nil {
		return &exitError{exitUsage, err}
	}
	stderr := c.ErrOrStderr()
	result := &evaluationSink{progress: newConsole(stderr, stderr, false, false), stderr: stderr}
	out := []pipeline.NamedSink{{Name: "result", Sink: result}}
	if output != "" {
		out = append(out, pipeline.NamedSink{Name: "evaluation", Sink: &sinks.EvaluationSink{}})
	}
	l := i.line(source, "image_folder", pipeline.NamedStage{Name: "evaluate", Stage: stage}, out...)
	l.OnError, l.Env.RunDir = pipeline.Policy{Quarantine: i.skipBad}, output
	if err := begin(l); err != nil {
		return err
	}
	ctx, stop := untilSignal(c.Context(), stderr)
	defer stop()
	if err := l.Run(ctx); err != nil {
		var bad *pipeline.Error
		if errors.As(err, &bad) && bad.Name != "" && !i.skipBad {
			err = fmt.Errorf("%w; --skip-bad leaves such images out", err)
		}
		return err
	}
	r := result.evaluation()
	r.Weights, r.Data, r.TenCrop = i.files, data, i.tenCrop
	if output != "" {
		if err := writeConfusion(filepath.Join(output, "confusion.png"), filepath.Base(filepath.Clean(data)), result.outcomes); err != nil {
			return err
		}
	}
	if i.asJSON {
		enc := json.NewEncoder(c.OutOrStdout())
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	r.print(c.OutOrStdout())
	if output != "" {
		fmt.Fprintf(c.OutOrStdout(), "\nclasses.parquet, confusion.parquet and confusion.png are in %s\n", output)
	}
	return nil
}

func writeConfusion(path, title string, outcomes []pipeline.Outcome) error {
	return writePicture(path, func(w io.Writer) error { return sinks.DrawConfusion(w, title, outcomes) })
}

// writePicture writes a file whole or not at all.
func writePicture(path string, draw func(io.Writer) error) error {
	f, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o644), renameio.WithTempDir(filepath.Dir(path)))
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, reason(err))
	}
	defer func() { _ = f.Cleanup() }()
	if err := draw(f); err != nil {
		return fmt.Errorf("writing %s: %w", path, reason(err))
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("writing %s: %w", path, reason(err))
	}
	return nil
}

// evaluationSink keeps the result, shows how far it is, and tells of bad images.
type evaluationSink struct {
	progress *console
	stderr   io.Writer
	began    time.Time
	done     pipeline.Metric
	outcomes []pipeline.Outcome
	skipped  int
}

func (s *evaluationSink) Prepare(ctx context.Context, env *pipeline.Env) error {
	s.began = time.Now()
	return s.progress.Prepare(ctx, env)
}

func (s *evaluationSink) Accepts(k pipeline.Kind) bool {
	return k == pipeline.Metrics || k == pipeline.Evaluation || k == pipeline.Quarantine
}

func (s *evaluationSink) Write(ctx context.Context, b *pipeline.Batch) error {
	switch b.Kind {
	case pipeline.Evaluation:
		var err error
		s.outcomes, err = pipeline.OutcomesOf(b.Record)
		// Strings of a record are its memory.
		for i, o := range s.outcomes {
			s.outcomes[i].Class, s.outcomes[i].PredictedClass = strings.Clone(o.Class), strings.Clone(o.PredictedClass)
		}
		return err
	case pipeline.Quarantine:
		rows, err := pipeline.QuarantineOf(b.Record)
		for _, r := range rows {
			s.skipped++
			s.progress.view.line(fmt.Sprintf("left out: %s: %s", r.Name, r.Reason))
		}
		return err
	}
	rows, err := pipeline.MetricsOf(b.Record)
	if err != nil {
		return err
	}
	for _, m := range rows {
		switch m.Event {
		case "progress":
			return s.progress.Write(ctx, b)
		case "done":
			s.done = m
		}
	}
	return nil
}

func (s *evaluationSink) Close() error { return s.progress.Close() }

func (s *evaluationSink) evaluation() *evaluation {
	r := &evaluation{Top1: s.done.Top1, Top5: s.done.Top5, Loss: s.done.Loss, Skipped: s.skipped, Classes: []classResult{}}
	for _, c := range sinks.ClassAccuracies(s.outcomes) {
		r.Images += c.Images
		row := classResult{Class: c.Class, Images: c.Images, Top1: c.Top1, Top5: c.Top5}
		for _, o := range s.outcomes {
			if o.Label == c.Label && o.Predicted != o.Label && o.Images > row.Times {
				row.Taken, row.Times = o.PredictedClass, o.Images
			}
		}
		if c.Images > 0 {
			r.Classes = append(r.Classes, row)
		}
	}
	if t := time.Since(s.began).Seconds(); t > 0 {
		r.Speed = float64(r.Images) / t
	}
	return r
}

// classLines is how many classes are shown; of more, those that come out worst.
const classLines = 30

func (r *evaluation) print(out io.Writer) {
	networks := r.Weights[0]
	if n := len(r.Weights); n > 1 {
		networks = fmt.Sprintf("%d networks, averaged", n)
	}
	crops := "one crop"
	if r.TenCrop {
		crops = "ten crops"
	}
	fmt.Fprintf(out, "%s on %s\n", networks, r.Data)
	fmt.Fprintf(out, "top-1 %s, top-5 %s, loss %.4f\n", percent(r.Top1), percent(r.Top5), r.Loss)
	fmt.Fprintf(out, "%d images of %d classes, %s of each, %s\n", r.Images, len(r.Classes), crops, rate(r.Speed))
	if r.Skipped > 0 {
		fmt.Fprintf(out, "left out because they could not be read: %d\n", r.Skipped)
	}
	rows, title := r.Classes, ""
	if len(rows) > classLines {
		rows = slices.Clone(rows)
		slices.SortStableFunc(rows, func(a, b classResult) int { return cmp.Compare(a.Top1, b.Top1) })
		rows, title = rows[:classLines], fmt.Sprintf(" (the worst %d)", classLines)
	}
	fmt.Fprintf(out, "\n%-24s %7s %8s %8s  %s\n", "class"+title, "images", "top-1", "top-5", "most mistaken for")
	for _, c := range rows {
		taken := ""
		if c.Times > 0 {
			taken = fmt.Sprintf("%s (%d)", clipped(c.Taken, 20), c.Times)
		}
		line := fmt.Sprintf("%-24s %7d %8s %8s  %s", clipped(c.Class, 24), c.Images, percent(c.Top1), percent(c.Top5), taken)
		fmt.Fprintln(out, strings.TrimRight(line, " "))
	}
}

// clipped cuts a text to n characters.
func clipped(text string, n int) string {
	if r := []rune(text); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return text
}

// regular says what hinders reading a file as an image.
func regular(path string, limit int64) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return reason(err)
	case info.IsDir():
		return errors.New("it is a folder; name the images in it")
	case !info.Mode().IsRegular():
		return fmt.Errorf("it is no regular file (%v)", info.Mode().Type())
	case info.Size() == 0:
		return errors.New("it is empty (0 bytes)")
	case info.Size() > limit:
		return fmt.Errorf("it has %s, more than %s", size(info.Size()), size(limit))
	}
	return nil
}
