package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"sluice/gpu"
	"sluice/pipeline"
)

func newBench() *cobra.Command {
	var s settings
	var layers, asJSON bool
	var steps int
	c := &cobra.Command{
		Use:   "bench FILE",
		Short: "Measure where the time of a YAML file's run goes",
		Long: `Measures how many images a second the line of a YAML file reads and prepares
when no network waits for them, where that time goes, and how many the network
alone takes. A JPEG is decoded when it is rendered, and its time is told there.
With --layers it measures the network only, layer by layer.

Images are really read; the network computes noise with new weights, whose time
is the same. Nothing is written, but the statistics that a run would take and
keep (mean: auto) if it has not yet.`,
		Example: `  pipeline bench examples/quickstart/train.yaml
  pipeline bench --layers train.yaml --set net=alexnet --steps 9
  pipeline bench --layers train.yaml --json`,
		Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			if steps < 1 {
				return usagef("--steps is at least 1, not %d", steps)
			}
			spec, err := s.load(args[0])
			if err != nil {
				return err
			}
			ctx, stop := untilSignal(c.Context(), c.ErrOrStderr())
			defer stop()
			k := keeper{dir: statisticsDir(spec), told: c.ErrOrStderr()}
			if err := k.giveStatistics(ctx, spec, func() (*pipeline.Spec, error) { return s.load(args[0]) }); err != nil {
				return err
			}
			b, err := measure(ctx, spec, steps, layers)
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(c.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(b)
			}
			_, err = fmt.Fprint(c.OutOrStdout(), b)
			return err
		},
	}
	s.flags(c)
	c.Flags().BoolVar(&layers, "layers", false, "measure every layer of the network, and not the line")
	c.Flags().IntVar(&steps, "steps", 5, "measure `N` batches, after one that is not")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

// benchmark is what bench measures.
type benchmark struct {
	Line     *lineTimes    `json:"line,omitempty"`
	Networks []gpu.Profile `json:"networks"`

	layers bool // to be shown
}

// lineTimes is the line without its batch stages and sinks.
type lineTimes struct {
	Images          int        `json:"images"` // measured
	Workers         int        `json:"workers"`
	ImagesPerSecond float64    `json:"images_per_second"`
	Parts           []partTime `json:"parts"`
}

// partTime is what one part of the line takes for an image, by a worker's clock.
type partTime struct {
	Name  string  `json:"name"`
	MS    float64 `json:"ms"`
	Share float64 `json:"share"` // of all parts
}

func measure(ctx context.Context, spec *pipeline.Spec, steps int, layers bool) (*benchmark, error) {
	line, err := spec.Line(currentVersions().String())
	if err != nil {
		return nil, err
	}
	b := &benchmark{layers: layers}
	for _, s := range line.Stages {
		if gpu.HasNetwork(s.Stage) {
			profiles, err := gpu.Measure(ctx, s.Stage, line.Env, steps)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.Name, err)
			}
			b.Networks = append(b.Networks, profiles...)
		}
	}
	if layers {
		if len(b.Networks) == 0 {
			return nil, usagef("there is no network to measure: no train, evaluate or extract under batches:")
		}
		return b, nil
	}
	b.Line, err = measureLine(ctx, line, steps)
	return b, err
}

// measureLine runs the line into a sink that counts.
func measureLine(ctx context.Context, line *pipeline.Line, steps int) (*lineTimes, error) {
	if line.Env.StepsPerEpoch < 1 {
		return nil, errors.New("the source has fewer images than a batch; set batch.size lower")
	}
	var parts []*timedPart
	clock := func(name string) *timedPart {
		parts = append(parts, &timedPart{name: name})
		return parts[len(parts)-1]
	}
	bare := *line
	bare.Source = timedSource{line.Source, clock(line.SourceName)}
	bare.Steps = nil
	for _, s := range line.Steps {
		bare.Steps = append(bare.Steps, pipeline.Step{Label: s.Label, Stage: timedStage{s.Stage, clock(s.Label)}})
	}
	if line.Frame.Views <= 1 { // several pictures cannot be rendered but by the batch
		bare.Steps = append(bare.Steps, pipeline.Step{Label: "render", Stage: timedStage{pipeline.SampleFunc(render), clock("render")}})
	}
	count := &batchCounter{}
	env := *line.Env
	env.RunDir, env.Resume, env.Checkpoints, env.Validate = "", false, nil, nil
	bare.Env, bare.Validation = &env, nil
	bare.Stages, bare.Sinks = nil, []pipeline.NamedSink{{Name: "count", Sink: count}}
	// One batch more than is measured comes first, and pays for what begins.
	bare.StopAfter, bare.Epochs = steps+1, 2+steps/env.StepsPerEpoch
	if err := bare.Run(ctx); err != nil {
		return nil, err
	}
	t := &lineTimes{Images: count.images, Workers: line.Workers}
	if d := count.last.Sub(count.first).Seconds(); d > 0 {
		t.ImagesPerSecond = float64(count.images) / d
	}
	sum := 0.0
	for _, p := range parts {
		each := 0.0
		if n := p.calls.Load(); n > 0 {
			each = time.Duration(p.total.Load()).Seconds() * 1e3 / float64(n)
		}
		t.Parts = append(t.Parts, partTime{Name: p.name, MS: each})
		sum += each
	}
	for i := range t.Parts {
		if sum > 0 {
			t.Parts[i].Share = t.Parts[i].MS / sum
		}
	}
	return t, nil
}

// render does in a worker what the batch would do there after it.
func render(_ context.Context, s *pipeline.Sample) error {
	_, err := s.Pixels()
	return err
}

