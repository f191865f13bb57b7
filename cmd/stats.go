package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/pipeline"
	"sluice/sinks"
)

func newStats() *cobra.Command {
	var s settings
	var output string
	var quiet bool
	c := &cobra.Command{
		Use:   "stats FILE",
		Short: "Take the mean image and the colours of the training images",
		Long: `Reads all training images of a YAML file once, through its sample stages up to
the first that is random, and takes their mean image, the mean of their red,
green and blue, and the principal components of their colours: what mean: auto
(in a network's input) and pca: auto (of pca_jitter) use. A run takes them by
itself when it needs them.

They are kept beside the runs, in runs/.statistics, with a picture of the mean,
until the images or the stages change.`,
		Example: `  pipeline stats examples/image_folder/train.yaml
  pipeline stats train.yaml --output imagenet.safetensors`,
		Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			if output != "" && !strings.HasSuffix(output, ".safetensors") {
				return usagef("--output is a .safetensors file, not %q", output)
			}
			spec, err := s.load(args[0])
			if err != nil {
				return err
			}
			ctx, stop := untilSignal(c.Context(), c.ErrOrStderr())
			defer stop()
			k := keeper{dir: statisticsDir(spec), told: c.ErrOrStderr()}
			if quiet {
				k.told = io.Discard
			}
			t, err := k.ofSource(ctx, spec)
			if err != nil {
				return err
			}
			describe(c.OutOrStdout(), t)
			if k.file != "" {
				fmt.Fprintf(c.OutOrStdout(), "kept in       %s\n", k.file)
			}
			if output == "" {
				return nil
			}
			return save(c.OutOrStdout(), output, t)
		},
	}
	s.flags(c)
	c.Flags().StringVarP(&output, "output", "o", "", "write them to `FILE`, a .safetensors, and the picture of the mean beside it")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "do not say how far it is")
	return c
}

func describe(w io.Writer, t *pipeline.Statistics) {
	size := "of several sizes, so there is no mean image"
	if t.MeanImage != nil {
		size = fmt.Sprintf("of %dx%d", t.W, t.H)
	}
	fmt.Fprintf(w, "images        %d, %s\n", t.Images, size)
	fmt.Fprintf(w, "mean          [%.2f, %.2f, %.2f] red, green, blue, in levels of 255\n", t.Mean[0], t.Mean[1], t.Mean[2])
	for i, v := range t.PCA.Values {
		fmt.Fprintf(w, "component %d   eigenvalue %.5f of [%.4f, %.4f, %.4f]\n", i+1, v, t.PCA.Vectors[0][i], t.PCA.Vectors[1][i], t.PCA.Vectors[2][i])
	}
}

// save writes statistics where the user wants them.
func save(w io.Writer, file string, t *pipeline.Statistics) error {
	if err := writeStatistics(file, t, nil); err != nil {
		return err
	}
	fmt.Fprintf(w, "written to    %s\n", file)
	return nil
}

// writeStatistics writes a file and a picture beside it, if there is something to
// draw.
func writeStatistics(file string, t *pipeline.Statistics, about map[string]string) error {
	if t.MeanImage != nil {
		if err := sinks.DrawMean(strings.TrimSuffix(file, ".safetensors")+".png", t); err != nil {
			return err
		}
	}
	return sinks.WriteStatistics(file, t, about)
}

// statisticsDir is where the statistics of a file's images are kept: beside the
// run folders, under a name that none of them can have.
func statisticsDir(spec *pipeline.Spec) string { return filepath.Join(spec.Run.Dir, ".statistics") }

// A keeper takes statistics, or finds those that were taken.
type keeper struct {
	dir  string
	told io.Writer // how far it is
	file string    // that has them, after ofSource; "" if the source cannot tell whether it changes
}

// fileOf is where the statistics of a survey are kept, "" if they cannot be.
func (k *keeper) fileOf(v *pipeline.Survey) (string, error) {
	sum, err := v.Fingerprint()
	if err != nil || sum == "" {
		return "", err
	}
	return filepath.Join(k.dir, sum[:24]+".safetensors"), nil
}

