package net

import (
	"math"

	"go.yaml.in/yaml/v3"

	"sluice/pipeline/config"
)

// Parameters are the options that layers with a weight and a bias share.
type Parameters struct {
	Std       float32 `yaml:"std" doc:"standard deviation of the initial weights, whose mean is 0; 0 is He's rule: sqrt(2 / inputs of one output) before relu, sqrt(1 / inputs) otherwise"`
	Bias      float32 `yaml:"bias" doc:"initial bias"`
	LR        float32 `yaml:"lr" doc:"multiplies the solver's learning rate for the weights; 0 freezes them"`
	Decay     float32 `yaml:"decay" doc:"multiplies the solver's weight decay for the weights"`
	BiasLR    float32 `yaml:"bias_lr" doc:"multiplies the learning rate for the biases"`
	BiasDecay float32 `yaml:"bias_decay" doc:"multiplies the weight decay for the biases"`
}

// plainParameters start by He's rule and learn at the solver's rate.
func plainParameters() Parameters { return Parameters{LR: 1, Decay: 1, BiasLR: 1, BiasDecay: 1} }

func (p Parameters) check() []error {
	var errs []error
	for _, f := range []struct {
		name  string
		value float32
	}{{"std", p.Std}, {"lr", p.LR}, {"decay", p.Decay}, {"bias_lr", p.BiasLR}, {"bias_decay", p.BiasDecay}} {
		if !(f.value >= 0) {
			errs = append(errs, config.Fieldf(f.name, "must not be negative, is %g", f.value))
		}
	}
	return errs
}

// specs plans a weight of that shape and kind, and a bias.
func (p Parameters) specs(weight Shape, kind Kind, groups int, act Activation) []ParamSpec {
	std := p.Std
	if std == 0 {
		gain := 1.
		if act == ReLU {
			gain = 2
		}
		std = float32(math.Sqrt(gain / float64(weight.Image())))
	}
	return []ParamSpec{
		{Name: "weight", Shape: weight, Kind: kind, Groups: groups, Init: Init{Std: std}, LR: p.LR, Decay: p.Decay},
		{Name: "bias", Shape: Shape{1, weight.N, 1, 1}, Kind: Vector, Init: Init{Value: p.Bias}, LR: p.BiasLR, Decay: p.BiasDecay},
	}
}

var activations = []string{None: "none", ReLU: "relu", Tanh: "tanh"}

func (a Activation) String() string { return activations[a] }

// UnmarshalConfig reads relu, tanh or none.
func (a *Activation) UnmarshalConfig(d *config.Decoder, n *yaml.Node) {
	if word, ok := d.Word(n, activations...); ok {
		for i, name := range activations {
			if name == word {
				*a = Activation(i)
			}
		}
	}
}

// MarshalYAML gives the word.
func (a Activation) MarshalYAML() (any, error) { return a.String(), nil }

// ConfigType says what the YAML takes.
func (Activation) ConfigType() string { return "relu, tanh or none" }
