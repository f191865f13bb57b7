package net

import (
	"fmt"
	"slices"

	"sluice/pipeline/config"
)

func init() {
	RegisterPreset("alexnet", "The paper's network in its two-GPU form (sections 3.1 to 3.5): 60,965,224 parameters at 1000 classes. Images of 227 x 227, or of 224 x 224 with 3 zeros at right and bottom.",
		paperOptions(), func(o AlexNet) (Graph, error) { return o.graph(2) })
}

// AlexNet are the options of the paper's network.
type AlexNet struct {
	Mean    Mean    `yaml:"mean" doc:"subtracted from each pixel, in levels 0..255: one number, three for red, green, blue, imagenet (the default), auto for the mean image of the training images as in the paper, auto_channels for the mean of its colours, or a file that the stats command wrote"`
	Dropout float32 `yaml:"dropout" doc:"fraction of fc6's and fc7's outputs that are dropped in training"`
	Std     float32 `yaml:"std" doc:"standard deviation of the initial weights; 0 is He's rule, with a scale of 1/58 to suit it"`
	Bias    float32 `yaml:"bias" doc:"initial bias of conv2, conv4, conv5, fc6 and fc7; with few classes the paper's 1 makes the first steps overshoot: 0.1 does not (recipes/README.md says why). Try 0.1, too, if the loss stays where it began, at ln(classes)"`
	Conv6   int     `yaml:"conv6,omitempty" doc:"kernels of a sixth convolution, 3 x 3 over the last pooling, as in the paper's CNN* (section 6.1, which does not say how many); 0: none"`
}

func paperOptions() AlexNet {
	return AlexNet{Mean: Mean{RGB: imageNetMean}, Dropout: 0.5, Std: 0.01, Bias: 1}
}

// graph is the network with that many groups in conv2, conv4 and conv5.
func (o AlexNet) graph(groups int) (Graph, error) {
	if err := (DropoutLayer{Rate: o.Dropout}).check(); err != nil {
		return Graph{}, config.Fieldf("dropout", "must be at least 0 and less than 1, is %g", o.Dropout)
	}
	if !(o.Std >= 0) {
		return Graph{}, config.Fieldf("std", "must not be negative, is %g", o.Std)
	}
	conv := func(name string, out, size, padding, groups int, bias float32) Node {
		l := NewConv(out, size)
		l.Padding, l.Groups, l.Std, l.Bias = padding, groups, o.Std, bias
		return Node{Name: name, Layer: l}
	}
	dense := func(name string, out int, bias float32) Node {
		l := NewDense(out)
		l.Std, l.Bias = o.Std, bias
		return Node{Name: name, Layer: l}
	}
	if err := atLeast("conv6", o.Conv6, 0); err != nil {
		return Graph{}, err
	}
	norm := LRNLayer{Size: 5, K: 2, Alpha: 1e-4, Beta: 0.75, Groups: 1}
	pool := MaxPoolLayer{Size: 3, Stride: 2}
	drop := DropoutLayer{Rate: o.Dropout}

	first := NewConv(96, 11)
	first.Stride, first.Std = 4, o.Std
	scale := float32(1) // the paper trains on centred raw values
	if o.Std == 0 {
		scale = 1. / 58
	}
	g := Graph{
		Input:   InputOptions{Mean: o.Mean, Scale: Triple{scale, scale, scale}, Channels: "rgb"},
		Fit:     fitAlexNet,
		Classes: 1000,
		Layers: []Node{
			{Name: "conv1", Layer: first},
			{Name: "norm1", Layer: norm},
			{Name: "pool1", Layer: pool},
			conv("conv2", 256, 5, 2, groups, o.Bias),
			{Name: "norm2", Layer: norm},
			{Name: "pool2", Layer: pool},
			conv("conv3", 384, 3, 1, 1, 0),
			conv("conv4", 384, 3, 1, groups, o.Bias),
			conv("conv5", 256, 3, 1, groups, o.Bias),
			{Name: "pool5", Layer: pool},
			dense("fc6", 4096, o.Bias),
			{Name: "drop6", Layer: drop},
			dense("fc7", 4096, o.Bias),
			{Name: "drop7", Layer: drop},
			dense("fc8", 0, 0),
			{Name: "softmax", Layer: SoftmaxLayer{}},
		},
	}
	if o.Conv6 > 0 {
		after := slices.IndexFunc(g.Layers, func(n Node) bool { return n.Name == "pool5" }) + 1
		g.Layers = slices.Insert(g.Layers, after, conv("conv6", o.Conv6, 3, 1, groups, o.Bias))
	}
	return g, nil
}

// fitAlexNet pads 224 to the 227 with which the paper's sizes come out, at the
// right and bottom as the authors' program does.
func fitAlexNet(h, w int) (Padding, error) {
	switch {
	case h == 227 && w == 227:
		return Padding{}, nil
	case h == 224 && w == 224:
		return Padding{0, 3, 0, 3}, nil
	}
	return Padding{}, fmt.Errorf("the network takes images of 227 x 227, or of 224 x 224, which it pads; these are %d x %d: crop them to one of those", w, h)
}
