package cmd

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
)

//go:embed templates/*.yaml
var templates embed.FS

func newInit() *cobra.Command {
	var output string
	var force bool
	c := &cobra.Command{
		Use:   "init [" + strings.Join(templateNames(), "|") + "]",
		Short: "Write a commented YAML to begin from",
		Long: `Writes a commented YAML that runs as it is (on a dataset made in memory), to be
changed into one's own.`,
		Example: `  pipeline init
  pipeline init features -o features.yaml`,
		Args:      atMostOne,
		ValidArgs: templateNames(),
		RunE: func(c *cobra.Command, args []string) error {
			name := "train"
			if len(args) > 0 {
				name = args[0]
			}
			text, err := templates.ReadFile("templates/" + name + ".yaml")
			if err != nil {
				return usagef("there is no template %q; there is: %s", name, strings.Join(templateNames(), ", "))
			}
			if output == "" {
				output = name + ".yaml"
			}
			if output == "-" {
				_, err := c.OutOrStdout().Write(text)
				return err
			}
			if err := writeTemplate(output, text, force); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "wrote %s; next: %s check %s\n", output, invocation(), output)
			return nil
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "`FILE` to write, - for standard output (default train.yaml or features.yaml)")
	c.Flags().BoolVar(&force, "force", false, "write over a file that is there")
	return c
}

func templateNames() []string {
	entries, err := templates.ReadDir("templates")
	if err != nil {
		panic(err) // embedded
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

func writeTemplate(path string, text []byte, force bool) error {
	if force {
		if err := renameio.WriteFile(path, text, 0o666); err != nil {
			return fmt.Errorf("writing %s: %w", path, reason(err))
		}
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, fs.ErrExist) {
		return usagef("%s is there already; --force writes over it, -o FILE writes to another file", path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, reason(err))
	}
	if _, err := f.Write(text); err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", path, reason(err)), f.Close(), os.Remove(path))
	}
	return f.Close()
}
