package torch

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice/net"
)

// alexNetNames are torchvision's names of the layers that have weights
// (torchvision/models/alexnet.py), in their order and ours.
var alexNetNames = []struct{ ours, torch string }{
	{"conv1", "features.0"},
	{"conv2", "features.3"},
	{"conv3", "features.6"},
	{"conv4", "features.8"},
	{"conv5", "features.10"},
	{"fc6", "classifier.1"},
	{"fc7", "classifier.4"},
	{"fc8", "classifier.6"},
}

// AlexNetSide is the height and width of the images that torchvision's AlexNet is
// for. At any other size torchvision averages the last maps to 6 x 6, which is not
// the same network.
const AlexNetSide = 224

// AlexNet makes of the state dict of torchvision's AlexNet the network, with
// torchvision's preprocessing and as wide as the tensors are, and the tensors
// under our names. The error names tensors that are missing, unknown or of another
// shape, as torchvision does.
func AlexNet(state []net.NamedTensor) (net.Graph, []net.NamedTensor, error) {
	if len(state) == 0 {
		return net.Graph{}, nil, errors.New("there are no tensors")
	}
	given := map[string]net.NamedTensor{}
	for _, t := range state {
		given[t.Name] = t
	}
	var errs []error
	g, err := alexNet(func(layer string) int {
		name := torchName(layer) + ".weight"
		t, ok := given[name]
		if !ok || len(t.Dims) == 0 || t.Dims[0] < 1 {
			return 1 // missing, or of no possible shape: found below
		}
		return t.Dims[0]
	})
	if err != nil {
		return g, nil, err
	}
	plan, err := g.Def().Plan(1, AlexNetSide, AlexNetSide, 0)
	if err != nil {
		return g, nil, err
	}
	var tensors []net.NamedTensor
	for _, l := range plan.Layers {
		for _, p := range l.Plan.Params {
			name := torchName(l.Name) + "." + p.Name
			t, ok := given[name]
			delete(given, name)
			switch want := p.Dims(); {
			case !ok:
				errs = append(errs, fmt.Errorf("tensor %q is missing", name))
			case !slices.Equal(t.Dims, want):
				errs = append(errs, fmt.Errorf("tensor %q has shape %v, and %v would fit", name, t.Dims, want))
			}
			t.Name = l.Name + "." + p.Name
			tensors = append(tensors, t)
		}
	}
	if len(given) == len(state) {
		return g, nil, fmt.Errorf("none of the tensors is of torchvision's AlexNet; the first is %q", state[0].Name)
	}
	for _, t := range state {
		if _, left := given[t.Name]; left {
			errs = append(errs, fmt.Errorf("tensor %q is none of torchvision's AlexNet", t.Name))
		}
	}
	if few := 8; len(errs) > few {
		errs = append(errs[:few], fmt.Errorf("and %d mistakes more", len(errs)-few))
	}
	return g, tensors, errors.Join(errs...)
}

// alexNet is torchvision's network with layers as wide as width says.
func alexNet(width func(layer string) int) (net.Graph, error) {
	preset, err := net.Presets.New("alexnet_torchvision")
	if err != nil {
		return net.Graph{}, err
	}
	g := preset.Value
	g.Fit = nil // it only refuses other sizes
	g.Layers = slices.Clone(g.Layers)
	for i, n := range g.Layers {
		switch l := n.Layer.(type) {
		case net.ConvLayer:
			l.Out = width(n.Name)
			g.Layers[i].Layer = l
		case net.DenseLayer:
			if l.Out == 0 {
				l.Activation = net.None
			}
			l.Out = width(n.Name)
			g.Layers[i].Layer = l
		}
	}
	return g, nil
}

func torchName(ours string) string {
	for _, n := range alexNetNames {
		if n.ours == ours {
			return n.torch
		}
	}
	return ours
}

// AlexNetState is the way back: weights of a network that is torchvision's AlexNet
// but for the widths and names of its layers become a state dict for
// torchvision.models.alexnet. The error says what is different.
func AlexNetState(plan *net.NetPlan, tensors []net.NamedTensor) ([]net.NamedTensor, error) {
	in := plan.Input
	if in.BGR || in.Top+in.Bottom+in.Left+in.Right > 0 || in.H != AlexNetSide || in.W != AlexNetSide {
		return nil, fmt.Errorf("torchvision's AlexNet takes RGB images of %d x %d without padding, and this network takes others", AlexNetSide, AlexNetSide)
	}
	ours := withoutDropout(plan.Layers)
	if in.MeanImage != nil {
		return nil, errors.New("the network subtracts a mean image, and torchvision's preprocessing a number a channel")
	}
	// Layers with weights correspond by their order.
	var named []string
	widths := map[string]int{}
	for _, l := range ours {
		if len(l.Plan.Params) > 0 && len(named) < len(alexNetNames) {
			widths[alexNetNames[len(named)].ours] = l.Plan.Out.C
			named = append(named, l.Name)
		}
	}
	g, err := alexNet(func(layer string) int { return cmp.Or(widths[layer], 1) })
	if err != nil {
		return nil, err
	}
	p, err := g.Def().Plan(in.N, in.H, in.W, 0)
	if err != nil {
		return nil, err
	}
	theirs := withoutDropout(p.Layers)
	for i, l := range ours {
		if i >= len(theirs) || plain(l.Layer) != plain(theirs[i].Layer) || i > 0 && !reads(l, ours[i-1], plan.Layers) {
			return nil, fmt.Errorf("layer %q is not as in torchvision's AlexNet; only that network has a form there (onnx takes any)", l.Name)
		}
	}
	if len(ours) != len(theirs) {
		return nil, fmt.Errorf("the network ends where torchvision's AlexNet has %q; only that network has a form there (onnx takes any)", torchName(theirs[len(ours)].Name))
	}
	var state []net.NamedTensor
	for _, t := range tensors {
		layer, param, _ := strings.Cut(t.Name, ".")
		at := slices.Index(named, layer)
		if t.Role == net.RoleMomentum || at < 0 {
			continue
		}
		t.Name = alexNetNames[at].torch + "." + param
		state = append(state, t)
	}
	return state, nil
}

// withoutDropout leaves out what does nothing to a trained network.
func withoutDropout(layers []net.LayerPlan) (out []net.LayerPlan) {
	for _, l := range layers {
		if _, ok := l.Layer.(net.DropoutLayer); !ok {
			out = append(out, l)
		}
	}
	return out
}

// plain is a layer without what only its training needs.
func plain(l net.Layer) net.Layer {
	switch l := l.(type) {
	case net.ConvLayer:
		l.Parameters = net.Parameters{}
		return l
	case net.DenseLayer:
		l.Parameters = net.Parameters{}
		return l
	case net.SoftmaxLayer:
		return net.SoftmaxLayer{}
	}
	return l
}

// reads reports whether a layer reads only another, dropout between them aside.
func reads(l, from net.LayerPlan, all []net.LayerPlan) bool {
	for len(l.From) == 1 && l.From[0] != from.Name {
		at := slices.IndexFunc(all, func(p net.LayerPlan) bool { return p.Name == l.From[0] })
		if at < 0 {
			return false
		}
		if _, ok := all[at].Layer.(net.DropoutLayer); !ok {
			return false
		}
		l = all[at]
	}
	return len(l.From) == 1
}
