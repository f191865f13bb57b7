package net

import (
	"math"

	"go.yaml.in/yaml/v3"

	"sluice/pipeline/config"
)

// Parameters are the options that layers with a weight and a bias share.
type Parameters struct {
	Init      string  `yaml:"init" doc:"normal: weights by std, biases by bias; torch: PyTorch's default, both even within 1 / sqrt(inputs of one output), which has no std and bias"`
	Std       float32 `yaml:"std" doc:"standard deviation of the initial weights, whose mean is 0; 0 is He's rule: sqrt(2 / inputs of one output) before relu, sqrt(1 / inputs) otherwise"`
	Bias      float32 `yaml:"bias" doc:"initial bias"`
	LR        float32 `yaml:"lr" doc:"multiplies the solver's learning rate for the weights; 0 freezes them"`
	Decay     float32 `yaml:"decay" doc:"multiplies the solver's weight decay for the weights"`
	BiasLR    float32 `yaml:"bias_lr" doc:"multiplies the learning rate for the biases"`
	BiasDecay float32 `yaml:"bias_decay" doc:"multiplies the weight decay for the biases"`
}

// plainParameters start by He's rule and learn at the solver's rate.
func plainParameters() Parameters {
	return Parameters{Init: normalInit, LR: 1, Decay: 1, BiasLR: 1, BiasDecay: 1}
}

// Values of Parameters.Init; the empty one is normal.
const (
	normalInit = "normal"
	torchInit  = "torch"
)

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
	switch p.Init {
	case "", normalInit:
	case torchInit:
		if p.Std != 0 || p.Bias != 0 {
			errs = append(errs, config.Fieldf("init", "is torch, which decides weights and biases itself: leave std and bias out"))
		}
	default:
		errs = append(errs, config.Fieldf("init", "must be normal or torch, is %q", p.Init))
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
	first, bias := Init{Std: std}, Init{Value: p.Bias}
	if p.Init == torchInit {
		first = Init{Range: float32(1 / math.Sqrt(float64(weight.Image())))}
		bias = first
	}
	return []ParamSpec{
		{Name: "weight", Shape: weight, Kind: kind, Groups: groups, Init: first, LR: p.LR, Decay: p.Decay},
		{Name: "bias", Shape: Shape{1, weight.N, 1, 1}, Kind: Vector, Init: bias, LR: p.BiasLR, Decay: p.BiasDecay},
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
