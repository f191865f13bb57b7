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

// ReadMean reads the mean image of a file of statistics, or the mean of its channels if
// it has none.
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
	for _, name := range []string{MeanName, ChannelMeanName} {
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
	return nil, fmt.Errorf("%s has neither a tensor %q nor %q: name a file that the stats command wrote", file, MeanName, ChannelMeanName)
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
