package nettest

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"sluice/net"
)

// goldenFile is made by testdata/golden.py, which says what is in it.
//
//go:embed testdata/golden.safetensors
var goldenFile []byte

const (
	goldenVersion = "1"
	goldenSeed    = 2012
	goldenSide    = 29
	goldenClasses = 5
)

// goldenNet is the network of golden.py: AlexNet's layers, few and narrow.
func goldenNet() net.Graph {
	conv := func(name string, out, size, padding, groups int) net.Node {
		l := net.NewConv(out, size)
		l.Padding, l.Groups = padding, groups
		return net.Node{Name: name, Layer: l}
	}
	conv1 := net.NewConv(8, 7)
	conv1.Stride = 2
	conv2 := conv("conv2", 12, 5, 2, 2)
	caffe := conv2.Layer.(net.ConvLayer)
	caffe.BiasLR, caffe.BiasDecay = 2, 0
	conv2.Layer = caffe
	norm := net.LRNLayer{Size: 5, K: 2, Alpha: 0.05, Beta: 0.75, Groups: 1}
	return net.Graph{
		Input: net.InputOptions{
			Mean: net.Mean{RGB: net.Triple{120, 110, 100}}, Scale: net.Triple{1. / 64, 1. / 64, 1. / 64},
			Pad: net.Padding{0, 2, 0, 2}, Channels: "rgb",
		},
		Layers: []net.Node{
			{Name: "conv1", Layer: conv1},
			{Name: "norm1", Layer: norm},
			{Name: "pool1", Layer: net.MaxPoolLayer{Size: 3, Stride: 2}},
			conv2,
			{Name: "norm2", Layer: norm},
			{Name: "pool2", Layer: net.MaxPoolLayer{Size: 3, Stride: 2, Ceil: true}},
			conv("conv3", 16, 3, 1, 1),
			conv("conv4", 16, 3, 1, 2),
			conv("conv5", 12, 3, 1, 2),
			{Name: "pool5", Layer: net.MaxPoolLayer{Size: 3, Stride: 2, Padding: 1, Ceil: true}},
			{Name: "fc6", Layer: net.NewDense(24)},
			{Name: "drop6", Layer: net.DropoutLayer{Rate: 0.5}},
			{Name: "fc7", Layer: net.NewDense(24)},
			{Name: "drop7", Layer: net.DropoutLayer{Rate: 0.25}},
			{Name: "fc8", Layer: net.NewDense(0)},
			{Name: "softmax", Layer: net.SoftmaxLayer{}},
		},
	}
}

// Golden runs ten training steps of a shrunken AlexNet (groups, the paper's
// normalisation, both roundings of pooling, dropout, padding, the paper's rule
// with a falling rate) and compares logits, every gradient, the ten losses, and
// weights and momentum after them with what PyTorch computed in float64.
//
// tolerance is the greatest error of a number allowed, as a part of the greatest
// number in its tensor: 1e-6 shows that float64 sums are right to the last digit
// stored; 2e-5 is fair for float32 sums.
func Golden(t *testing.T, newEngine func() net.Engine, tolerance float64) {
	t.Helper()
	tensors, meta, err := net.ReadSafetensors(bytes.NewReader(goldenFile))
	if err != nil {
		t.Fatal(err)
	}
	if meta["version"] != goldenVersion {
		t.Fatalf("the golden file has version %q, not %q: run testdata/golden.py", meta["version"], goldenVersion)
	}
	golden := map[string][]float32{}
	var start []net.NamedTensor
	for _, w := range tensors {
		golden[w.Name] = w.Data
		if strings.Count(w.Name, ".") == 1 { // conv1.weight, and not final.conv1.weight
			start = append(start, w)
		}
	}
	check := func(t *testing.T, what string, got []float32) {
		t.Helper()
		want, ok := golden[what]
		if !ok {
			t.Fatalf("the golden file has no %q", what)
		}
		if err := near(got, want, tolerance); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}

	e := &recorder{Engine: newEngine()}
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	const batch = 4
	plan, err := goldenNet().Def().Plan(batch, goldenSide, goldenSide, goldenClasses)
	if err != nil {
		t.Fatal(err)
	}
	n, err := net.New(t.Context(), e, plan, goldenSeed, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Load(start); err != nil {
		t.Fatal(err)
	}
	var in [2]net.Input
	for i := range in {
		if in[i], err = n.NewInput(); err != nil {
			t.Fatal(err)
		}
		defer in[i].Close()
		b := net.ImageBatch{N: batch, Shift: part(golden["shift"], i)}
		for _, v := range part(golden["images"], i) {
			b.Pixels = append(b.Pixels, byte(v))
		}
		for _, v := range part(golden["labels"], i) {
			b.Labels = append(b.Labels, int32(v))
		}
		if err := in[i].Load(b); err != nil {
			t.Fatal(err)
		}
	}

	if err := n.Forward(t.Context(), in[0], 0, false); err != nil {
		t.Fatal(err)
	}
	check(t, "logits", e.logits)

	var losses []float32
	for step := range 10 {
		if err := n.Forward(t.Context(), in[step%2], step, true); err != nil {
			t.Fatal(err)
		}
		stats, err := n.Stats()
		if err != nil {
			t.Fatal(err)
		}
		losses = append(losses, float32(stats.Loss/float64(stats.Rows)))
		n.Backward(t.Context())
		if step == 0 {
			gradients, err := n.Gradients()
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range gradients {
				check(t, "gradient."+g.Name, g.Data)
			}
		}
		lr := float32(0.02)
		if step >= 5 {
			lr = 0.002
		}
		n.Update(net.SGD{LR: lr, Momentum: 0.9, Decay: 0.0005})
	}
	check(t, "losses", losses)
	final, err := n.Snapshot(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range final {
		if w.Role == net.RoleMomentum {
			check(t, "momentum."+w.Name, w.Data)
		} else {
			check(t, "final."+w.Name, w.Data)
		}
	}
}

// part is half i of two.
func part(v []float32, i int) []float32 { return v[i*len(v)/2 : (i+1)*len(v)/2] }

// near compares with the greatest number of want as measure.
func near(got, want []float32, tolerance float64) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d numbers, want %d", len(got), len(want))
	}
	greatest := 0.
	for _, v := range want {
		greatest = max(greatest, math.Abs(float64(v)))
	}
	if greatest == 0 {
		return errors.New("the golden is all zeros, so it tests nothing")
	}
	worst, at := 0., 0
	for i := range want {
		d := math.Abs(float64(got[i]) - float64(want[i]))
		if !(d <= worst) { // a NaN too
			worst, at = d, i
		}
	}
	if !(worst <= tolerance*greatest) {
		return fmt.Errorf("number %d is %.9g, want %.9g: an error of %.3g times the greatest, more than %g",
			at, got[at], want[at], worst/greatest, tolerance)
	}
	return nil
}

// recorder keeps the logits of the last Forward, which a network hands to no one
// else.
type recorder struct {
	net.Engine
	logits []float32
}

func (r *recorder) SoftmaxLoss(prob, loss, rank, x, labels *net.Tensor, smoothing float32) {
	r.logits = make([]float32, x.Shape.Len())
	r.Download(r.logits, x)
	r.Engine.SoftmaxLoss(prob, loss, rank, x, labels, smoothing)
}
