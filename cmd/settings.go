package cmd

import (
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"sluice/pipeline"
	"sluice/pipeline/config"
)

// settings are the flags that change what a YAML says, the same for run and
// check.
type settings struct {
	set          []string
	name, device string
	epochs       int

	given func(flag string) bool
	all   []string // every override, in the order in which they apply
}

func (s *settings) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&s.set, "set", nil, "change a setting, as `path=value` (seed=7, samples.resize.shorter=64); may be repeated")
	f.StringVar(&s.name, "name", "", "the run's name and folder: short for --set name=`NAME`")
	f.StringVar(&s.device, "device", "", "auto, cpu or cuda: short for --set batches.train.device=`DEVICE` (or evaluate, extract)")
	f.IntVar(&s.epochs, "epochs", 0, "short for --set batches.train.epochs=`N`")
	s.given = f.Changed
}

// load reads a file with the overrides.
func (s *settings) load(file string) (*pipeline.Spec, error) {
	if err := mustBeFile(file, "name a YAML file; "+invocation()+" init writes one to begin from"); err != nil {
		return nil, err
	}
	s.all = slices.Clone(s.set)
	if s.given("name") {
		s.all = append(s.all, "name="+s.name)
	}
	if s.given("device") {
		if err := s.override(file, "--device", "device", s.device); err != nil {
			return nil, err
		}
	}
	if s.given("epochs") {
		if err := s.override(file, "--epochs", "epochs", fmt.Sprint(s.epochs)); err != nil {
			return nil, err
		}
	}
	spec, err := pipeline.Load(file, s.all)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	return spec, nil
}

// override sets an option of every batch stage in the file that has it.
func (s *settings) override(file, flag, option, value string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	doc, err := config.Parse(file, data)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	// Only the names matter here; mistakes are reported by Load.
	var stages struct {
		Batches []yaml.Node `yaml:"batches"`
	}
	_ = doc.Root.Decode(&stages)
	found := false
	seen := map[string]int{}
	for _, item := range stages.Batches {
		if item.Kind == yaml.MappingNode && len(item.Content) > 0 {
			item = *item.Content[0]
		}
		name := item.Value
		seen[name]++
		e, ok := pipeline.BatchStages.Lookup(name)
		if !ok || !slices.ContainsFunc(e.Fields(), func(f config.Field) bool { return f.Name == option }) {
			continue
		}
		found = true
		if n := seen[name]; n > 1 {
			name = fmt.Sprintf("%s#%d", name, n)
		}
		s.all = append(s.all, fmt.Sprintf("batches.%s.%s=%s", name, option, value))
	}
	if !found {
		return usagef("%s: no stage under batches: in %s has the option %s", flag, file, option)
	}
	return nil
}
