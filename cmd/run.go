package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"sluice/pipeline"
)

func newRun() *cobra.Command {
	var s settings
	var quiet bool
	var format string
	c := &cobra.Command{
		Use:   "run FILE",
		Short: "Run what a YAML file says",
		Long: `Runs what a YAML file says. Results go to the folder runs/NAME, NAME being the
name in the file; those of a run before are moved to NAME.1, NAME.2 and so on.

The first Ctrl-C stops the run cleanly and says what was kept; the second one
ends the program at once.`,
		Example: `  pipeline run examples/quickstart/train.yaml
  pipeline run train.yaml --epochs 5 --set batches.train.solver.lr=0.02
  pipeline run train.yaml --log-format json | tee log.jsonl`,
		Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return usagef("--log-format is text or json, not %q", format)
			}
			spec, err := s.load(args[0])
			if err != nil {
				return err
			}
			r := &runner{
				spec: spec, file: args[0], sets: s.all, quiet: quiet,
				stderr:  c.ErrOrStderr(),
				human:   c.OutOrStdout(),
				console: newConsole(c.OutOrStdout(), c.ErrOrStderr(), format == "json", quiet),
			}
			if format == "json" {
				r.human = r.stderr
			}
			return r.run(c.Context())
		},
	}
	s.flags(c)
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print errors and one line at the end only")
	c.Flags().StringVar(&format, "log-format", "text", "text, or json for one object a line on standard output")
	return c
}

// runner is one call of the run command.
type runner struct {
	spec          *pipeline.Spec
	file          string
	sets          []string
	quiet         bool
	human, stderr io.Writer
	console       *console
}

func (r *runner) run(ctx context.Context) error {
	if ctx == nil {
		ctx = context.Background()
	}
	v := currentVersions()
	line, err := r.spec.Line(v.String())
	if err != nil {
		return err
	}
	line.Sinks = append(line.Sinks, pipeline.NamedSink{Name: "console", Sink: r.console})

	ctx, stop := untilSignal(ctx, r.stderr)
	defer stop()
	began := time.Now()
	dir, err := openRunDir(line.Env.RunDir, line.Env.Resolved, runRecord{
		Name: line.Env.Name, Status: "running", Seed: line.Seed, File: r.file, Set: r.sets,
		Started: began.UTC(), Versions: v,
	})
	if err != nil {
		return err
	}
	err = line.Run(ctx)
	took := time.Since(began)

	if err == nil {
		if err := dir.finish("done", nil); err != nil {
			return err
		}
		if r.quiet {
			r.console.oneLine(r.human, dir, took)
		} else {
			r.console.summary(r.human, dir, took)
		}
		return nil
	}
	status, code := "failed", exitFailed
	var sig interrupted
	if errors.As(err, &sig) {
		status, code = "interrupted", sig.exitCode()
	}
	finished := dir.finish(status, err)
	r.tellFailure(dir, err, status)
	if finished != nil {
		fmt.Fprintf(r.stderr, "pipeline: %v\n", finished)
	}
	return &exitError{code: code}
}

// tellFailure says why a run ended early and what it leaves.
func (r *runner) tellFailure(d *runDir, err error, status string) {
	if status == "interrupted" {
		fmt.Fprintln(r.stderr, "pipeline: interrupted")
	} else {
		report(r.stderr, err)
	}
	r.console.whatWasKept(r.stderr, d)
}
