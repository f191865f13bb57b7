package cmd

import (
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sluice/net"
	"sluice/pipeline"
)

// about says what the usual files of a run folder are.
var about = map[string]string{
	"run.json":            "versions, seed, times",
	"resolved.yaml":       "every setting that was in force",
	"metrics.jsonl":       "loss, accuracy and speed, step by step",
	"metrics.parquet":     "the same as a table",
	"weights.safetensors": "the weights; safetensors.torch.load_file reads them",
	"curves.png":          "curves of loss and accuracy",
	"kernels.png":         "the first layer's kernels",
	"classes.parquet":     "the accuracy of each class",
	"confusion.parquet":   "how many of each class were taken for each",
	"confusion.png":       "the same as a picture",
	"quarantine.parquet":  "images left out, or used in spite of damage, and why",
	"checkpoints/":        "what it takes to go on from there",
	"features/":           "the features, in parts that manifest.json names",
}

// result is how good a run was, in a few words: the validation if there was one,
// else the training. Where features were wanted it is how many.
func (c *console) result() string {
	switch {
	case c.extracts && c.features == 0:
		return "all features were there already"
	case c.extracts:
		return fmt.Sprintf("features of %d images", c.features)
	case c.validation != nil:
		return accuracy(*c.validation) + " on validation"
	case c.done != nil:
		return accuracy(*c.done)
	case c.step != nil:
		return accuracy(*c.step) + " in training"
	}
	return "done, and nothing was measured: no stage under batches trains, evaluates or extracts"
}

func accuracy(m pipeline.Metric) string {
	return fmt.Sprintf("%s top-1, %s top-5, loss %.3f", percent(m.Top1), percent(m.Top5), m.Loss)
}

// summary tells what came out of a run that succeeded.
func (c *console) summary(out io.Writer, d *runDir, took time.Duration) {
	fmt.Fprintf(out, "\n%s: %s\n", d.record.Name, c.result())
	if m := c.done; m != nil {
		fmt.Fprintf(out, "  took    %s, %s, %s (waited %s for images, %s for sinks)\n",
			duration(took), rate(m.ImagesPerSecond), bottleneck(m.InputWait, m.SinkWait), percent(m.InputWait), percent(m.SinkWait))
	}
	fmt.Fprintf(out, "  files   %s\n", d.path)
	d.list(out)
	if d.kept != "" {
		fmt.Fprintf(out, "  before  the run before is in %s\n", d.kept)
	}
	label := "next"
	for _, next := range d.next() {
		fmt.Fprintf(out, "  %-6s  %s %s\n", label, invocation(), next)
		label = ""
	}
}

// next are the commands that what lies in the run folder is for.
func (d *runDir) next() []string {
	var next []string
	for _, f := range d.files() {
		at := filepath.Join(d.path, f.name)
		switch f.name {
		case "weights.safetensors":
			next = append(next,
				"evaluate "+at+" --data DIR  measures them on a folder of class sub-folders",
				"predict "+at+" IMAGE  says what is in an image")
		case "features/":
			next = append(next, "inspect "+at+"  tells what is in them, and whether they are whole")
		}
	}
	return append(next, "init  writes a YAML to make your own", "stages  lists all that it can name")
}

// oneLine is the summary of a quiet run.
func (c *console) oneLine(out io.Writer, d *runDir, took time.Duration) {
	fmt.Fprintf(out, "%s: %s, %s, %s\n", d.record.Name, c.result(), duration(took), d.path)
}

// list tells the files of a run folder.
func (d *runDir) list(out io.Writer) {
	for _, f := range d.files() {
		line := fmt.Sprintf("          %-20s %7s  %s", f.name, size(f.size), about[f.name])
		fmt.Fprintln(out, strings.TrimRight(line, " "))
	}
}

// whatWasKept tells what is left of a run that did not come to its end.
func (c *console) whatWasKept(out io.Writer, d *runDir) {
	// What was last shown may be some steps old.
	step := 0
	if c.step != nil {
		step = c.step.Step
	}
	at, err := net.Checkpoints(filepath.Join(d.path, net.CheckpointDir))
	resumable := err == nil && len(at) > 0 && !c.extracts
	if resumable {
		step = max(step, at[0].Step)
	}
	if step > 0 {
		fmt.Fprintf(out, "stopped after step %d of %d; kept in %s:\n", step, c.prog.total(), d.path)
	} else {
		fmt.Fprintf(out, "stopped before the first step; kept in %s:\n", d.path)
	}
	d.list(out)
	if c.extracts {
		return
	}
	if resumable {
		command := []string{invocation(), "run", d.record.File}
		for _, s := range d.record.Set {
			command = append(command, "--set", strconv.Quote(s))
		}
		fmt.Fprintf(out, "to go on after step %d: %s --resume\n", at[0].Step, strings.Join(command, " "))
		return
	}
	for _, f := range d.files() {
		if filepath.Ext(f.name) == ".safetensors" {
			return
		}
	}
	fmt.Fprintln(out, "no weights had been written yet")
}
