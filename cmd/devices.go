package cmd

import (
	"fmt"

	"github.com/spf13/cobra"

	"sluice/gpu"
)

func newDevices() *cobra.Command {
	return &cobra.Command{
		Use:   "devices",
		Short: "List what a network can run on here",
		Long: `Lists the devices that a YAML can name on this machine, in the order in which
device: auto tries them, and says why there is no CUDA card where there is none.`,
		Example: `  pipeline devices`,
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			out := &errWriter{w: c.OutOrStdout()}
			for _, d := range gpu.List() {
				if d.Missing != "" {
					fmt.Fprintf(out, "%-5s none: %s\n", d.Device, d.Missing)
				} else {
					fmt.Fprintf(out, "%-5s %s\n", d.Device, d.About)
				}
			}
			return out.err
		},
	}
}