// ofSource gives the statistics of the training images. The Spec is of no more use
// after it.
func (k *keeper) ofSource(ctx context.Context, spec *pipeline.Spec) (*pipeline.Statistics, error) {
	v, err := spec.Survey()
	if err != nil {
		return nil, err
	}
	if k.file, err = k.fileOf(v); err != nil {
		return nil, err
	}
	if k.file != "" {
		t, err := sinks.ReadStatistics(k.file)
		switch {
		case err == nil:
			return t, nil
		case !errors.Is(err, fs.ErrNotExist):
			fmt.Fprintf(k.told, "pipeline: %v; taking them again\n", err)
		}
		// Found out now, and not after the pass.
		if err := os.MkdirAll(k.dir, 0o755); err != nil {
			return nil, fmt.Errorf("statistics are kept in %s: %w", k.dir, err)
		}
	}
	began := time.Now()
	fmt.Fprintf(k.told, "taking statistics of %s\n", images(v))
	t, err := v.Run(ctx, pipeline.NamedSink{Name: "progress", Sink: &counter{to: k.told, all: v.Images, last: began}})
	if err != nil {
		return nil, fmt.Errorf("statistics of the training images: %w", err)
	}
	fmt.Fprintf(k.told, "took statistics of %d images in %s\n", t.Images, duration(time.Since(began)))
	if k.file == "" {
		return t, nil
	}
	return t, writeStatistics(k.file, t, map[string]string{"of": images(v)})
}

// images says what a survey goes over.
func images(v *pipeline.Survey) string {
	size := ""
	if v.W > 0 {
		size = fmt.Sprintf(" of %dx%d", v.W, v.H)
	}
	through := ""
	if len(v.Stages) > 0 {
		through = " after " + strings.Join(v.Stages, ", ")
	}
	return fmt.Sprintf("%d images%s (%s%s)", v.Images, size, v.Source, through)
}

// counter is a sink that says how far a survey is.
type counter struct {
	to        io.Writer
	done, all int
	last      time.Time
}

func (c *counter) Accepts(k pipeline.Kind) bool { return k == pipeline.Samples }

func (c *counter) Write(_ context.Context, b *pipeline.Batch) error {
	c.done += int(b.Record.NumRows())
	if now := time.Now(); now.Sub(c.last) >= 10*time.Second {
		c.last = now
		fmt.Fprintf(c.to, "%d of %d images\n", c.done, c.all)
	}
	return nil
}

func (c *counter) Close() error { return nil }

// giveStatistics gives the stages of a run what they want. again reads the same
// file once more, for the pass.
func (k *keeper) giveStatistics(ctx context.Context, spec *pipeline.Spec, again func() (*pipeline.Spec, error)) error {
	for _, from := range spec.StatisticsWanted() {
		var t *pipeline.Statistics
		var err error
		if from == pipeline.FromSource {
			other, failed := again()
			if failed != nil {
				return failed
			}
			t, err = k.ofSource(ctx, other)
		} else if t, err = sinks.ReadStatistics(from); err != nil {
			err = &exitError{exitUsage, err}
		}
		if err == nil {
			err = spec.SetStatistics(from, t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tellStatistics says where the statistics will come from, without taking them.
func (k *keeper) tellStatistics(w io.Writer, spec *pipeline.Spec) error {
	for i, from := range spec.StatisticsWanted() {
		if i == 0 {
			fmt.Fprintln(w, "\nstatistics")
		}
		if from != pipeline.FromSource {
			t, err := sinks.ReadStatistics(from)
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "  %s: of %d images\n", from, t.Images)
			continue
		}
		v, err := spec.Survey()
		if err != nil {
			return err
		}
		file, err := k.fileOf(v)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "  auto: of %s\n", images(v))
		_, missing := os.Stat(file)
		switch {
		case file == "":
			fmt.Fprintln(w, "  taken before the first step of every run: the source cannot tell whether its images change, so they are not kept")
		case missing != nil:
			fmt.Fprintf(w, "  taken before the first step, and kept in %s\n", file)
		default:
			fmt.Fprintf(w, "  kept in %s\n", file)
		}
	}
	return nil
}
