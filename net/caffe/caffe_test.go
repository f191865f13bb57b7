package caffe

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"sluice/net"
	"sluice/net/nettest"
)

// Files of testdata are made by scripts/goldens_import.py.

// Both forms of Caffe's files, and both orders of normalisation and pooling, give
// the logits that PyTorch computes by Caffe's rules.
func TestRead(t *testing.T) {
	for _, c := range []struct {
		name, meanFile, layers string
		mean                   bool
	}{
		{
			"bvlc_alexnet", "data/ilsvrc12/imagenet_mean.binaryproto",
			"conv1 norm1 pool1 conv2 norm2 pool2 conv3 conv4 conv5 pool5 fc6 drop6 fc7 drop7 fc8 softmax", true,
		},
		{"caffenet", "", "conv1 pool1 norm1 conv2 pool2 norm2 conv3 conv4 conv5 pool5 fc6 drop6 fc7 drop7 fc8 softmax", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := Read(filepath.Join("testdata", c.name+".caffemodel"))
			if err != nil {
				t.Fatal(err)
			}
			if m.Side != 227 || m.MeanFile != c.meanFile || m.Graph.Input.Channels != "bgr" || m.Name != "AlexNet" {
				t.Errorf("images of %d, mean file %q, %q, %q", m.Side, m.MeanFile, m.Graph.Input.Channels, m.Name)
			}
			if c.mean {
				if m.Graph.Input.Mean.RGB, err = ReadMean("testdata/mean.binaryproto"); err != nil {
					t.Fatal(err)
				}
			}
			plan, err := m.Graph.Def().Plan(1, 227, 227, 0)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, l := range plan.Layers {
				names = append(names, l.Name)
			}
			if got := strings.Join(names, " "); got != c.layers {
				t.Errorf("layers %s, want %s", got, c.layers)
			}
			if norm := plan.Layers[1].Layer; c.mean && norm != (net.LRNLayer{Size: 5, K: 1, Alpha: 2e-5, Beta: 0.75, Groups: 1}) {
				t.Errorf("norm1 is %+v: Caffe's alpha of 1e-4 over 5 channels is 2e-5 a term", norm)
			}
			got := nettest.Logits(t, nettest.NewReference(), plan, m.Tensors, nettest.Picture(227, 227))
			data, err := os.ReadFile(filepath.Join("testdata", c.name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			var want []float64
			if err := json.Unmarshal(data, &want); err != nil {
				t.Fatal(err)
			}
			greatest := 0.
			for _, v := range want {
				greatest = max(greatest, math.Abs(v))
			}
			for i := range want {
				// The logits are of raw levels, some hundreds.
				if d := math.Abs(float64(got[i]) - want[i]); len(got) != len(want) || !(d < 1e-4*max(1, greatest/100)) {
					t.Errorf("logit %d is %g, want %g", i, got[i], want[i])
				}
			}
		})
	}
}

func TestReadMean(t *testing.T) {
	mean, err := ReadMean("testdata/mean.binaryproto")
	if want := [3]float32{117.5, 107.5, 97.5}; err != nil || mean != want {
		t.Errorf("mean %v, %v, want %v: red, green, blue", mean, err, want)
	}
	if _, err := ReadMean("testdata/caffenet.caffemodel"); err == nil || !strings.Contains(err.Error(), "caffenet.caffemodel") {
		t.Errorf("a model as mean image: error %v", err)
	}
	if _, err := ReadMean("testdata/none.binaryproto"); err == nil {
		t.Error("no file, no error")
	}
}

// msg is a message in the making.
type msg []byte

func (m msg) text(num protowire.Number, s string) msg {
	return protowire.AppendString(protowire.AppendTag(m, num, protowire.BytesType), s)
}

func (m msg) int(num protowire.Number, v int) msg {
	return protowire.AppendVarint(protowire.AppendTag(m, num, protowire.VarintType), uint64(v))
}

func (m msg) float(num protowire.Number, v float32) msg {
	return protowire.AppendFixed32(protowire.AppendTag(m, num, protowire.Fixed32Type), math.Float32bits(v))
}

func (m msg) floats(num protowire.Number, n int) msg {
	return m.text(num, string(make([]byte, 4*n)))
}

// layer2 is a layer of the later form.
func layer2(name, typ, bottom, top string, rest msg) msg {
	m := msg{}.text(1, name).text(2, typ)
	if bottom != "" {
		m = m.text(3, bottom)
	}
	return append(m.text(4, top), rest...)
}

func model(layers ...msg) []byte {
	m := msg{}.text(3, "data").int(4, 1).int(4, 3).int(4, 8).int(4, 8)
	for _, l := range layers {
		m = m.text(100, string(l))
	}
	return m
}

// blobOf is a blob of one dimension.
func blobOf(n int) string { return string(msg{}.text(7, string(msg{}.int(1, n))).floats(5, n)) }

func conv(bottom, top string) msg {
	return layer2(top, "Convolution", bottom, top, msg{}.text(106, string(msg{}.int(1, 2).int(4, 1))).text(7, blobOf2(2, 3)).text(7, blobOf(2)))
}

// Layers that only Caffe has, and files that make no sense, are named.
func TestMistakes(t *testing.T) {
	for want, data := range map[string][]byte{
		"has no layers":   {},
		"or is cut short": []byte("\x12\xff\xff\xff\xff\x7f"),
		`layer "up" (Deconvolution): is of a type that is not read`: model(conv("data", "a"), layer2("up", "Deconvolution", "a", "b", nil)),
		`layer "a" (Convolution): it reads "nothing"`:               model(conv("nothing", "a")),
		`layer "a" (Convolution): it has 0 blobs, and must have 2`:  model(layer2("a", "Convolution", "data", "a", msg{}.text(106, string(msg{}.int(1, 2).int(4, 1))))),
		`layer "a" (Convolution): its weights: the shape [9] means`: model(layer2("a", "Convolution", "data", "a", msg{}.text(106, string(msg{}.int(1, 2).int(4, 1))).
			text(7, string(msg{}.text(7, string(msg{}.int(1, 9))).floats(5, 6))).text(7, blobOf(2)))),
		`layer "a" (Convolution): its kernel is 1 high and 3 wide`: model(layer2("a", "Convolution", "data", "a", msg{}.text(106, string(msg{}.int(1, 2).int(11, 1).int(12, 3))).text(7, blobOf(6)).text(7, blobOf(2)))),
		`layer "r" (ReLU): it leaks below zero`:                    model(conv("data", "a"), layer2("r", "ReLU", "a", "a", msg{}.text(123, string(msg{}.float(1, 0.1))))),
		`layer "n" (LRN): it normalises within channels`:           model(conv("data", "a"), layer2("n", "LRN", "a", "n", msg{}.text(118, string(msg{}.int(4, 1))))),
		`layer "p" (Pooling): it pools in a way`:                   model(conv("data", "a"), layer2("p", "Pooling", "a", "p", msg{}.text(121, string(msg{}.int(1, 2).int(2, 2))))),
		`layer "e" (Eltwise): it does something else`:              model(conv("data", "a"), layer2("e", "Eltwise", "a", "e", msg{}.text(110, string(msg{}.int(1, 2))))),
		`layer "d" (InnerProduct): it has 0 outputs`:               model(layer2("d", "InnerProduct", "data", "d", nil)),
		"no weights":        model(layer2("p", "Pooling", "data", "p", msg{}.text(121, string(msg{}.int(2, 2))))),
		"of Caffe's format": msg{}.text(2, string(msg{}.text(1, "old").text(4, "x"))),
		"its input is of [1 4 8 8]": append(msg{}.text(3, "data").int(4, 1).int(4, 4).int(4, 8).int(4, 8),
			msg{}.text(100, string(conv("data", "a")))...),
	} {
		if m, err := read(data); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, error %v, want %q", m, err, want)
		}
	}
}

