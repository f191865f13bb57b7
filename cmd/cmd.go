// Package cmd is the pipeline command: Main, and one file a sub-command. What a
// YAML can name is what the program imports, see cmd/pipeline/main.go.
//
// Exit codes: 0 ok, 1 the run failed, 2 usage or configuration, 130 and 143
// ended by SIGINT and SIGTERM.
package cmd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"sluice/pipeline"
	"sluice/pipeline/config"
)

const (
	exitFailed = 1
	exitUsage  = 2
)

// Main runs the command line of the process and exits.
func Main() {
	root := newRoot()
	root.SetArgs(os.Args[1:])
	// Without this, a reader that goes away (| head) kills a run on its next
	// line, and with it what the run would have kept.
	ignoreBrokenPipes()
	out := &lossyPipe{w: os.Stdout}
	root.SetOut(out)
	root.SetErr(&lossyPipe{w: os.Stderr})
	err := root.Execute()
	if failed := out.err(); err == nil && failed != nil {
		err = fmt.Errorf("not all that was to be said is on the standard output: %w", reason(failed))
	}
	os.Exit(report(root.ErrOrStderr(), err))
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:     "pipeline",
		Short:   "Train a network on images, as a YAML file says",
		Version: currentVersions().String(),
		Long: `pipeline reads images through a line of stages (decode, resize, crop, flip,
jitter), trains or evaluates a network on them, and writes metrics and weights.
One YAML file says it all.

Exit codes: 0 success, 1 a run that failed, 2 a mistake in the command or the
YAML, 130 after Ctrl-C, 143 after SIGTERM.`,
		Example: `  pipeline init                # writes train.yaml, to be changed
  pipeline check train.yaml    # what is wrong with it, what it will do
  pipeline run train.yaml`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return unknownCommand(c, args[0])
		},
		RunE: func(c *cobra.Command, _ []string) error {
			_ = c.Help()
			return &exitError{exitUsage, nil}
		},
	}
	root.SetFlagErrorFunc(flagError)
	root.SetUsageTemplate(usageTemplate)
	root.SetVersionTemplate("{{.Version}}\n")
	root.AddGroup(&cobra.Group{ID: groupRuns, Title: "Runs:"}, &cobra.Group{ID: groupWeights, Title: "Weights and features:"}, &cobra.Group{ID: groupAbout, Title: "More:"})
	root.AddCommand(inGroup(groupRuns, newInit(), newCheck(), newRun(), newBench(), newStats(), newVerifyResume())...)
	root.AddCommand(inGroup(groupWeights, newEvaluate(), newPredict(), newInspect(), newImport(), newExport(), newMerge(), newNeighbors())...)
	root.AddCommand(inGroup(groupAbout, newStages(), newNew(), newDevices(), newVersion())...)
	root.SetHelpCommand(newHelp())
	return root
}

func unknownCommand(c *cobra.Command, name string) error {
	hint := ""
	var known []string
	for _, sub := range c.Commands() {
		known = append(known, sub.Name())
	}
	if near, ok := config.Nearest(name, known); ok {
		hint = fmt.Sprintf(", did you mean %q?", near)
	} else if strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml") {
		hint = fmt.Sprintf(", did you mean \"run %s\"?", name)
	}
	return usagef("unknown command %q%s\nSee '%s --help'.", name, hint, c.CommandPath())
}

// exitError is an error that decides the exit code. A nil err has been told
// already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usagef is a mistake of whoever typed the command or wrote the YAML.
func usagef(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// exactly is cobra.ExactArgs with a message that says what is missing.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usagef("%s needs %s\nSee '%s --help'.", c.Name(), strings.Join(names[len(args):], " "), c.CommandPath())
		case len(names) == 0 && len(args) > 0:
			return usagef("%s takes no argument, not %q\nSee '%s --help'.", c.Name(), args[0], c.CommandPath())
		case len(args) > len(names):
			return usagef("%s takes %s only, not also %q\nSee '%s --help'.", c.Name(), strings.Join(names, " "), args[len(names)], c.CommandPath())
		}
		return nil
	}
}

// atMostOne allows one argument or none.
func atMostOne(c *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usagef("%s takes one argument at most, not also %q\nSee '%s --help'.", c.Name(), args[1], c.CommandPath())
	}
	return nil
}

// report prints an error, one line a mistake, and gives the exit code.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return 0
	}
	code := exitFailed
	var exit *exitError
	if errors.As(err, &exit) {
		code = exit.code
		if exit.err == nil {
			return code
		}
	}
	var sig interrupted
	if errors.As(err, &sig) {
		fmt.Fprintln(stderr, "pipeline: interrupted")
		return sig.exitCode()
	}
	var mistakes config.Errors
	var failed *pipeline.Error
	switch {
	case errors.As(err, &mistakes): // they say where they are themselves
		fmt.Fprintln(stderr, mistakes)
	case errors.As(err, &failed) && failed.Stack != nil:
		fmt.Fprintf(stderr, "pipeline: %v\n\n%s\n", err, failed.Stack)
	default:
		fmt.Fprintf(stderr, "pipeline: %v\n", err)
	}
	return code
}

// invocation is how to call this program again: what a hint should print.
func invocation() string {
	arg := os.Args[0]
	if strings.Contains(filepath.ToSlash(arg), "/go-build") {
		if info, ok := debug.ReadBuildInfo(); ok && info.Main.Path != "sluice" {
			return "go run ." // a module of one's own
		}
		return "go run ./cmd/pipeline"
	}
	return arg
}
