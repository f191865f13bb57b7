package onnx

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"

	"sluice/net"
)

const (
	opset     = 17
	irVersion = 8 // of the ONNX that opset 17 came with
)

// Names of the model's input and outputs.
const (
	Images        = "images"
	Logits        = "logits"
	Probabilities = "probabilities"
)

// Write writes the network of plan with its weights. The model takes Images,
// float32 of N x 3 x H x W, red, green and blue in levels 0..255 as they are in a
// picture: the network's own mean, scale, channel order and padding are its first
// operators. Of a mean image the centre is subtracted, as if the images were
// cropped from the centre. It gives Logits and Probabilities, float32 of N x classes. Dropout,
// which does nothing to a trained network, is left out. version is the program's;
// meta goes into the model's metadata.
func Write(w io.Writer, plan *net.NetPlan, tensors []net.NamedTensor, version string, meta map[string]string) error {
	if err := plan.CheckWeights(tensors); err != nil {
		return err
	}
	x := &writer{plan: plan, tensors: tensors, values: map[string]*result{}}
	if err := x.input(); err != nil {
		return err
	}
	for i := range plan.Layers {
		if err := x.layer(&plan.Layers[i]); err != nil {
			return fmt.Errorf("layer %q: %w", plan.Layers[i].Name, err)
		}
	}
	x.graph.text(graphName, "network")
	s := plan.Input
	x.graph.message(graphInput, valueInfo(Images, 3, s.H, s.W))
	classes := plan.Layers[len(plan.Layers)-1].Plan.Out.C
	x.graph.message(graphOutput, valueInfo(Logits, classes))
	x.graph.message(graphOutput, valueInfo(Probabilities, classes))

	var model, ops buffer
	model.int(modelIRVersion, irVersion)
	model.text(modelProducer, "sluice")
	model.text(modelProducerVers, version)
	ops.int(opsetVersion, opset)
	model.message(modelOpset, ops)
	for _, key := range slices.Sorted(maps.Keys(meta)) {
		var entry buffer
		entry.text(1, key)
		entry.text(2, meta[key])
		model.message(modelMetadata, entry)
	}
	return writeModel(w, model, x.graph, x.constants)
}

// result is what a layer computes: a value of rank 4, of rank 2, or both once
// both have been asked for.
type result struct {
	maps, rows string
	shape      net.Shape
}

type writer struct {
	plan      *net.NetPlan
	tensors   []net.NamedTensor
	graph     buffer
	constants []initializer
	values    map[string]*result // by the layer's name
}

// node adds an operator, named as its one output.
func (x *writer) node(op, output string, inputs []string, attributes ...attribute) {
	var b buffer
	for _, in := range inputs {
		b.text(nodeInput, in)
	}
	b.text(nodeOutput, output)
	b.text(nodeName, output)
	b.text(nodeOp, op)
	for _, a := range attributes {
		b.message(nodeAttribute, a.message())
	}
	x.graph.message(graphNode, b)
}

func (x *writer) floats(name string, values []float32, dims ...int) string {
	x.constants = append(x.constants, initializer{name: name, dims: dims, floats: values})
	return name
}

func (x *writer) ints(name string, values ...int64) string {
	x.constants = append(x.constants, initializer{name: name, dims: []int{len(values)}, ints: values})
	return name
}

// input makes of images what the first layers read.
func (x *writer) input() error {
	s := x.plan.Input
	mean, err := x.mean()
	if err != nil {
		return err
	}
	x.node("Sub", "input.centred", []string{Images, mean})
	x.node("Mul", "input.scaled", []string{"input.centred", x.floats("input.scale", s.Scale[:], 1, 3, 1, 1)})
	last := "input.scaled"
	if s.BGR {
		x.node("Gather", "input.bgr", []string{last, x.ints("input.channels", 2, 1, 0)}, attribute{"axis", 1})
		last = "input.bgr"
	}
	if s.Top+s.Bottom+s.Left+s.Right > 0 {
		pads := x.ints("input.pads", 0, 0, int64(s.Top), int64(s.Left), 0, 0, int64(s.Bottom), int64(s.Right))
		x.node("Pad", "input.padded", []string{last, pads})
		last = "input.padded"
	}
	x.values[net.InputName] = &result{maps: last, shape: s.Shape()}
	return nil
}

