package net

import (
	"errors"

	"go.yaml.in/yaml/v3"

	"sluice/pipeline/config"
)

// InputOptions say how pixels become the first activation: (pixel - mean + PCA
// shift) * scale, and zeros around.
type InputOptions struct {
	Mean     Mean    `yaml:"mean" doc:"subtracted from each pixel, in levels 0..255: one number, three for red, green, blue, or imagenet for its; auto: the mean image of the training images, computed before the run and kept (auto_channels: the mean of its colours); or a file: of the stats command, or weights that carry their mean"`
	Scale    Triple  `yaml:"scale" doc:"what the difference is multiplied by: one number, or three"`
	Pad      Padding `yaml:"pad" doc:"zeros around the image, in pixels: one number, or [top, bottom, left, right]"`
	Channels string  `yaml:"channels" doc:"rgb, or bgr for weights that come from Caffe; mean and scale are red, green, blue all the same"`
}

// defaultInput gives values of about unit variance, as He's rule wants them.
func defaultInput() InputOptions {
	return InputOptions{Mean: Mean{RGB: imageNetMean}, Scale: Triple{1. / 58, 1. / 58, 1. / 58}, Channels: "rgb"}
}

// imageNetMean is the mean red, green and blue over ImageNet's training images.
var imageNetMean = Triple{123.68, 116.78, 103.94}

func (o InputOptions) check() error {
	var errs []error
	for _, s := range o.Scale {
		if s == 0 {
			errs = append(errs, config.Fieldf("scale", "must not be 0"))
			break
		}
	}
	for _, p := range o.Pad {
		if p < 0 || p > 1024 {
			errs = append(errs, config.Fieldf("pad", "must be 0 to 1024, is %d", p))
		}
	}
	if o.Channels != "rgb" && o.Channels != "bgr" {
		errs = append(errs, config.Fieldf("channels", "must be rgb or bgr, is %q", o.Channels))
	}
	return errors.Join(errs...)
}

// Triple is a value for red, green and blue. In YAML it is one number for all
// three, or a list of three.
type Triple [3]float32

// UnmarshalConfig reads a number or a list of three.
func (t *Triple) UnmarshalConfig(d *config.Decoder, n *yaml.Node) {
	if n.Kind == yaml.SequenceNode {
		d.Decode(n, (*[3]float32)(t))
		return
	}
	var all float32
	if d.Decode(n, &all) {
		*t = Triple{all, all, all}
	}
}

// MarshalYAML gives the shorter form.
func (t Triple) MarshalYAML() (any, error) {
	if t[0] == t[1] && t[0] == t[2] {
		return t[0], nil
	}
	return flow([3]float32(t))
}

// ConfigType says what the YAML takes.
func (Triple) ConfigType() string { return "number, or list of 3" }

// Padding is zeros at the top, bottom, left and right, in pixels. In YAML it is
// one number for all sides, or a list of four.
type Padding [4]int

// UnmarshalConfig reads a number or a list of four.
func (p *Padding) UnmarshalConfig(d *config.Decoder, n *yaml.Node) {
	if n.Kind == yaml.SequenceNode {
		d.Decode(n, (*[4]int)(p))
		return
	}
	var all int
	if d.Decode(n, &all) {
		*p = Padding{all, all, all, all}
	}
}

// MarshalYAML gives the shorter form.
func (p Padding) MarshalYAML() (any, error) {
	if p == (Padding{p[0], p[0], p[0], p[0]}) {
		return p[0], nil
	}
	return flow([4]int(p))
}

// ConfigType says what the YAML takes.
func (Padding) ConfigType() string { return "whole number, or list of 4" }

// flow writes a short list in one line.
func flow(v any) (*yaml.Node, error) {
	n := &yaml.Node{}
	if err := n.Encode(v); err != nil {
		return nil, err
	}
	n.Style = yaml.FlowStyle
	return n, nil
}
