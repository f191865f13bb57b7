package onnx_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"sluice/gpu/host"
	"sluice/gpu/host/simd"
	"sluice/net"
	"sluice/net/caffe"
	"sluice/net/nettest"
	"sluice/net/onnx"
)

var update = flag.Bool("update", false, "write testdata/every_layer.onnx anew")

// everyLayer has every layer that a model can have, and every rounding and
// padding of theirs.
func everyLayer(t testing.TB) *net.NetPlan {
	t.Helper()
	conv := func(out, size, stride, padding, groups int, act net.Activation) net.Layer {
		l := net.NewConv(out, size)
		l.Stride, l.Padding, l.Groups, l.Activation = stride, padding, groups, act
		return l
	}
	dense := func(out int, act net.Activation) net.Layer {
		l := net.NewDense(out)
		l.Activation = act
		return l
	}
	g := net.Graph{
		Input: net.InputOptions{Mean: net.Mean{RGB: net.Triple{120, 110, 100}}, Scale: net.Triple{1. / 64, 1. / 60, 1. / 56}, Pad: net.Padding{1, 2, 0, 3}, Channels: "bgr"},
		Layers: []net.Node{
			{Name: "conv1", Layer: conv(8, 5, 2, 0, 1, net.ReLU)},
			{Name: "norm1", Layer: net.LRNLayer{Size: 5, K: 2, Alpha: 0.05, Beta: 0.75, Groups: 1}},
			{Name: "norm2", Layer: net.LRNLayer{Size: 3, K: 1, Alpha: 0.3, Beta: 0.5, Groups: 2, AlphaPerWindow: true}},
			{Name: "tanh", Layer: net.ActivationLayer{Function: net.Tanh}},
			{Name: "ceil", Layer: net.MaxPoolLayer{Size: 3, Stride: 2, Ceil: true}},
			{Name: "floor", Layer: net.MaxPoolLayer{Size: 3, Stride: 2, Padding: 1}},
			{Name: "left", Layer: conv(4, 3, 1, 1, 2, net.Tanh)},
			{Name: "right", From: []string{"floor"}, Layer: conv(6, 1, 1, 0, 1, net.None)},
			{Name: "wide", From: []string{"floor"}, Layer: conv(4, 3, 1, 1, 1, net.ReLU)},
			{Name: "sum", From: []string{"left", "wide"}, Layer: net.AddLayer{}},
			{Name: "join", From: []string{"sum", "right"}, Layer: net.ConcatLayer{}},
			{Name: "edge", Layer: conv(6, 1, 1, 1, 1, net.ReLU)},
			{Name: "mean1", Layer: net.AvgPoolLayer{Size: 3, Stride: 1, Padding: 1, CountPadding: true}},
			{Name: "mean2", Layer: net.AvgPoolLayer{Size: 3, Stride: 2, Padding: 1, Ceil: true}},
			{Name: "mean3", Layer: net.AvgPoolLayer{Size: 2, Stride: 2, Ceil: true, CountPadding: true}},
			{Name: "fc1", Layer: dense(7, net.ReLU)},
			{Name: "drop", Layer: net.DropoutLayer{Rate: 0.5}},
			{Name: "back", Layer: conv(5, 1, 1, 0, 1, net.None)}, // maps of what was rows
			{Name: "global", From: []string{"join"}, Layer: net.AvgPoolLayer{Size: 1, Stride: 1, Global: true}},
			{Name: "both", From: []string{"back", "global"}, Layer: net.ConcatLayer{}},
			{Name: "fc2", Layer: dense(0, net.None)},
			{Name: "softmax", Layer: net.SoftmaxLayer{}},
		},
	}
	p, err := g.Def().Plan(1, 38, 33, 4)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// weights are numbers without a generator of random ones, so that they never
// change.
func weights(p *net.NetPlan) (out []net.NamedTensor) {
	for _, l := range p.Layers {
		for _, s := range l.Plan.Params {
			w := net.NamedTensor{Name: l.Name + "." + s.Name, Role: net.RoleWeight, Dims: s.Dims(), Data: make([]float32, s.Shape.Len())}
			x := uint32(len(out) + 1)
			size := 1 / math.Sqrt(float64(s.Shape.Image()))
			for i := range w.Data {
				x = x*1664525 + 1013904223
				w.Data[i] = float32((float64(x>>8)/(1<<23) - 1) * size)
			}
			out = append(out, w)
		}
	}
	return out
}

const golden = "testdata/every_layer.onnx"

// The model of every layer has the bytes of a file that onnxruntime takes, see
// TestOnnxruntime.
func TestGolden(t *testing.T) {
	p := everyLayer(t)
	var got bytes.Buffer
	if err := onnx.Write(&got, p, weights(p), "test", map[string]string{"classes": `["a"]`, "author": "none"}); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the model is not that of %s; if it is meant to be, run with -update and with onnxruntime", golden)
	}
}

