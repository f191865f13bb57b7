package caffe

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"sluice/net"
)

// Model is what a .caffemodel holds, in our terms.
type Model struct {
	Name  string
	Graph net.Graph // its Input is BGR, as Caffe's images are
	// Side is the height and width of the images; 0 if the file does not say.
	Side int
	// MeanFile is the mean image that the training subtracted, as the file names it;
	// its numbers are elsewhere, and Graph.Input.Mean is then ImageNet's.
	MeanFile string
	Tensors  []net.NamedTensor
}

// imageNetMean is the mean a channel of Caffe's imagenet_mean.binaryproto (red,
// green, blue), as its documentation gives it.
var imageNetMean = net.Triple{122.67891434, 116.66876762, 104.00698793}

// Read reads a .caffemodel. Layers that only training or testing needs are left
// out; of any other that our layers do not cover the error names it. Caffe's
// rounding up in pooling, its form of the normalisation's alpha, groups and the
// order of the channels are kept.
func Read(file string) (*Model, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	m, err := read(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return m, nil
}

func read(data []byte) (*Model, error) {
	top, err := parse(data)
	if err != nil {
		return nil, err
	}
	var layers []layer
	for _, form := range []struct {
		values []value
		parse  func([]byte) (layer, error)
	}{{top[2], parseV1}, {top[100], parseV2}} {
		for i, v := range form.values {
			l, err := form.parse(v.bytes)
			if err != nil {
				return nil, fmt.Errorf("layer %d %q: %w", i+1, l.name, err)
			}
			layers = append(layers, l)
		}
	}
	if len(layers) == 0 {
		return nil, errors.New("has no layers; is this a .caffemodel?")
	}
	r := reader{
		model: &Model{Name: top.text(1), Graph: net.Graph{
			Input: net.InputOptions{Mean: net.Mean{RGB: imageNetMean}, Scale: net.Triple{1, 1, 1}, Channels: "bgr"},
		}},
		nodes: map[string]int{},
		uses:  map[string]int{},
	}
	for _, l := range layers {
		for _, b := range l.bottom {
			r.uses[b]++
		}
	}
	// A file for use says its inputs here, one for training in its data layer.
	dims, err := top.ints(4)
	if err == nil && len(dims) == 0 {
		dims, err = shapeOf(top, 8)
	}
	if err != nil {
		return nil, err
	}
	for _, name := range top.texts(3) {
		r.nodes[name] = batch
	}
	if err := r.side(dims); err != nil {
		return nil, err
	}
	for _, l := range layers {
		if err := r.add(&l); err != nil {
			return nil, fmt.Errorf("layer %q (%s): %w", l.name, l.typ, err)
		}
	}
	if len(r.model.Tensors) == 0 {
		return nil, errors.New("has layers, but no weights; is this a .caffemodel?")
	}
	return r.model, r.end()
}

// shapeOf reads the first BlobShape of a field.
func shapeOf(m message, num protowire.Number) ([]int, error) {
	all := m[num]
	if len(all) == 0 {
		return nil, nil
	}
	shape, err := parse(all[0].bytes)
	if err != nil {
		return nil, err
	}
	return shape.ints(shapeDim)
}

// batch is the place of the input among nodes.
const batch = -1

// reader turns layers into nodes one by one.
type reader struct {
	model *Model
	nodes map[string]int // which node computes a blob of Caffe
	uses  map[string]int // how many layers read a blob
}

func (r *reader) side(dims []int) error {
	if len(dims) != 4 {
		return nil
	}
	if dims[1] != 3 || dims[2] != dims[3] || dims[2] < 1 || dims[2] > 1<<14 {
		return fmt.Errorf("its input is of %v (images, channels, height, width); only square images of 3 channels are read", dims)
	}
	r.model.Side = dims[2]
	return nil
}

func (r *reader) add(l *layer) error {
	switch l.typ {
	case "Data", "ImageData", "WindowData", "MemoryData", "HDF5Data", "DummyData", "Input":
		return r.data(l)
	case "Accuracy", "Silence":
		return nil
	case "Softmax", "SoftmaxWithLoss":
		return r.softmax(l)
	case "Split", "Flatten": // a dense layer flattens
		from, err := r.single(l)
		for _, top := range l.top {
			r.nodes[top] = from
		}
		return err
	case "ReLU":
		m, err := l.of(reluParam)
		if err == nil && m.float(1, 0) != 0 {
			err = errors.New("it leaks below zero, which our relu does not")
		}
		return errors.Join(err, r.activate(l, net.ReLU))
	case "TanH":
		return r.activate(l, net.Tanh)
	case "Convolution":
		c, bias, err := l.conv()
		if err != nil {
			return err
		}
		return r.weighted(l, c, c.Out, bias)
	case "InnerProduct":
		d, bias, err := l.dense()
		if err != nil {
			return err
		}
		return r.weighted(l, d, d.Out, bias)
	}
	build := map[string]func() (net.Layer, error){
		"LRN": l.lrn, "Pooling": l.pool, "Dropout": l.dropout, "Concat": l.concat, "Eltwise": l.add,
	}[l.typ]
	if build == nil {
		return errors.New("is of a type that is not read")
	}
	ours, err := build()
	if err != nil {
		return err
	}
	return r.append(l, ours)
}

// data learns from a source of images what becomes of them.
func (r *reader) data(l *layer) error {
	if len(l.top) > 0 { // the second is the labels
		r.nodes[l.top[0]] = batch
	}
	m, err := l.of(transformParam)
	if err != nil {
		return err
	}
	if side := m.int(3, 0); side > 0 {
		r.model.Side = side
	}
	scale := m.float(1, 1)
	r.model.Graph.Input.Scale = net.Triple{scale, scale, scale}
	means, err := m.floats(5)
	if err != nil {
		return err
	}
	switch len(means) {
	case 0:
		if r.model.MeanFile = m.text(4); r.model.MeanFile == "" && l.typ != "Input" {
			r.model.Graph.Input.Mean.RGB = net.Triple{} // nothing is subtracted
		}
	case 1:
		r.model.Graph.Input.Mean.RGB = net.Triple{means[0], means[0], means[0]}
	case 3:
		r.model.Graph.Input.Mean.RGB = net.Triple{means[2], means[1], means[0]}
	default:
		return fmt.Errorf("it has %d mean values", len(means))
	}
	if l.typ == "Input" {
		shape, err := l.of(inputParam)
		if err != nil {
			return err
		}
		dims, err := shapeOf(shape, 1)
		if err != nil {
			return err
		}
		return r.side(dims)
	}
	return nil
}

// node is what computes a blob.
func (r *reader) node(blob string) (int, error) {
	at, ok := r.nodes[blob]
	if !ok {
		return 0, fmt.Errorf("it reads %q, which no layer before it computes", blob)
	}
	return at, nil
}

func (r *reader) single(l *layer) (int, error) {
	if len(l.bottom) != 1 || len(l.top) < 1 {
		return 0, fmt.Errorf("it has %d inputs and %d outputs", len(l.bottom), len(l.top))
	}
	return r.node(l.bottom[0])
}

// append makes a node of a layer.
func (r *reader) append(l *layer, ours net.Layer) error {
	if len(l.top) != 1 || len(l.bottom) == 0 {
		return fmt.Errorf("it has %d inputs and %d outputs", len(l.bottom), len(l.top))
	}
	g := &r.model.Graph
	n := net.Node{Name: plainName(l.name), Layer: ours}
	for _, b := range l.bottom {
		at, err := r.node(b)
		if err != nil {
			return err
		}
		from := net.InputName
		if at != batch {
			from = g.Layers[at].Name
		}
		n.From = append(n.From, from)
	}
	r.nodes[l.top[0]] = len(g.Layers)
	g.Layers = append(g.Layers, n)
	return nil
}

// plainName has no character that our names do not have.
func plainName(name string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			return c
		}
		return '_'
	}, name)
}

