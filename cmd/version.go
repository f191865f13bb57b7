package cmd

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/cpu"
)

const arrowModule = "github.com/apache/arrow/go/v17"

// versions is what a result depends on beyond its YAML.
type versions struct {
	Sluice   string `json:"sluice"`
	Revision string `json:"revision,omitempty"` // of the sources, with "+changes" where they differed from it
	Go       string `json:"go"`
	Arrow    string `json:"arrow,omitempty"`
	Platform string `json:"platform"`
	CPU      string `json:"cpu"`
	Cores    int    `json:"cores"` // that the process may use
}

func newVersion() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Say what this program is made of",
		Long: `Says which version this program is, of which sources, Go and Arrow, and for
which processor: what a result depends on beyond its YAML.`,
		Example: `  pipeline version --json`,
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			v := currentVersions()
			if asJSON {
				enc := json.NewEncoder(c.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(v)
			}
			out := c.OutOrStdout()
			fmt.Fprintf(out, "sluice    %s\n", v.Sluice)
			if v.Revision != "" {
				fmt.Fprintf(out, "revision  %s\n", v.Revision)
			}
			fmt.Fprintf(out, "go        %s %s\n", v.Go, v.Platform)
			if v.Arrow != "" {
				fmt.Fprintf(out, "arrow     %s\n", v.Arrow)
			}
			fmt.Fprintf(out, "cpu       %s, %d cores\n", v.CPU, v.Cores)
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func currentVersions() versions {
	v := versions{
		Sluice:   "(unknown)",
		Go:       runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
		CPU:      cpuName(),
		Cores:    runtime.GOMAXPROCS(0),
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Sluice = info.Main.Version
	for _, dep := range info.Deps {
		switch dep.Path {
		case arrowModule:
			v.Arrow = dep.Version
		case "sluice": // a binary of one's own in another module
			v.Sluice = dep.Version
		}
	}
	var changed bool
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			changed = s.Value == "true"
		}
	}
	if changed {
		v.Revision += "+changes"
	}
	return v
}

// cpuName is the processor's own name where the system tells it, and the vector
// instructions that decide how fast it is here.
func cpuName() string {
	name := runtime.GOARCH
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == "model name" {
				name = strings.TrimSpace(v)
				break
			}
		}
	}
	switch {
	case cpu.X86.HasAVX512F:
		name += " (AVX-512)"
	case cpu.X86.HasAVX2 && cpu.X86.HasFMA:
		name += " (AVX2)"
	}
	return name
}

// String is the version in one line.
func (v versions) String() string {
	if v.Revision == "" {
		return v.Sluice
	}
	return v.Sluice + " " + v.Revision
}
