package net

func init() {
	RegisterPreset("alexnet_one_gpu", "The paper's network without groups: every kernel sees all maps of the layer before, as on one GPU. Images as for alexnet.",
		paperOptions(), func(o AlexNet) (Graph, error) { return o.graph(1) })
}