// onnxruntime gives our logits: run with SLUICE_ONNXRUNTIME naming a folder in which
// npm has installed onnxruntime-node, as .ci/run does.
func TestOnnxruntime(t *testing.T) {
	dir := os.Getenv("SLUICE_ONNXRUNTIME")
	if dir == "" {
		t.Skip("SLUICE_ONNXRUNTIME names no folder with onnxruntime-node: models are only compared with files that it took")
	}
	script, err := filepath.Abs("testdata/run.cjs")
	if err != nil {
		t.Fatal(err)
	}
	small := func(t testing.TB) *net.NetPlan {
		p, err := net.Preset("alexnet_small").Plan(1, 64, 64, 0)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	caffeNet := func(t testing.TB) *net.NetPlan {
		m, err := caffe.Read("../caffe/testdata/caffenet.caffemodel")
		if err != nil {
			t.Fatal(err)
		}
		p, err := m.Graph.Def().Plan(1, m.Side, m.Side, 0)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, c := range []struct {
		name string
		plan func(testing.TB) *net.NetPlan
	}{{"every_layer", everyLayer}, {"alexnet_small", small}, {"caffenet", caffeNet}, {"named", named}} {
		t.Run(c.name, func(t *testing.T) {
			p := c.plan(t)
			s := p.Input
			tensors, pixels := weights(p), nettest.Picture(s.H, s.W)
			level, err := simd.Choose(os.Getenv("SLUICE_CPU"))
			if err != nil {
				t.Fatal(err)
			}
			e := host.New(2, level)
			defer e.Close()
			want := nettest.Logits(t, e, p, tensors, pixels)

			model := filepath.Join(t.TempDir(), "model.onnx")
			f, err := os.Create(model)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(onnx.Write(f, p, tensors, "test", nil), f.Close()); err != nil {
				t.Fatal(err)
			}
			// Twice the image, since the number of images is left open.
			var images []byte
			for range 2 {
				for ch := range 3 {
					for i := range s.H * s.W {
						images = binary.LittleEndian.AppendUint32(images, math.Float32bits(float32(pixels[3*i+ch])))
					}
				}
			}
			input := filepath.Join(t.TempDir(), "images.f32")
			if err := os.WriteFile(input, images, 0o644); err != nil {
				t.Fatal(err)
			}
			run := exec.Command("node", script, model, input, "2", strconv.Itoa(s.H), strconv.Itoa(s.W))
			run.Dir = dir
			out, err := run.Output()
			if err != nil {
				t.Fatalf("onnxruntime: %v\n%s", err, stderrOf(err))
			}
			var got map[string]struct {
				Dims []int
				Data []float64
			}
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatalf("%v in %.200s", err, out)
			}
			logits, probabilities := got[onnx.Logits], got[onnx.Probabilities]
			if len(logits.Data) != 2*len(want) || len(probabilities.Data) != 2*len(want) {
				t.Fatalf("%v logits and %v probabilities of %d classes", logits.Dims, probabilities.Dims, len(want))
			}
			sum := 0.
			for i, v := range logits.Data {
				if d := math.Abs(v - float64(want[i%len(want)])); !(d < 1e-4) {
					t.Fatalf("logit %d is %g, want %g", i, v, want[i%len(want)])
				}
				sum += probabilities.Data[i]
			}
			if math.Abs(sum-2) > 1e-4 {
				t.Errorf("the probabilities of two images sum to %g", sum)
			}
			if spread := spread(want); spread < 1e-3 {
				t.Errorf("the logits differ by %g only, so this tests nothing", spread)
			}
		})
	}
}

func spread(v []float32) float32 {
	least, most := v[0], v[0]
	for _, x := range v {
		least, most = min(least, x), max(most, x)
	}
	return most - least
}

func stderrOf(err error) string {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(exit.Stderr)
	}
	return ""
}

