package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/pipeline"
)

func newRun() *cobra.Command {
	var s settings
	var quiet bool
	var steps int
	var resume, shard, traceFile string
	var format string
	c := &cobra.Command{
		Use:   "run FILE",
		Short: "Run what a YAML file says",
		Long: `Runs what a YAML file says. Results go to the folder runs/NAME, NAME being the
name in the file; those of a run before are moved to NAME.1, NAME.2 and so on.

The first Ctrl-C stops the run cleanly and says what was kept; the second one
ends the program at once.

With "checkpoints" among its sinks, or "features", a run that was stopped, or
killed at any moment, can be gone on with by --resume, in its folder, to the
same bits as if it had run through. A file that has since changed in what
changes the numbers is refused, with the difference; --resume=force goes on all
the same. The number of epochs may change where the schedule does not depend on
it.

A features run can be shared out to n machines that see the same files: --shard
1/n to n/n, each in a folder of its own (NAME.1-of-n), see pipeline merge.`,
		Example: `  pipeline run examples/quickstart/train.yaml
  pipeline run train.yaml --epochs 5 --set batches.train.solver.lr=0.02
  pipeline run train.yaml --resume
  pipeline run extract.yaml --shard 2/4
  pipeline run train.yaml --log-format json | tee log.jsonl`,
		Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return usagef("--log-format is text or json, not %q", format)
			}
			if resume != "" && resume != "exact" && resume != "force" {
				return usagef("--resume has no value, or force, not %q (write --resume=force)", resume)
			}
			if steps < 0 {
				return usagef("--steps is at least 1, not %d", steps)
			}
			part, err := parseShard(shard, os.Getenv(jobIndex))
			if err != nil {
				return err
			}
			spec, err := s.load(args[0])
			if err != nil {
				return err
			}
			r := &runner{
				shard: part,
				spec:  spec, again: func() (*pipeline.Spec, error) { return s.load(args[0]) }, file: args[0], sets: s.all, quiet: quiet, steps: steps, resume: resume, traceFile: traceFile,
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
	c.Flags().StringVar(&resume, "resume", "", "go on with the run of that name where it was; `HOW` is exact, or force though the file has changed")
	c.Flags().Lookup("resume").NoOptDefVal = "exact"
	c.Flags().IntVar(&steps, "steps", 0, "end after `N` steps in all, as if the epochs were over")
	c.Flags().StringVar(&shard, "shard", "", "compute only the i-th of n parts of the features, `i/n` as 2/4 (auto/4: by "+jobIndex+"); merge joins them")
	c.Flags().StringVar(&traceFile, "trace", "", "write to `FILE` what happened when, for ui.perfetto.dev")
	c.Flags().StringVar(&format, "log-format", "text", "`FORMAT`: text, or json for one object a line on standard output")
	return c
}

// runner is one call of the run command.
type runner struct {
	spec          *pipeline.Spec
	again         func() (*pipeline.Spec, error) // the same, made anew
	file          string
	sets          []string
	quiet         bool
	steps         int
	shard         pipeline.Shard
	resume        string // "", "exact" or "force"
	traceFile     string // "" for none
	human, stderr io.Writer
	console       *console
}

func (r *runner) run(ctx context.Context) error {
	ctx, stop := untilSignal(ctx, r.stderr)
	defer stop()
	k := keeper{dir: statisticsDir(r.spec), told: r.stderr}
	if r.quiet {
		k.told = io.Discard
	}
	if err := k.giveStatistics(ctx, r.spec, r.again); err != nil {
		return err
	}
	v := currentVersions()
	line, err := r.line(v)
	if err != nil {
		return err
	}
	var tr *trace
	if r.traceFile != "" {
		if tr, err = newTrace(r.traceFile); err != nil {
			return &exitError{exitUsage, err}
		}
		defer tr.discard()
	}
	began := time.Now()
	open := openRunDir
	if line.Env.Resume {
		open = resumeRunDir
	}
	dir, err := open(line.Env.RunDir, line.Env.Resolved, runRecord{
		Name: line.Env.Name, Status: "running", Seed: line.Seed, File: r.file, Set: r.sets,
		Started: began.UTC(), Versions: v,
	})
	if errors.Is(err, pipeline.ErrResume) {
		return &exitError{exitUsage, err}
	}
	if err != nil {
		return err
	}
	line.Sinks = append(line.Sinks, pipeline.NamedSink{Name: "run folder", Sink: beginSink{dir}})
	if tr != nil {
		line.Env.Trace = tr.span
	}
	err = line.Run(ctx)
	took := time.Since(began)
	if tr != nil {
		if traceErr := tr.close(); traceErr != nil {
			line.Env.Warn(traceErr.Error())
		}
	}

	if err != nil {
		return r.fail(dir, err)
	}
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

// line is what the file says, as the flags want it to run.
func (r *runner) line(v versions) (*pipeline.Line, error) {
	line, err := r.spec.Line(v.String())
	if err != nil {
		return nil, err
	}
	line.Sinks = append(line.Sinks, pipeline.NamedSink{Name: "console", Sink: r.console})
	line.StopAfter = r.steps
	if r.shard.Of > 1 {
		if err := line.ShareOut(r.shard); err != nil {
			return nil, usagef("--shard: %w", err)
		}
		line.Env.Name += shardSuffix(r.shard)
		line.Env.RunDir += shardSuffix(r.shard)
	}
	line.Env.Resume, line.Env.Force = r.resume != "", r.resume == "force"
	line.Env.Warn = func(text string) { r.console.warn(r.stderr, "pipeline: "+text) }
	return line, nil
}

// fail notes and tells how a run ended early, and gives its exit code.
func (r *runner) fail(dir *runDir, err error) error {
	status, code := "failed", exitFailed
	var sig interrupted
	if errors.As(err, &sig) {
		status, code = "interrupted", sig.exitCode()
	}
	if errors.Is(err, pipeline.ErrResume) {
		return &exitError{exitUsage, errors.Join(err, dir.finish(status, err))}
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
		if more := strings.TrimSpace(strings.TrimPrefix(err.Error(), "interrupted")); more != "" { // not all could be saved
			fmt.Fprintf(r.stderr, "pipeline: %s\n", more)
		}
	} else {
		report(r.stderr, err)
	}
	r.console.whatWasKept(r.stderr, d)
}
