package net

import (
	"fmt"

	"sluice/pipeline/config"
)

func init() {
	RegisterPreset("alexnet_torchvision", "The AlexNet of torchvision (Krizhevsky: One weird trick, 2014): no groups, no normalisation, 61,100,840 parameters at 1000 classes. Images of 224 x 224.",
		TorchvisionAlexNet{Dropout: 0.5}, func(o TorchvisionAlexNet) (Graph, error) { return o.graph() })
}

// TorchvisionAlexNet are the options of torchvision's network.
type TorchvisionAlexNet struct {
	Dropout float32 `yaml:"dropout" doc:"fraction of the inputs of fc6 and fc7 that are dropped in training"`
}

func (o TorchvisionAlexNet) graph() (Graph, error) {
	drop := DropoutLayer{Rate: o.Dropout}
	if err := drop.check(); err != nil {
		return Graph{}, config.Fieldf("dropout", "must be at least 0 and less than 1, is %g", o.Dropout)
	}
	conv := func(out, size, stride, padding int) ConvLayer {
		l := NewConv(out, size)
		l.Stride, l.Padding = stride, padding
		return l
	}
	pool := MaxPoolLayer{Size: 3, Stride: 2}
	// Its mean (0.485, 0.456, 0.406) and deviation (0.229, 0.224, 0.225), in levels.
	return Graph{
		Input: InputOptions{
			Mean:     Mean{RGB: Triple{123.675, 116.28, 103.53}},
			Scale:    Triple{1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225)},
			Channels: "rgb",
		},
		Fit: func(h, w int) (Padding, error) {
			if h != 224 || w != 224 {
				return Padding{}, fmt.Errorf("the network takes images of 224 x 224; these are %d x %d: crop them to that", w, h)
			}
			return Padding{}, nil
		},
		Classes: 1000,
		Layers: []Node{
			{Name: "conv1", Layer: conv(64, 11, 4, 2)},
			{Name: "pool1", Layer: pool},
			{Name: "conv2", Layer: conv(192, 5, 1, 2)},
			{Name: "pool2", Layer: pool},
			{Name: "conv3", Layer: conv(384, 3, 1, 1)},
			{Name: "conv4", Layer: conv(256, 3, 1, 1)},
			{Name: "conv5", Layer: conv(256, 3, 1, 1)},
			{Name: "pool5", Layer: pool},
			{Name: "drop6", Layer: drop},
			{Name: "fc6", Layer: NewDense(4096)},
			{Name: "drop7", Layer: drop},
			{Name: "fc7", Layer: NewDense(4096)},
			{Name: "fc8", Layer: NewDense(0)},
			{Name: "softmax", Layer: SoftmaxLayer{}},
		},
	}, nil
}