// own is a layer that ONNX does not know.
type own struct{}

func (own) Plan(in []net.Shape) (net.Plan, error) { return net.Plan{Out: in[0]}, nil }
func (own) Forward(e net.Engine, f *net.Frame)    { e.Copy(f.Y, f.X[0]) }
func (own) Backward(net.Engine, *net.Frame)       {}

func TestMistakes(t *testing.T) {
	g := net.Graph{Input: net.InputOptions{Scale: net.Triple{1, 1, 1}, Channels: "rgb"}, Layers: []net.Node{{Name: "mine", Layer: own{}}, {Layer: net.NewDense(0)}, {Layer: net.SoftmaxLayer{}}}}
	p, err := g.Def().Plan(1, 4, 4, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := onnx.Write(io.Discard, p, weights(p), "", nil); err == nil || !strings.Contains(err.Error(), `layer "mine": onnx_test.own has no form in ONNX`) {
		t.Errorf("a layer that ONNX does not know: error %v", err)
	}
	if err := onnx.Write(io.Discard, p, weights(p)[1:], "", nil); err == nil || !strings.Contains(err.Error(), `missing: "dense1.weight"`) {
		t.Errorf("a weight is missing: error %v", err)
	}
}

// fields are the values of a message's field.
func fields(t *testing.T, message []byte, num protowire.Number) (out [][]byte) {
	t.Helper()
	for b := message; len(b) > 0; {
		n, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			t.Fatal(protowire.ParseError(size))
		}
		b = b[size:]
		end := protowire.ConsumeFieldValue(n, typ, b)
		if end < 0 {
			t.Fatal(protowire.ParseError(end))
		}
		if n == num && typ == protowire.BytesType {
			v, _ := protowire.ConsumeBytes(b)
			out = append(out, v)
		}
		b = b[end:]
	}
	return out
}

// named has layers that are called as the model's own input and outputs are.
func named(t testing.TB) *net.NetPlan {
	t.Helper()
	plain := net.NewConv(4, 3)
	wide := net.NewConv(4, 1)
	wide.Activation = net.None
	g := net.Graph{
		Input: net.InputOptions{Scale: net.Triple{1. / 64, 1. / 64, 1. / 64}, Channels: "rgb"},
		Layers: []net.Node{
			{Name: "images", Layer: plain}, {Name: "wide", Layer: wide}, {Name: "sum", From: []string{"images", "wide"}, Layer: net.ConcatLayer{}},
			{Name: "logits", Layer: net.NewDense(0)}, {Name: "probabilities", Layer: net.SoftmaxLayer{}},
		},
	}
	p, err := g.Def().Plan(1, 8, 9, 3)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A model names each value once, and an operator reads only what is there before it,
// whatever the layers are called.
func TestValuesHaveOneName(t *testing.T) {
	for _, plan := range []func(testing.TB) *net.NetPlan{everyLayer, named} {
		p := plan(t)
		var model bytes.Buffer
		if err := onnx.Write(&model, p, weights(p), "test", nil); err != nil {
			t.Fatal(err)
		}
		graph := fields(t, model.Bytes(), 7)[0]
		there := map[string]bool{}
		add := func(name []byte) {
			if there[string(name)] {
				t.Errorf("%q is there twice", name)
			}
			there[string(name)] = true
		}
		for _, in := range fields(t, graph, 11) {
			add(fields(t, in, 1)[0])
		}
		for _, constant := range fields(t, graph, 5) {
			add(fields(t, constant, 8)[0])
		}
		nodes := fields(t, graph, 1)
		for _, n := range nodes {
			for _, in := range fields(t, n, 1) {
				if !there[string(in)] {
					t.Errorf("%q reads %q, which is not there", fields(t, n, 3)[0], in)
				}
			}
			for _, out := range fields(t, n, 2) {
				add(out)
			}
		}
		for _, out := range fields(t, graph, 12) {
			if name := fields(t, out, 1)[0]; !there[string(name)] {
				t.Errorf("nothing computes %q", name)
			}
		}
		if len(nodes) < len(p.Layers) {
			t.Errorf("%d operators of %d layers", len(nodes), len(p.Layers))
		}
	}
}
