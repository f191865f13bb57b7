package caffe

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"sluice/net"
)

// layer is a layer of either form.
type layer struct {
	name, typ   string // typ as the later form calls it
	bottom, top []string
	blobs       [][]byte
	of          func(parameter) (message, error) // its options
}

// parameter is a kind of options, by their numbers in the two forms.
type parameter struct{ v1, v2 protowire.Number }

var (
	concatParam    = parameter{9, 104}
	convParam      = parameter{10, 106}
	dropoutParam   = parameter{12, 108}
	eltwiseParam   = parameter{24, 110}
	denseParam     = parameter{17, 117}
	lrnParam       = parameter{18, 118}
	poolingParam   = parameter{19, 121}
	reluParam      = parameter{30, 123}
	softmaxParam   = parameter{39, 125}
	transformParam = parameter{36, 100}
	inputParam     = parameter{0, 143} // only in the later form
)

// v1Types are the names, in the later form, of what the first form numbers.
var v1Types = map[int]string{
	1: "Accuracy", 3: "Concat", 4: "Convolution", 5: "Data", 6: "Dropout", 8: "Flatten", 9: "HDF5Data", 12: "ImageData",
	14: "InnerProduct", 15: "LRN", 17: "Pooling", 18: "ReLU", 20: "Softmax", 21: "SoftmaxWithLoss", 22: "Split", 23: "TanH",
	24: "WindowData", 25: "Eltwise", 29: "MemoryData", 32: "DummyData", 36: "Silence",
}

func parseV1(b []byte) (layer, error) {
	m, err := parse(b)
	if err != nil {
		return layer{}, err
	}
	l := layer{name: m.text(4), bottom: m.texts(2), top: m.texts(3)}
	if _, old := m.last(1); old {
		return l, errors.New("is of Caffe's format before 2014: convert the file with Caffe's upgrade_net_proto_binary")
	}
	number := m.int(5, 0)
	if l.typ = v1Types[number]; l.typ == "" {
		l.typ = fmt.Sprintf("number %d", number)
	}
	for _, v := range m[6] {
		l.blobs = append(l.blobs, v.bytes)
	}
	l.of = func(p parameter) (message, error) { return m.message(p.v1) }
	return l, nil
}

func parseV2(b []byte) (layer, error) {
	m, err := parse(b)
	if err != nil {
		return layer{}, err
	}
	l := layer{name: m.text(1), typ: m.text(2), bottom: m.texts(3), top: m.texts(4)}
	for _, v := range m[7] {
		l.blobs = append(l.blobs, v.bytes)
	}
	l.of = func(p parameter) (message, error) { return m.message(p.v2) }
	return l, nil
}

// square is an option that may be given for both sides (repeated or not), or for
// height and width.
func square(m message, what string, both, high, wide protowire.Number, otherwise int) (int, error) {
	sides, err := m.ints(both)
	if err != nil {
		return 0, err
	}
	h, w := m.int(high, -1), m.int(wide, -1)
	switch {
	case len(sides) == 1:
		h, w = sides[0], sides[0]
	case len(sides) == 2:
		h, w = sides[0], sides[1]
	case h < 0 && w < 0:
		return otherwise, nil
	}
	if h != w {
		return 0, fmt.Errorf("its %s is %d high and %d wide; only equal ones are read", what, h, w)
	}
	if h < 0 || h > 1<<16 {
		return 0, fmt.Errorf("its %s is %d", what, h)
	}
	return h, nil
}

func (l *layer) conv() (net.ConvLayer, bool, error) {
	m, err := l.of(convParam)
	if err != nil {
		return net.ConvLayer{}, false, err
	}
	size, err1 := square(m, "kernel", 4, 11, 12, 0)
	stride, err2 := square(m, "stride", 6, 13, 14, 1)
	padding, err3 := square(m, "padding", 3, 9, 10, 0)
	dilation, err4 := square(m, "dilation", 18, 0, 0, 1)
	if dilation != 1 {
		err4 = errors.Join(err4, errors.New("it is dilated, which our conv is not"))
	}
	c := net.NewConv(m.int(1, 0), size)
	c.Stride, c.Padding, c.Groups, c.Activation = stride, padding, m.int(5, 1), net.None
	return c, m.bool(2, true), errors.Join(err1, err2, err3, err4)
}

func (l *layer) dense() (net.DenseLayer, bool, error) {
	m, err := l.of(denseParam)
	if err != nil {
		return net.DenseLayer{}, false, err
	}
	d := net.NewDense(m.int(1, 0))
	d.Activation = net.None
	if d.Out < 1 {
		err = fmt.Errorf("it has %d outputs", d.Out)
	}
	if m.bool(6, false) {
		err = errors.Join(err, errors.New("its weights are transposed, which are not read"))
	}
	return d, m.bool(2, true), err
}

// lrn is the layer in our form: Caffe's alpha is divided by the size, ours is a
// factor of each term.
func (l *layer) lrn() (net.Layer, error) {
	m, err := l.of(lrnParam)
	if err != nil {
		return nil, err
	}
	if m.int(4, 0) != 0 {
		return nil, errors.New("it normalises within channels; only across channels is read")
	}
	size := m.int(1, 5)
	if size < 1 {
		return nil, fmt.Errorf("its local_size is %d", size)
	}
	return net.LRNLayer{Size: size, K: m.float(5, 1), Alpha: float32(float64(m.float(2, 1)) / float64(size)), Beta: m.float(3, 0.75), Groups: 1}, nil
}

func (l *layer) pool() (net.Layer, error) {
	m, err := l.of(poolingParam)
	if err != nil {
		return nil, err
	}
	kind, global := m.int(1, 0), m.bool(12, false)
	size, err1 := square(m, "window", 2, 5, 6, 0)
	stride, err2 := square(m, "stride", 3, 7, 8, 1)
	padding, err3 := square(m, "padding", 4, 9, 10, 0)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	ceil := m.int(13, 0) == 0
	switch {
	case kind == 0 && !global:
		return net.MaxPoolLayer{Size: size, Stride: stride, Padding: padding, Ceil: ceil}, nil
	case kind == 1 && global:
		return net.AvgPoolLayer{Size: 3, Stride: 2, CountPadding: true, Global: true}, nil
	case kind == 1:
		return net.AvgPoolLayer{Size: size, Stride: stride, Padding: padding, Ceil: ceil, CountPadding: true}, nil
	}
	return nil, errors.New("it pools in a way that is not read (max, average and global average are)")
}

func (l *layer) dropout() (net.Layer, error) {
	m, err := l.of(dropoutParam)
	return net.DropoutLayer{Rate: m.float(1, 0.5)}, err
}

func (l *layer) concat() (net.Layer, error) {
	m, err := l.of(concatParam)
	if err == nil && (m.int(2, 1) != 1 || m.int(1, 1) != 1) {
		err = errors.New("it joins along another axis than channels")
	}
	return net.ConcatLayer{}, err
}

func (l *layer) add() (net.Layer, error) {
	m, err := l.of(eltwiseParam)
	if err == nil && (m.int(1, 1) != 1 || len(m[2]) > 0) {
		err = errors.New("it does something else than to add its inputs")
	}
	return net.AddLayer{}, err
}
