package gpu

import (
	"errors"
	"fmt"
	"io"
	"os"

	"sluice/net"
)

// Model is weights together with what it takes to run them: what a file of
// weights holds, whoever trained it.
type Model struct {
	Net           net.Def
	Height, Width int      // of an image, in pixels, before the network's own padding
	Classes       []string // in the order of the outputs
	// Samples is the sample stages that make such an image of a picture, resolved,
	// as YAML; empty if nobody said.
	Samples string
	Tensors []net.NamedTensor
}

// ReadModel reads a file of weights, and holds them to the network that it names.
func ReadModel(file string) (*Model, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	tensors, meta, err := net.ReadSafetensors(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	a, err := parseAbout(file, meta)
	if err != nil {
		return nil, err
	}
	m := &Model{Net: a.Net, Height: a.Input.Height, Width: a.Input.Width, Classes: a.Classes, Samples: a.Samples, Tensors: tensors}
	if _, err := m.Plan(1); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return m, nil
}

// Plan lays the network out for n images, with the mean that the weights carry.
// The error says which weights do not fit.
func (m *Model) Plan(n int) (*net.NetPlan, error) {
	p, err := m.Net.Plan(n, m.Height, m.Width, len(m.Classes))
	if err != nil {
		return nil, fmt.Errorf("the network: %w", err)
	}
	if err := errors.Join(checkWidth(p, m.Classes), p.CheckWeights(m.Tensors)); err != nil {
		return nil, err
	}
	return p, p.LoadMean(m.Tensors)
}

// Metadata is what a file of the weights says about them. version is that of the
// program.
func (m *Model) Metadata(version string) (map[string]string, error) {
	p, err := m.Plan(1)
	if err != nil {
		return nil, err
	}
	return about{Net: m.Net, Classes: m.Classes, Input: aboutInput(p.Input), Samples: m.Samples, Version: version}.metadata()
}

// Write writes the weights as a training run does, so that evaluate, extract and
// all else take them. Weights that do not fit the network, or are not numbers, are
// an error.
func (m *Model) Write(w io.Writer, version string) error {
	meta, err := m.Metadata(version)
	if err != nil {
		return err
	}
	for _, t := range m.Tensors {
		for i, v := range t.Data {
			if v-v != 0 { // true of NaN and of the infinities only
				return fmt.Errorf("tensor %q: number %d is %g", t.Name, i, v)
			}
		}
	}
	return net.WriteSafetensors(w, m.Tensors, meta)
}