// weighted makes a node of a layer with weights. Without a bias it gets one of
// zeros.
func (r *reader) weighted(l *layer, ours net.Layer, out int, bias bool) error {
	want := 1
	if bias {
		want = 2
	}
	if len(l.blobs) != want {
		return fmt.Errorf("it has %d blobs, and must have %d", len(l.blobs), want)
	}
	name := plainName(l.name)
	w, err := blob(l.blobs[0])
	if err != nil {
		return fmt.Errorf("its weights: %w", err)
	}
	if out < 1 || len(w.Data) == 0 || len(w.Data)%out != 0 {
		return fmt.Errorf("its weights are of %v, and there are %d outputs", w.Dims, out)
	}
	w.Name = name + ".weight"
	if _, ok := ours.(net.DenseLayer); ok {
		w.Dims = []int{out, len(w.Data) / out} // the first form has ones before
	}
	b := net.NamedTensor{Data: make([]float32, out)}
	if bias {
		if b, err = blob(l.blobs[1]); err != nil {
			return fmt.Errorf("its bias: %w", err)
		}
	}
	b.Name, b.Role, b.Dims = name+".bias", net.RoleWeight, []int{len(b.Data)}
	r.model.Tensors = append(r.model.Tensors, w, b)
	return r.append(l, ours)
}

// activate gives an activation to the layer before it, of which it is a part with
// us.
func (r *reader) activate(l *layer, act net.Activation) error {
	at, err := r.single(l)
	if err != nil {
		return err
	}
	if l.top[0] != l.bottom[0] && r.uses[l.bottom[0]] > 1 {
		return fmt.Errorf("another layer reads %q before it, which only a layer of its own would allow", l.bottom[0])
	}
	if at != batch {
		g := &r.model.Graph
		switch before := g.Layers[at].Layer.(type) {
		case net.ConvLayer:
			if before.Activation == net.None {
				before.Activation = act
				g.Layers[at].Layer, r.nodes[l.top[0]] = before, at
				return nil
			}
		case net.DenseLayer:
			if before.Activation == net.None {
				before.Activation = act
				g.Layers[at].Layer, r.nodes[l.top[0]] = before, at
				return nil
			}
		}
	}
	return errors.New("it follows no convolution or inner product, and there is no such layer of its own")
}

func (r *reader) softmax(l *layer) error {
	m, err := l.of(softmaxParam)
	if err != nil {
		return err
	}
	if m.int(2, 1) != 1 {
		return errors.New("its softmax is along another axis than channels")
	}
	if len(l.bottom) == 0 {
		return errors.New("it reads nothing")
	}
	l.bottom, l.top = l.bottom[:1], []string{" softmax"} // no layer of Caffe's reads it
	l.name = "softmax"
	return r.append(l, net.SoftmaxLayer{})
}

// end puts a softmax after a network that has none, and leaves out what a list
// says of itself: that a layer reads the one before it.
func (r *reader) end() error {
	g := &r.model.Graph
	if len(g.Layers) == 0 {
		return errors.New("has no layer that computes anything")
	}
	if _, ok := g.Layers[len(g.Layers)-1].Layer.(net.SoftmaxLayer); !ok {
		g.Layers = append(g.Layers, net.Node{Name: "softmax", Layer: net.SoftmaxLayer{}})
	}
	before := net.InputName
	for i := range g.Layers {
		if n := &g.Layers[i]; len(n.From) == 1 && n.From[0] == before {
			n.From = nil
		}
		before = g.Layers[i].Name
	}
	return nil
}
