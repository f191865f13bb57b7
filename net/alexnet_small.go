package net

import "sluice/pipeline/config"

func init() {
	RegisterPreset("alexnet_small", "A small network in AlexNet's manner for quick runs: three convolutions with overlapping pooling, He's initialisation. Made for images of 64 x 64, of which each costs 3.5 M multiply-adds.",
		SmallAlexNet{Mean: Mean{RGB: imageNetMean}, Dropout: 0.25}, func(o SmallAlexNet) (Graph, error) { return o.graph() })
}

// SmallAlexNet are the options of the small network.
type SmallAlexNet struct {
	Mean    Mean    `yaml:"mean" doc:"subtracted from each pixel, in levels 0..255: one number, three for red, green, blue, imagenet (the default), auto for the mean image of the training images, auto_channels for the mean of its colours, or a file that the stats command wrote"`
	Dropout float32 `yaml:"dropout" doc:"fraction of fc4's outputs that are dropped in training"`
}

func (o SmallAlexNet) graph() (Graph, error) {
	drop := DropoutLayer{Rate: o.Dropout}
	if err := drop.check(); err != nil {
		return Graph{}, config.Fieldf("dropout", "must be at least 0 and less than 1, is %g", o.Dropout)
	}
	conv := func(out, size, stride int) ConvLayer {
		l := NewConv(out, size)
		l.Stride, l.Padding = stride, size/2
		return l
	}
	last := NewDense(0)
	last.Std = 0.01                                      // so that the loss begins at ln(classes)
	pool := MaxPoolLayer{Size: 3, Stride: 2, Ceil: true} // 32, 16, 8, 4
	return Graph{
		Input:   InputOptions{Mean: o.Mean, Scale: Triple{1. / 58, 1. / 58, 1. / 58}, Channels: "rgb"},
		Classes: 10,
		Layers: []Node{
			{Name: "conv1", Layer: conv(16, 5, 2)},
			{Name: "pool1", Layer: pool},
			{Name: "conv2", Layer: conv(32, 3, 1)},
			{Name: "pool2", Layer: pool},
			{Name: "conv3", Layer: conv(48, 3, 1)},
			{Name: "pool3", Layer: pool},
			{Name: "fc4", Layer: NewDense(96)},
			{Name: "drop4", Layer: drop},
			{Name: "fc5", Layer: last},
			{Name: "softmax", Layer: SoftmaxLayer{}},
		},
	}, nil
}
