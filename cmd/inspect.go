package cmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sluice/gpu"
	"sluice/sinks"
)

func newInspect() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Say what is in a file of weights, a checkpoint, or features",
		Long: `Reads a file to its end and says what is in it:

  weights, checkpoints  the network with its layers and parameters, how images
                        are made for it and the fingerprint of that, the
                        classes, how far the training was; a checkpoint's
                        checksum is verified
  features              a part, or a folder of them with its manifest.json:
                        rows, columns, where they are from, a checksum of each
                        column's values, which no format changes. Parts are
                        held to their checksums

The exit code is 1 if something is damaged or missing.`,
		Example: `  pipeline inspect runs/quickstart/weights.safetensors
  pipeline inspect runs/features/features --json`,
		Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			path := args[0]
			info, err := os.Stat(path)
			if err != nil {
				return usagef("%s: %w; name a file of weights, a checkpoint, or a folder of features, as runs/NAME/features", path, reason(err))
			}
			if !info.IsDir() && !info.Mode().IsRegular() {
				return usagef("%s is no regular file", path)
			}
			out := c.OutOrStdout()
			if isFeatures(path, info) {
				d, err := sinks.InspectFeatures(path)
				if err != nil {
					return err
				}
				if err := show(out, d, asJSON, printFeatures); err != nil {
					return err
				}
				for _, p := range d.Problems {
					fmt.Fprintf(c.ErrOrStderr(), "pipeline: %s: %s\n", d.Path, p)
				}
				if len(d.Problems) > 0 {
					return &exitError{code: exitFailed}
				}
				return nil
			}
			if info.IsDir() {
				return usagef("%s is a folder without a manifest.json and without index.npy: name a file in it, as %s", path, filepath.Join(path, "weights.safetensors"))
			}
			d, err := gpu.Inspect(path)
			if err != nil {
				return err
			}
			return show(out, d, asJSON, printWeights)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

// isFeatures looks at what a path leads to.
func isFeatures(path string, info os.FileInfo) bool {
	if info.IsDir() {
		for _, name := range []string{"manifest.json", "index.npy"} {
			if _, err := os.Stat(filepath.Join(path, name)); err == nil {
				return true
			}
		}
		return false
	}
	if info.Name() == "manifest.json" {
		return true
	}
	f, err := os.Open(path)
	if err != nil {
		return false // told by who reads it
	}
	defer f.Close()
	head := make([]byte, 6)
	n, _ := io.ReadFull(f, head)
	return strings.HasPrefix(string(head[:n]), "PAR1") || string(head[:n]) == "ARROW1"
}

