package cmd

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Every command tells what it does, with an example, in lines that a terminal of 80
// columns shows whole, and every flag says what it is for.
func TestHelp(t *testing.T) {
	root := newRoot()
	root.InitDefaultHelpCmd()
	commands := append([]*cobra.Command{root}, root.Commands()...)
	if len(commands) < 18 {
		t.Fatalf("only %d commands", len(commands))
	}
	for _, c := range commands {
		if c.Hidden {
			continue
		}
		t.Run(c.Name(), func(t *testing.T) {
			if c.Short == "" || c.Long == "" || c != root && c.GroupID == "" {
				t.Error("has no Short, no Long or no group")
			}
			if !strings.Contains(c.Example, "  pipeline ") {
				t.Error("has no example")
			}
			c.InitDefaultHelpFlag()
			c.Flags().VisitAll(func(f *pflag.Flag) {
				if f.Usage == "" {
					t.Errorf("--%s says nothing", f.Name)
				}
			})
			var out bytes.Buffer
			c.SetOut(&out)
			if err := c.Help(); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(out.String()) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
					t.Errorf("a line of %d columns: %s", n, line)
				}
				if line != "\n" && strings.TrimRight(line, " \n") == "" {
					t.Error("a line of spaces")
				}
			}
		})
	}
}

// The catalogue is as wide as a terminal at most, and has the fields of the file.
func TestCatalogueIsNarrow(t *testing.T) {
	var out bytes.Buffer
	groups := catalogue()
	listCatalogue(&out, groups, "pipeline")
	for _, g := range groups {
		for _, e := range g.entries {
			if !tellEntry(&out, groups, e.name) {
				t.Errorf("%s is not told", e.name)
			}
		}
	}
	for line := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("a line of %d columns: %s", n, line)
		}
	}
	for _, want := range []string{"on_error: fail, skip or quarantine", "workers: auto", "shuffle: auto, true or false", "samples (field of the file: list of sample stages"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the catalogue does not tell %q", want)
		}
	}
}