// timedPart adds up what a part takes, over all workers.
type timedPart struct {
	name         string
	total, calls atomic.Int64 // nanoseconds; calls
}

func (p *timedPart) since(start time.Time) {
	p.total.Add(int64(time.Since(start)))
	p.calls.Add(1)
}

type timedSource struct {
	pipeline.Source
	part *timedPart
}

func (t timedSource) Read(ctx context.Context, i int, s *pipeline.Sample) error {
	defer t.part.since(time.Now())
	return t.Source.Read(ctx, i, s)
}

func (t timedSource) Close() error { return closeIf(t.Source) }

type timedStage struct {
	pipeline.SampleStage
	part *timedPart
}

func (t timedStage) Process(ctx context.Context, s *pipeline.Sample) error {
	defer t.part.since(time.Now())
	return t.SampleStage.Process(ctx, s)
}

func (t timedStage) Close() error { return closeIf(t.SampleStage) }

func closeIf(v any) error {
	if c, ok := v.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// batchCounter counts images between the first batch and the last.
type batchCounter struct {
	first, last time.Time
	images      int
}

func (c *batchCounter) Accepts(k pipeline.Kind) bool { return k == pipeline.Samples }

func (c *batchCounter) Write(_ context.Context, b *pipeline.Batch) error {
	c.last = time.Now()
	if c.first.IsZero() {
		c.first = c.last
		return nil
	}
	c.images += int(b.Record.NumRows())
	return nil
}

func (c *batchCounter) Close() error { return nil }

// String is the tables, at most 80 columns wide.
func (b *benchmark) String() string {
	var out strings.Builder
	if b.Line != nil {
		b.Line.write(&out)
	}
	for i, p := range b.Networks {
		if i > 0 || b.Line != nil {
			out.WriteByte('\n')
		}
		writeNetwork(&out, p, b.layers)
	}
	if l := b.Line; l != nil && len(b.Networks) == 1 && b.Networks[0].ImagesPerSecond > 0 && l.ImagesPerSecond > 0 {
		n := b.Networks[0]
		bound, how := min(l.ImagesPerSecond, n.ImagesPerSecond), "side by side"
		if strings.HasPrefix(n.Engine, "cpu ") {
			bound, how = 1/(1/l.ImagesPerSecond+1/n.ImagesPerSecond), "as both share the cores"
		}
		fmt.Fprintf(&out, "\ntogether at most %s images/s, %s\n", speed(bound), how)
	}
	return out.String()
}

func (t *lineTimes) write(w io.Writer) {
	fmt.Fprintf(w, "line without network: %s images/s with %d workers, over %d images\n\n", speed(t.ImagesPerSecond), t.Workers, t.Images)
	fmt.Fprintf(w, "%-24s  %12s  %6s\n", "part", "ms an image", "share")
	for _, p := range t.Parts {
		fmt.Fprintf(w, "%s  %12.3f  %5.1f%%\n", cell(p.Name), p.MS, 100*p.Share)
	}
}

func writeNetwork(w io.Writer, p gpu.Profile, layers bool) {
	what := "forward"
	if p.Train {
		what = "forward, backward and update"
	}
	fmt.Fprintf(w, "%s: %s images/s\n", p.Network, speed(p.ImagesPerSecond))
	fmt.Fprintf(w, "%s of %d images on %s\n", what, p.Batch, p.Engine)
	fmt.Fprintf(w, "%.1f ms a step, %.1f GFLOP/s%s; loading a batch %.1f ms\n", p.Step, p.GFLOPS, ofPeak(p), p.Load)
	if !layers {
		return
	}
	fmt.Fprintf(w, "layer by layer, medians of %d steps in ms:\n\n", p.Steps)
	columns := []string{"forward", "backward", "update"}
	if !p.Train {
		columns = columns[:1]
	}
	fmt.Fprintf(w, "%-24s", "layer")
	for _, c := range append(columns, "GFLOP/s") {
		fmt.Fprintf(w, "  %8s", c)
	}
	fmt.Fprintf(w, "  %5s  %6s\n", "%peak", "share")
	var sum gpu.LayerTime
	row := func(l gpu.LayerTime) {
		io.WriteString(w, cell(l.Name))
		for _, ms := range []float64{l.Forward, l.Backward, l.Update}[:len(columns)] {
			fmt.Fprintf(w, "  %8.2f", ms)
		}
		speed, part := "-", "-"
		if l.GFLOPS > 0 {
			speed = fmt.Sprintf("%.1f", l.GFLOPS)
			if p.Peak > 0 {
				part = fmt.Sprintf("%.0f", 100*l.GFLOPS/p.Peak)
			}
		}
		fmt.Fprintf(w, "  %8s  %5s  %5.1f%%\n", speed, part, 100*l.Share)
	}
	for _, l := range p.Layers {
		row(l)
		sum.Forward, sum.Backward, sum.Update, sum.Share = sum.Forward+l.Forward, sum.Backward+l.Backward, sum.Update+l.Update, sum.Share+l.Share
	}
	sum.Name = "total"
	row(sum)
}

func ofPeak(p gpu.Profile) string {
	if p.Peak <= 0 {
		return ""
	}
	return fmt.Sprintf(", %.0f %% of the peak of %.0f", 100*p.GFLOPS/p.Peak, p.Peak)
}

// speed is images a second with three digits or more.
func speed(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// cell is a name in 24 columns, cut if it is longer.
func cell(name string) string {
	const width = 24
	if n := utf8.RuneCountInString(name); n > width {
		name = string([]rune(name)[:width-1]) + "…"
	}
	return fmt.Sprintf("%-*s", width, name)
}
