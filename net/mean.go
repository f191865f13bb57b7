package net

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"sluice/pipeline/config"
)

// Names of tensors in a file of statistics, and of what weights carry of them.
const (
	MeanName        = "mean"          // H x W x 3
	ChannelMeanName = "mean_channels" // 3
	// InputMeanName is the mean of a network that was told it when it was trained:
	// H x W x 3 in the file of its weights, 1 x 1 x 3 for one of the channels.
	InputMeanName = "input.mean"
)

// Values of Mean.From that are no file.
const (
	MeanAuto         = "auto"          // the mean image of the training set
	MeanAutoChannels = "auto_channels" // the mean of its channels
	meanImageNet     = "imagenet"
)

// Mean is what is subtracted from the pixels of an image. In YAML it is one number for
// all channels, a list of three, or a word: imagenet, auto, auto_channels, or the name of a
// .safetensors file.
type Mean struct {
	RGB  Triple // where From is empty
	From string // auto, auto_channels or a file: known when training begins
}

// UnmarshalConfig reads any of the forms.
func (m *Mean) UnmarshalConfig(d *config.Decoder, n *yaml.Node) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		*m = Mean{}
		m.RGB.UnmarshalConfig(d, n)
		return
	}
	switch word := n.Value; {
	case word == meanImageNet:
		*m = Mean{RGB: imageNetMean}
	case word == MeanAuto || word == MeanAutoChannels || strings.HasSuffix(word, ".safetensors"):
		*m = Mean{From: word}
	default:
		d.Wrong(n, m.ConfigType())
	}
}

// MarshalYAML gives the form that UnmarshalConfig reads.
func (m Mean) MarshalYAML() (any, error) {
	if m.From != "" {
		return m.From, nil
	}
	return m.RGB.MarshalYAML()
}

// ConfigType says what the YAML takes.
func (Mean) ConfigType() string {
	return "a number, a list of 3, imagenet, auto, auto_channels or a .safetensors file"
}

// ReadMean reads the mean that is in a file: the mean image of statistics, or the mean
// of their channels if they have none, or what weights carry.
func ReadMean(file string) (*MeanImage, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	tensors, _, err := ReadSafetensors(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, name := range []string{MeanName, ChannelMeanName, InputMeanName} {
		i := slices.IndexFunc(tensors, func(t NamedTensor) bool { return t.Name == name })
		if i < 0 {
			continue
		}
		t := tensors[i]
		if name == ChannelMeanName {
			t.Dims = append([]int{1, 1}, t.Dims...)
		}
		m, err := meanOf(t)
		if err != nil {
			err = fmt.Errorf("%s: %w", file, err)
		}
		return m, err
	}
	return nil, fmt.Errorf("%s has neither of the tensors %q, %q and %q: name a file that the stats command wrote, or weights of a network with mean: auto",
		file, MeanName, ChannelMeanName, InputMeanName)
}

// meanOf makes a mean image of a tensor.
func meanOf(t NamedTensor) (*MeanImage, error) {
	if len(t.Dims) != 3 || t.Dims[0] < 1 || t.Dims[1] < 1 || t.Dims[2] != 3 || t.Dims[0]*t.Dims[1]*3 != len(t.Data) {
		return nil, fmt.Errorf("tensor %q has shape %v with %d numbers, and a mean is height x width x 3", t.Name, t.Dims, len(t.Data))
	}
	for _, v := range t.Data {
		if v-v != 0 { // true of NaN and of the infinities only
			return nil, fmt.Errorf("tensor %q has the number %g", t.Name, v)
		}
	}
	return &MeanImage{H: t.Dims[0], W: t.Dims[1], Pixels: t.Data}, nil
}

// SetMean gives the network's input its mean image; one of 1 x 1 is the mean of the
// channels.
func (p *NetPlan) SetMean(m *MeanImage) error {
	s := &p.Input
	switch {
	case m.H == 1 && m.W == 1 && len(m.Pixels) == 3:
		s.Mean, s.MeanImage, p.meanGiven = [3]float32(m.Pixels), nil, true
		return nil
	case m.W < s.W || m.H < s.H || len(m.Pixels) != m.H*m.W*3:
		return fmt.Errorf("a mean image of %d x %d is smaller than the images of %d x %d", m.W, m.H, s.W, s.H)
	}
	s.Mean, s.MeanImage, p.meanGiven = m.channels(), m, true
	return nil
}

// channels is the mean of all pixels.
func (m *MeanImage) channels() (mean [3]float32) {
	var sum [3]float64
	for i, v := range m.Pixels {
		sum[i%3] += float64(v)
	}
	for c := range mean {
		mean[c] = float32(sum[c] / float64(m.H*m.W))
	}
	return mean
}

// LoadMean gives the input the mean that weights carry (InputMeanName). Networks
// whose YAML has the mean in numbers carry none.
func (p *NetPlan) LoadMean(tensors []NamedTensor) error {
	m, err := p.findMean(tensors)
	if m == nil || err != nil {
		return err
	}
	return p.SetMean(m)
}

func (p *NetPlan) findMean(tensors []NamedTensor) (*MeanImage, error) {
	if p.MeanFrom == "" {
		return nil, nil
	}
	i := slices.IndexFunc(tensors, func(t NamedTensor) bool { return t.Name == InputMeanName })
	if i < 0 {
		return nil, fmt.Errorf("missing: %q, the mean that is subtracted (mean: %s)", InputMeanName, p.MeanFrom)
	}
	m, err := meanOf(tensors[i])
	if err == nil {
		probe := *p
		err = probe.SetMean(m)
	}
	return m, err
}

// meanTensor is what weights carry of the mean, if it is none that the YAML has in
// numbers.
func (p *NetPlan) meanTensor() (NamedTensor, bool) {
	if p.MeanFrom == "" {
		return NamedTensor{}, false
	}
	t := NamedTensor{Name: InputMeanName, Role: RoleWeight, Dims: []int{1, 1, 3}, Data: slices.Clone(p.Input.Mean[:])}
	if m := p.Input.MeanImage; m != nil {
		t.Dims, t.Data = []int{m.H, m.W, 3}, m.Pixels
	}
	return t, true
}
