package cmd

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"sluice/net"
	"sluice/pipeline"
	"sluice/pipeline/config"
)

func newStages() *cobra.Command {
	return &cobra.Command{
		Use:   "stages [NAME]",
		Short: "List all that a YAML can name, or tell the options of one",
		Long: `Without an argument: the fields of the file, and every source, stage, sink,
layer, preset and schedule.
With a name: its options with their types, defaults and meaning.`,
		Example: `  pipeline stages
  pipeline stages random_crop
  pipeline stages run`,
		Args: atMostOne,
		RunE: func(c *cobra.Command, args []string) error {
			out := &errWriter{w: c.OutOrStdout()}
			if len(args) == 0 {
				listCatalogue(out, catalogue(), invocation())
				return out.err
			}
			if !tellEntry(out, catalogue(), args[0]) {
				return unknownEntry(args[0])
			}
			return out.err
		},
	}
}

// entry is one thing that a YAML can name.
type entry struct {
	kind, name, doc string
	fields          []config.Field
}

// group is the things of one kind.
type group struct {
	title   string // with its place in the YAML
	entries []entry
	also    string // true of each of them
}

// catalogue is all that this program has registered, after what a file is made of.
func catalogue() []group {
	var file []entry
	for _, f := range pipeline.FileFields() {
		file = append(file, entry{"field of the file: " + f.Type, f.Name, f.Doc, f.Fields})
	}
	return []group{
		{title: fileTitle, entries: file},
		{title: "sources (source:)", entries: entriesOf(pipeline.Sources)},
		{title: "sample stages (samples:)", entries: entriesOf(pipeline.SampleStages)},
		{title: "batch stages (batches:)", entries: entriesOf(pipeline.BatchStages)},
		{title: "sinks (sinks:)", entries: entriesOf(pipeline.Sinks)},
		{title: "network presets (net:)", entries: entriesOf(net.Presets)},
		{title: "layers (net: layers:)", entries: entriesOf(net.Layers),
			also: "Like every layer it may have a name, and say from which layer it reads: from: NAME, or a list of names (input is the batch). Left out, it reads the layer before."},
		{title: "schedules (solver: schedule:)", entries: entriesOf(net.Schedules)},
	}
}

func entriesOf[T any](r *config.Registry[T]) []entry {
	var entries []entry
	for _, name := range r.Names() {
		e, _ := r.Lookup(name)
		entries = append(entries, entry{r.Kind(), name, e.Doc, e.Fields()})
	}
	return entries
}

const fileTitle = "the file (YAML)"

// docWidth is how wide texts are set: readable, and narrower than a terminal.
const docWidth = 78

func listCatalogue(out io.Writer, groups []group, program string) {
	longest := 0
	for _, g := range groups {
		for _, e := range g.entries {
			longest = max(longest, len(e.name))
		}
	}
	for _, g := range groups {
		if len(g.entries) == 0 {
			continue
		}
		fmt.Fprintln(out, g.title)
		for _, e := range g.entries {
			indented(out, fmt.Sprintf("  %-*s  ", longest, e.name), firstSentence(e.doc))
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintf(out, "The options of one: %s stages NAME\n", program)
}

// tellEntry tells everything of the entries called name; there may be a source
// and a sink of one name.
func tellEntry(out io.Writer, groups []group, name string) bool {
	found := false
	for _, g := range groups {
		for _, e := range g.entries {
			if e.name != name {
				continue
			}
			if found {
				fmt.Fprintln(out)
			}
			found = true
			indented(out, "", fmt.Sprintf("%s (%s)", e.name, e.kind))
			indented(out, "  ", e.doc)
			if len(e.fields) == 0 && g.title != fileTitle {
				fmt.Fprintln(out, "\n  It has no options.")
			}
			tellFields(out, "  ", e.fields)
			if g.also != "" {
				fmt.Fprintln(out)
				indented(out, "  ", g.also)
			}
		}
	}
	return found
}

func tellFields(out io.Writer, indent string, fields []config.Field) {
	for _, f := range fields {
		head := fmt.Sprintf("%s: %s", f.Name, f.Type)
		switch {
		case f.Required:
			head += ", required"
		case f.Default != "" && len(f.Fields) == 0:
			head += ", default " + f.Default
		}
		fmt.Fprintln(out)
		indented(out, indent, head)
		indented(out, indent+"    ", f.Doc)
		tellFields(out, indent+"    ", f.Fields)
	}
}

func unknownEntry(name string) error {
	var names []string
	for _, g := range catalogue() {
		for _, e := range g.entries {
			names = append(names, e.name)
		}
	}
	hint := fmt.Sprintf("; %s stages lists all", invocation())
	if near, ok := config.Nearest(name, names); ok {
		hint = fmt.Sprintf(", did you mean %q?", near)
	}
	return usagef("nothing is called %q%s", name, hint)
}

// indented prints text in lines of docWidth, the first after prefix and the
// others below it.
func indented(out io.Writer, prefix, text string) {
	blank := strings.Repeat(" ", len(prefix))
	line := prefix
	for _, word := range strings.Fields(text) {
		if len([]rune(line))+len([]rune(word)) > docWidth && strings.TrimSpace(line) != "" && line != prefix {
			fmt.Fprintln(out, strings.TrimRight(line, " "))
			line = blank
		}
		line += word + " "
	}
	fmt.Fprintln(out, strings.TrimRight(line, " "))
}

func firstSentence(doc string) string {
	if s, _, ok := strings.Cut(doc, ". "); ok {
		return s
	}
	return strings.TrimSuffix(doc, ".")
}

// errWriter keeps the first error, so that it is looked at once.
type errWriter struct {
	w   io.Writer
	err error
}

func (e *errWriter) Write(p []byte) (int, error) {
	if e.err != nil {
		return 0, e.err
	}
	n, err := e.w.Write(p)
	if err != nil {
		e.err = fmt.Errorf("writing to standard output: %w", reason(err))
	}
	return n, err
}