func show[T any](out io.Writer, d *T, asJSON bool, print func(io.Writer, *T)) error {
	if !asJSON {
		print(out, d)
		return nil
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	err := enc.Encode(d)
	var unsupported *json.UnsupportedValueError
	if errors.As(err, &unsupported) {
		return fmt.Errorf("it holds a number that JSON has not: %w", err)
	}
	return err
}

// field prints a name and a text, wrapped at 80 columns.
func field(out io.Writer, name, format string, args ...any) {
	const indent, width = 15, 80
	line := fmt.Sprintf("%-*s", indent, name)
	at := indent
	for i, word := range strings.Fields(fmt.Sprintf(format, args...)) {
		if n := len([]rune(word)); i > 0 && at+1+n > width {
			line, at = line+"\n"+strings.Repeat(" ", indent), indent
		} else if i > 0 {
			line, at = line+" ", at+1
		}
		line += word
		at += len([]rune(word))
	}
	fmt.Fprintln(out, line)
}

// listed names the first of many.
func listed(names []string) string {
	const most = 20
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

func printWeights(out io.Writer, d *gpu.Description) {
	field(out, d.Kind, "%s, %s", d.File, size(d.Bytes))
	field(out, "sha256", "%s", d.SHA256)
	if d.Kind == "tensors" {
		field(out, "", "it does not say what its network is: pipeline import makes weights of it")
		field(out, "parameters", "%s in %d tensors", grouped(int64(d.Parameters)), len(d.Tensors))
		fmt.Fprintln(out)
		for _, t := range d.Tensors {
			fmt.Fprintf(out, "  %-40s %v\n", t.Name, t.Shape)
		}
		return
	}
	field(out, "parameters", "%s in %d tensors", grouped(int64(d.Parameters)), len(d.Tensors))
	field(out, "classes", "%d: %s", len(d.Classes), listed(d.Classes))
	in := d.Image
	mean := fmt.Sprintf("[%s]", three(in.Mean))
	if in.MeanImage != nil {
		mean = "the mean image"
	}
	field(out, "image", "%dx%d %s, (level - %s) * [%s]", in.Width, in.Height, in.Channels, mean, three(in.Scale))
	if in.Padding != [4]int{} {
		field(out, "", "zeros around it: %d above, %d below, %d left, %d right", in.Padding[0], in.Padding[1], in.Padding[2], in.Padding[3])
	}
	field(out, "preprocessing", "%s", d.Preprocessing)
	if d.Samples == "" {
		field(out, "samples", "it does not say by which sample stages images are made")
	}
	for i, line := range strings.Split(strings.TrimRight(d.Samples, "\n"), "\n") {
		name := ""
		if i == 0 {
			name = "samples"
		}
		if line != "" {
			fmt.Fprintf(out, "%-15s%s\n", name, line)
		}
	}
	t := d.Training
	at := fmt.Sprintf("epoch %d, step %d", t.Epoch+1, t.Step)
	if t.Epochs > 0 {
		at = fmt.Sprintf("epoch %d of %d, step %d, %d images of the epoch done, lr %g", t.Epoch+1, t.Epochs, t.Step, t.Position, t.LR)
	}
	if t.Top1 != nil {
		at += fmt.Sprintf(", %s top-1 on validation", percent(*t.Top1))
	}
	if t.Step > 0 {
		field(out, "training", "%s", at)
	}
	field(out, "seed", "%s", t.Seed)
	field(out, "written by", "version %s", t.Version)

	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, kind, shape, params, macs string) {
		fmt.Fprintf(w, "  %s\t%s\t%s\t%13s\t%16s\n", name, kind, shape, params, macs)
	}
	row("layer", "type", "output", "parameters", "multiply-adds")
	for _, l := range d.Layers {
		row(l.Name, l.Type, fmt.Sprintf("%dx%dx%d", l.Output[0], l.Output[1], l.Output[2]), grouped(int64(l.Parameters)), grouped(l.MACs))
	}
	row("total", "", "", grouped(int64(d.Parameters)), grouped(d.MACs))
	_ = w.Flush() // what out cannot take is nothing that more could be said about
}

func three(v [3]float32) string {
	text := make([]string, 3)
	for i, x := range v {
		text[i] = strconv.FormatFloat(float64(x), 'g', 5, 32)
	}
	return strings.Join(text, " ")
}

// grouped writes 60965224 as 60,965,224.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func printFeatures(out io.Writer, d *sinks.FeaturesDescription) {
	field(out, d.Kind, "%s, %s", d.Path, d.Format)
	field(out, "rows", "%s, of the images %d to %d", grouped(int64(d.Rows)), d.First, d.Last)
	if m := d.Manifest; m != nil {
		state := "complete"
		if !m.Complete {
			state = "not complete"
		}
		bytes := int64(0)
		for _, p := range m.Parts {
			for _, f := range p.Files {
				bytes += f.Bytes
			}
		}
		field(out, "parts", "%d of %d images each, %s, of a source of %d images; %s", len(m.Parts), m.RowsPerPart, size(bytes), m.Images, state)
	}
	for _, key := range []string{"weights_sha256", "preprocessing", "layers", "pool", "normalize"} {
		if v := d.Metadata[key]; v != "" {
			field(out, strings.TrimSuffix(key, "_sha256"), "%s", v)
		}
	}
	for _, key := range []string{"classes", "labels"} {
		var names []string
		if json.Unmarshal([]byte(d.Metadata[key]), &names) == nil {
			field(out, key, "%d: %s", len(names), listed(names))
		}
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "  column\ttype\tsha256 of its values\n")
	for _, c := range d.Columns {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", clipped(c.Name, 20), shortType(c.Type), c.SHA256[:32])
	}
	_ = w.Flush()
}

// shortType is Arrow's name of a list of numbers in fewer words.
func shortType(t string) string {
	rest, ok := strings.CutPrefix(t, "fixed_size_list<item: ")
	if !ok {
		return t
	}
	of, n, ok := strings.Cut(rest, ">[")
	if !ok {
		return t
	}
	return strings.TrimSuffix(n, "]") + " x " + strings.TrimSuffix(of, ", nullable")
}