// mean is what is subtracted: a number a channel, or the part of a mean image under
// a crop from its centre.
func (x *writer) mean() (string, error) {
	s := x.plan.Input
	m := s.MeanImage
	switch {
	case m == nil:
		return x.floats("input.mean", s.Mean[:], 1, 3, 1, 1), nil
	case m.H == 1 && m.W == 1:
		return x.floats("input.mean", m.Pixels, 1, 3, 1, 1), nil
	case m.H < s.H || m.W < s.W:
		return "", fmt.Errorf("the mean image is of %d x %d, smaller than the images of %d x %d", m.W, m.H, s.W, s.H)
	}
	// Rounded as center_crop does.
	top, left := int(math.RoundToEven(float64(m.H-s.H)/2)), int(math.RoundToEven(float64(m.W-s.W)/2))
	var planes []float32
	for c := range 3 {
		for h := range s.H {
			for w := range s.W {
				planes = append(planes, m.Pixels[3*((top+h)*m.W+left+w)+c])
			}
		}
	}
	return x.floats("input.mean", planes, 1, 3, s.H, s.W), nil
}

// maps is a layer's result as N x C x H x W.
func (x *writer) maps(layer string) string {
	r := x.values[layer]
	if r.maps == "" {
		r.maps = layer + ".maps"
		shape := x.ints(layer+".maps.shape", 0, int64(r.shape.C), int64(r.shape.H), int64(r.shape.W)) // 0: N as it is
		x.node("Reshape", r.maps, []string{r.rows, shape})
	}
	return r.maps
}

// rows is a layer's result as N x (C x H x W).
func (x *writer) rows(layer string) string {
	r := x.values[layer]
	if r.rows == "" {
		r.rows = layer + ".rows"
		x.node("Flatten", r.rows, []string{r.maps}, attribute{"axis", 1})
	}
	return r.rows
}

func (x *writer) layer(l *net.LayerPlan) error {
	name := valueName(l.Name)
	r := &result{maps: name, shape: l.Plan.Out}
	switch o := l.Layer.(type) {
	case net.ConvLayer:
		inputs, err := x.weighted(l, x.maps(l.From[0]), nil)
		if err != nil {
			return err
		}
		pads := []int{o.Padding, o.Padding, o.Padding, o.Padding}
		x.activated(name, o.Activation, func(output string) {
			x.node("Conv", output, inputs, attribute{"kernel_shape", []int{o.Size, o.Size}},
				attribute{"strides", []int{o.Stride, o.Stride}}, attribute{"pads", pads}, attribute{"group", o.Groups})
		})
	case net.DenseLayer:
		inputs, err := x.weighted(l, x.rows(l.From[0]), []int{o.Out, l.In[0].Image()})
		if err != nil {
			return err
		}
		r.maps, r.rows = "", name
		x.activated(name, o.Activation, func(output string) {
			x.node("Gemm", output, inputs, attribute{"transB", 1})
		})
	case net.MaxPoolLayer:
		g := net.Pool{Size: o.Size, Stride: o.Stride, Pad: o.Padding, Ceil: o.Ceil}
		x.node("MaxPool", name, []string{x.maps(l.From[0])}, window(g, l)...)
	case net.AvgPoolLayer:
		if o.Global {
			x.node("GlobalAveragePool", name, []string{x.maps(l.From[0])})
			break
		}
		x.average(o, l, name)
	case net.LRNLayer:
		x.lrn(o, l, name)
	case net.ActivationLayer:
		if o.Function == net.None {
			r = x.values[l.From[0]]
			break
		}
		x.activated(name, o.Function, func(output string) { x.node("Identity", output, []string{x.maps(l.From[0])}) })
	case net.DropoutLayer:
		r = x.values[l.From[0]]
	case net.AddLayer:
		sum := x.maps(l.From[0])
		for i, from := range l.From[1:] {
			output := name
			if i < len(l.From)-2 {
				output = fmt.Sprintf("%s.%d", name, i)
			}
			x.node("Add", output, []string{sum, x.maps(from)})
			sum = output
		}
	case net.ConcatLayer:
		var inputs []string
		for _, from := range l.From {
			inputs = append(inputs, x.maps(from))
		}
		x.node("Concat", name, inputs, attribute{"axis", 1})
	case net.SoftmaxLayer:
		x.node("Identity", Logits, []string{x.rows(l.From[0])})
		x.node("Softmax", Probabilities, []string{Logits}, attribute{"axis", 1})
	default:
		return fmt.Errorf("%T has no form in ONNX", l.Layer)
	}
	x.values[l.Name] = r
	return nil
}

