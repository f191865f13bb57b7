package pipeline

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
)

// Report is what a run will do and need, found without running it.
type Report struct {
	Name, RunDir string
	Source       string
	Samples      int
	Classes      []string // nil if the source knows none
	Validation   string   // its source, empty without validation
	// ValidationSamples is the length of the validation source.
	ValidationSamples int
	Steps             []string // labels of the sample stages
	Frame             Frame
	BatchSize         int
	Shuffle, DropLast bool
	StepsPerEpoch     int
	Epochs            int
	Workers           int
	Stages, Sinks     []StageReport
	Memory            []Memory
}

// StageReport is what a batch stage or a sink says of itself.
type StageReport struct {
	Name, Doc, Text string // Doc is of batch stages only: what a sink writes is known by its name
}

// Check says what a run will do. It allocates no tensor and writes no file. The
// file's own mistakes were found by Parse; its error is one of the place that
// results are to go to.
func (s *Spec) Check() (*Report, error) {
	if err := creatable(s.env.RunDir); err != nil {
		return nil, fmt.Errorf("the run folder %s cannot be made: %w", s.env.RunDir, err)
	}
	env := &s.env
	r := &Report{
		Name: env.Name, RunDir: env.RunDir, Source: s.Source.Name, Samples: env.Samples, Classes: env.Classes,
		Frame: env.Frame, BatchSize: env.BatchSize, Shuffle: s.Batch.Shuffle.or(s.train), DropLast: env.DropLast,
		StepsPerEpoch: env.StepsPerEpoch, Epochs: env.Epochs, Workers: env.Workers,
	}
	for _, step := range steps(s.Samples) {
		r.Steps = append(r.Steps, step.Label)
	}
	buffers := 2 // one is filled while the other is worked on
	for _, b := range s.Batches {
		buffers += holds(b.Value)
	}
	pool := func(what string, f Frame, rows int) Memory {
		size := newLayout(f, rows, env.Classes).size
		return Memory{fmt.Sprintf("%d %s of %d images %dx%d", buffers, what, rows, f.W, f.H), int64(buffers) * int64(size)}
	}
	r.Memory = append(r.Memory, pool("batches", env.Frame, env.BatchSize))
	if v := s.validation; v != nil {
		r.Validation, r.ValidationSamples = v.SourceName, env.ValidationSamples
		r.Memory = append(r.Memory, pool("validation batches", v.Frame, v.BatchSize))
	}
	for i, p := range s.plans {
		said := StageReport{Name: p.name, Text: strings.TrimRight(p.plan.Text, "\n")}
		if i < len(s.Batches) {
			if e, ok := BatchStages.Lookup(p.name); ok {
				said.Doc = e.Doc
			}
			r.Stages = append(r.Stages, said)
		} else {
			r.Sinks = append(r.Sinks, said)
		}
		for _, m := range p.plan.Memory {
			r.Memory = append(r.Memory, Memory{p.name + ": " + m.Name, m.Bytes})
		}
	}
	return r, nil
}

// creatable reports what would hinder making a folder, without making it: the
// closest thing above it that there is must be a folder that can be written to.
func creatable(dir string) error {
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		switch {
		case err == nil && !info.IsDir():
			return fmt.Errorf("%s is a file", at)
		case err == nil && info.Mode().Perm()&0o222 == 0:
			return fmt.Errorf("%s is read-only", at)
		case err == nil:
			return nil
		case errors.Is(err, fs.ErrPermission) || at == filepath.Dir(at):
			return err
		}
	}
}

// TotalBytes is the sum of the memory table.
func (r *Report) TotalBytes() int64 {
	var sum int64
	for _, m := range r.Memory {
		sum += m.Bytes
	}
	return sum
}

// String is the report as a text for a terminal.
func (r *Report) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(what, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", what, fmt.Sprintf(format, args...))
	}
	row("run", "%s", r.Name)
	classes := "no classes"
	if r.Classes != nil {
		classes = fmt.Sprintf("%d classes (%s)", len(r.Classes), someOf(r.Classes))
	}
	row("source", "%s: %d images, %s", r.Source, r.Samples, classes)
	if len(r.Steps) > 0 {
		row("samples", "%s, by %d workers", strings.Join(r.Steps, ", "), r.Workers)
	}
	if r.Validation != "" {
		row("validation", "%s: %d images", r.Validation, r.ValidationSamples)
	}
	order, last := "in the source's order", "the short last one kept"
	if r.Shuffle {
		order = "shuffled"
	}
	if r.DropLast {
		last = "a short last one dropped"
	}
	of := fmt.Sprintf("%d images", r.BatchSize)
	if n := r.Frame.views(); n > 1 {
		of = fmt.Sprintf("%d pictures, %d of each image,", r.BatchSize, n)
	}
	row("batches", "%s of %dx%d, %s, %s", of, r.Frame.W, r.Frame.H, order, last)
	row("steps", "%d an epoch, %d epochs, %d in all", r.StepsPerEpoch, r.Epochs, r.StepsPerEpoch*r.Epochs)
	_ = w.Flush() // a strings.Builder cannot fail

	if len(r.Stages) == 0 {
		b.WriteString("\nno batch stage: images are read and batched, and nothing is done with them\n")
	}
	for _, s := range r.Stages {
		said := s.Text
		if said == "" {
			said = s.Doc
		}
		fmt.Fprintf(&b, "\n%s\n%s\n", s.Name, indent(said))
	}

	b.WriteString("\nmemory\n")
	for _, m := range r.Memory {
		fmt.Fprintf(w, "  %s\t%s\n", m.Name, mebibytes(m.Bytes))
	}
	fmt.Fprintf(w, "  total\t%s\n", mebibytes(r.TotalBytes()))
	_ = w.Flush()

	if len(r.Sinks) == 0 {
		b.WriteString("\nno sink: no results are written\n")
		return b.String()
	}
	fmt.Fprintf(&b, "\nwrites to %s\n", r.RunDir)
	for _, s := range r.Sinks {
		b.WriteString(strings.TrimRight(fmt.Sprintf("  %-12s %s", s.Name, strings.Join(strings.Fields(s.Text), " ")), " ") + "\n")
	}
	return b.String()
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(text, "\n", "\n  ")
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
