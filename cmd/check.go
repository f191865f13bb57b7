package cmd

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newCheck() *cobra.Command {
	var s settings
	c := &cobra.Command{
		Use:   "check FILE",
		Short: "Find every mistake in a YAML file, and say what a run needs",
		Long: `Finds every mistake in a YAML file at once. If there is none it tells the sizes
of images and layers, the parameters, the memory and the steps. It allocates no
tensor and writes nothing.`,
		Example: `  pipeline check examples/quickstart/train.yaml
  pipeline check train.yaml --set batch.size=64`,
		Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			spec, err := s.load(args[0])
			if err != nil {
				return err
			}
			report, err := spec.Check()
			if err != nil {
				return &exitError{exitUsage, err}
			}
			if _, err = fmt.Fprint(c.OutOrStdout(), report); err != nil {
				return err
			}
			k := keeper{dir: statisticsDir(spec)}
			if err := k.tellStatistics(c.OutOrStdout(), spec); err != nil {
				return &exitError{exitUsage, err}
			}
			return nil
		},
	}
	s.flags(c)
	return c
}