// weighted is the inputs of an operator with a weight and a bias, the weight in
// the shape that the operator wants or, with dims nil, as it is.
func (x *writer) weighted(l *net.LayerPlan, input string, dims []int) ([]string, error) {
	inputs := []string{input}
	for i, p := range l.Plan.Params {
		name := l.Name + "." + p.Name
		data, err := find(x.tensors, name)
		if err != nil {
			return nil, err
		}
		if i > 0 || dims == nil {
			dims = p.Dims()
		}
		inputs = append(inputs, x.floats(name, data, dims...))
	}
	return inputs, nil
}

// valueName is what the result of a layer is called: as the layer, unless the model's
// own input or outputs are called so.
func valueName(layer string) string {
	switch layer {
	case Images, Logits, Probabilities:
		return layer + ".layer"
	}
	return layer
}

// activated writes an operator and the activation after it, whose result has the
// name.
func (x *writer) activated(name string, act net.Activation, write func(output string)) {
	op := map[net.Activation]string{net.ReLU: "Relu", net.Tanh: "Tanh"}[act]
	if act == net.None {
		write(name)
		return
	}
	write(name + ".linear")
	x.node(op, name, []string{name + ".linear"})
}

// window is the options of a pooling. The padding at the end is what the output's
// size asks for, so that our rounding up, or down, is as it is.
func window(g net.Pool, l *net.LayerPlan) []attribute {
	in, out := l.In[0], l.Plan.Out
	end := func(in, out int) int { return max(0, (out-1)*g.Stride+g.Size-in-g.Pad) }
	return []attribute{
		{"kernel_shape", []int{g.Size, g.Size}}, {"strides", []int{g.Stride, g.Stride}},
		{"pads", []int{g.Pad, g.Pad, end(in.H, out.H), end(in.W, out.W)}},
	}
}

// average writes a pooling by the mean. What reaches beyond the padding never
// counts, which ONNX cannot say where the padding counts: then the image is padded
// before.
func (x *writer) average(o net.AvgPoolLayer, l *net.LayerPlan, name string) {
	input := x.maps(l.From[0])
	g := net.Pool{Size: o.Size, Stride: o.Stride, Pad: o.Padding, Ceil: o.Ceil}
	at := *l
	if o.CountPadding && o.Padding > 0 {
		p := int64(o.Padding)
		padded := name + ".padded"
		x.node("Pad", padded, []string{input, x.ints(name+".pads", 0, 0, p, p, 0, 0, p, p)})
		input, g.Pad = padded, 0
		in := l.In[0]
		at.In = []net.Shape{{N: in.N, C: in.C, H: in.H + 2*o.Padding, W: in.W + 2*o.Padding}}
	}
	x.node("AveragePool", name, []string{input}, append(window(g, &at), attribute{"count_include_pad", 0})...)
}

// lrn writes a normalisation. ONNX's alpha is divided by the size, as Caffe's is.
func (x *writer) lrn(o net.LRNLayer, l *net.LayerPlan, name string) {
	options := []attribute{{"size", o.Size}, {"alpha", o.Geometry().Alpha * float32(o.Size)}, {"beta", o.Beta}, {"bias", o.K}}
	input := x.maps(l.From[0])
	if o.Groups <= 1 {
		x.node("LRN", name, []string{input}, options...)
		return
	}
	var parts []string
	per := int64(l.In[0].C / o.Groups)
	for g := range o.Groups {
		part := fmt.Sprintf("%s.group%d", name, g)
		from := int64(g) * per
		x.node("Slice", part, []string{input, x.ints(part+".from", from), x.ints(part+".to", from+per), x.ints(part+".axis", 1)})
		x.node("LRN", part+".norm", []string{part}, options...)
		parts = append(parts, part+".norm")
	}
	x.node("Concat", name, parts, attribute{"axis", 1})
}