// A branching network, averages and a layer without a bias.
func TestBranches(t *testing.T) {
	data := model(
		conv("data", "a"), layer2("relu", "ReLU", "a", "a", nil),
		conv2("a", "x/1"), conv2("a", "x/2"),
		msg{}.text(1, "join").text(2, "Concat").text(3, "x/1").text(3, "x/2").text(4, "join"),
		layer2("pool", "Pooling", "join", "pool", msg{}.text(121, string(msg{}.int(1, 1).int(12, 1)))),
		layer2("prob", "Softmax", "pool", "prob", nil),
	)
	m, err := read(data)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := m.Graph.Def().Plan(1, m.Side, m.Side, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := plan.CheckWeights(m.Tensors); err != nil {
		t.Error(err)
	}
	join := plan.Layers[3]
	if join.Name != "join" || strings.Join(join.From, " ") != "x_1 x_2" || join.Plan.Out.C != 4 {
		t.Errorf("join is %q of %v, %v", join.Name, join.From, join.Plan.Out)
	}
}

// conv2 has no bias.
func conv2(bottom, top string) msg {
	return layer2(top, "Convolution", bottom, top, msg{}.text(106, string(msg{}.int(1, 2).int(2, 0).int(4, 1))).text(7, blobOf2(2, 2)))
}

func blobOf2(o, i int) string {
	return string(msg{}.int(1, o).int(2, i).int(3, 1).int(4, 1).floats(5, o*i))
}

// FuzzRead: whatever a file holds, reading it ends with a network or an error.
func FuzzRead(f *testing.F) {
	f.Add(model(conv("data", "a"), layer2("r", "ReLU", "a", "a", nil)))
	for _, name := range []string{"bvlc_alexnet", "caffenet"} {
		data, err := os.ReadFile(filepath.Join("testdata", name+".caffemodel"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.Clone(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := read(data)
		if err != nil || m.Side == 0 {
			return
		}
		plan, err := m.Graph.Def().Plan(1, m.Side, m.Side, 0)
		if err != nil {
			return
		}
		_ = plan.CheckWeights(m.Tensors)
	})
}

// Sizes near the limits of their types are errors, and take no memory.
func TestHostileSizes(t *testing.T) {
	shape := func(dims ...int) msg {
		var m msg
		for _, d := range dims {
			m = m.int(1, d)
		}
		return msg{}.text(7, string(m))
	}
	convOf := func(options, weights msg) []byte {
		return model(layer2("a", "Convolution", "data", "a", msg{}.text(106, string(options)).text(7, string(weights))))
	}
	for what, c := range map[string]struct {
		data []byte
		want string
	}{
		"outputs without weights":  {convOf(msg{}.int(1, math.MaxInt32).int(2, 0).int(4, 1), shape(0)), "its weights are of [0]"},
		"inner product without":    {model(layer2("a", "InnerProduct", "data", "a", msg{}.text(117, string(msg{}.int(1, math.MaxInt32).int(2, 0))).text(7, string(shape(0))))), "its weights are of [0]"},
		"a shape that wraps":       {convOf(msg{}.int(1, 2).int(2, 0).int(4, 1), shape(1<<62, 4).floats(5, 2)), "means another number"},
		"a shape below zero":       {convOf(msg{}.int(1, 2).int(2, 0).int(4, 1), shape(-1, -2).floats(5, 2)), "means another number"},
		"a kernel of 2^62":         {convOf(msg{}.int(1, 2).int(2, 0).int(4, 1<<62), shape(2, 1).floats(5, 2)), "its kernel is"},
		"a stride below zero":      {convOf(msg{}.int(1, 2).int(2, 0).int(4, 1).int(6, -1), shape(2, 1).floats(5, 2)), "its stride is"},
		"numbers that are no text": {msg{}.text(3, "data").int(4, 1).int(4, 3).int(4, 1<<62).int(4, 1<<62), "has no layers"},
		"an input of 2^62":         {append(msg{}.text(3, "data").int(4, 1).int(4, 3).int(4, 1<<62).int(4, 1<<62), msg{}.text(100, string(conv("data", "a")))...), "its input is of"},
		"fields without end":       {bytes.Repeat([]byte{0x08, 1}, maxFields+1), "more than 65536 fields"},
	} {
		if m, err := read(c.data); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, error %v, want %q", what, m, err, c.want)
		}
	}
	// What fits the file may still fit no image.
	m, err := read(convOf(msg{}.int(1, 2).int(2, 0).int(4, 1).int(3, 1<<16).int(5, math.MaxInt32), shape(2, 1).floats(5, 2)))
	if err == nil {
		_, err = m.Graph.Def().Plan(1, m.Side, m.Side, 0)
	}
	if err == nil {
		t.Error("2^31 groups are planned")
	}
}
