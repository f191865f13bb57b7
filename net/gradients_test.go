package net_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"sluice/net"
	"sluice/net/nettest"
)

// trainable puts a graph on the reference engine, planned as edit says.
func trainable(t testing.TB, layers []net.Node, n, side, classes int, edit func(*net.NetPlan)) (*nettest.Reference, *net.Network, net.Input) {
	t.Helper()
	plan, err := net.Graph{Input: unit, Layers: layers}.Def().Plan(n, side, side, classes)
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(plan)
	}
	e := nettest.NewReference()
	network, err := net.New(t.Context(), e, plan, 3, true)
	if err != nil {
		t.Fatal(err)
	}
	in, err := network.NewInput()
	if err != nil {
		t.Fatal(err)
	}
	return e, network, in
}

// backward computes gradients of a batch.
func backward(t testing.TB, n *net.Network, in net.Input, b net.ImageBatch) {
	t.Helper()
	if err := in.Load(b); err != nil {
		t.Fatal(err)
	}
	if err := n.Forward(t.Context(), in, 0, true); err != nil {
		t.Fatal(err)
	}
	n.Backward(t.Context())
}

func gradientsOf(t testing.TB, n *net.Network) []net.NamedTensor {
	t.Helper()
	g, err := n.Gradients()
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// plainNet has no dropout, whose elements differ with the batch.
func plainNet() []net.Node {
	return []net.Node{
		{Name: "conv1", Layer: conv(4, 3, nil)}, {Layer: net.MaxPoolLayer{Size: 2, Stride: 2}},
		{Name: "conv2", Layer: conv(6, 2, nil)},
		{Name: "fc3", Layer: dense(7, net.ReLU)}, {Name: "fc4", Layer: net.NewDense(0)}, {Layer: net.SoftmaxLayer{}},
	}
}

// The mean of the gradients of three batches is the gradient of one batch of all
// their images, and nothing is left of the batches before them.
func TestAccumulatedGradientsAreThoseOfALargeBatch(t *testing.T) {
	const side, rows, parts = 8, 2, 3
	_, small, in := trainable(t, plainNet(), rows, side, 4, func(p *net.NetPlan) { p.Accumulate = true })
	_, large, all := trainable(t, plainNet(), rows*parts, side, 4, nil)
	var whole net.ImageBatch
	backward(t, small, in, batchOf(rows, side, side, 4, 99))
	small.Accumulate()
	small.Average()
	for i := range parts {
		b := batchOf(rows, side, side, 4, uint64(i))
		whole.N += b.N
		whole.Pixels, whole.Shift, whole.Labels = append(whole.Pixels, b.Pixels...), append(whole.Shift, b.Shift...), append(whole.Labels, b.Labels...)
		backward(t, small, in, b)
		small.Accumulate()
	}
	small.Average()
	backward(t, large, all, whole)
	got, want := gradientsOf(t, small), gradientsOf(t, large)
	for i, w := range want {
		for k, v := range w.Data {
			if d := math.Abs(float64(got[i].Data[k] - v)); d > 1e-7+1e-6*math.Abs(float64(v)) {
				t.Errorf("%s[%d] is %g, want %g", w.Name, k, got[i].Data[k], v)
			}
		}
	}
	plain, err := net.Graph{Input: unit, Layers: plainNet()}.Def().Plan(rows, side, side, 4)
	if err != nil {
		t.Fatal(err)
	}
	before := len(plain.Specs(true))
	plain.Accumulate = true
	if after := len(plain.Specs(true)); after != before+8 {
		t.Errorf("%d tensors without adding up and %d with it, want one more for each of 8 parameters", before, after)
	}
	defer func() {
		if recover() == nil {
			t.Error("a network without room added up gradients")
		}
	}()
	large.Accumulate()
}

// The norm of the gradients is that of all together; scaling and holding does so.
func TestGradientNorm(t *testing.T) {
	_, n, in := trainable(t, plainNet(), 3, 8, 4, nil)
	backward(t, n, in, batchOf(3, 8, 8, 4, 1))
	want := 0.
	for _, g := range gradientsOf(t, n) {
		for _, v := range g.Data {
			want += float64(v) * float64(v)
		}
	}
	norm, bad, err := n.GradientNorm()
	if err != nil || bad != "" || math.Abs(norm-math.Sqrt(want)) > 1e-6*norm || norm == 0 {
		t.Errorf("norm %g of %q (%v), want %g", norm, bad, err, math.Sqrt(want))
	}
	n.ScaleGradients(float32(0.5/norm), 0)
	if half, _, err := n.GradientNorm(); err != nil || math.Abs(half-0.5) > 1e-6 {
		t.Errorf("scaled to 0.5 it is %g (%v)", half, err)
	}
	n.ScaleGradients(1, 0.01)
	for _, g := range gradientsOf(t, n) {
		for _, v := range g.Data {
			if math.Abs(float64(v)) > 0.01 {
				t.Fatalf("%s has a %g", g.Name, v)
			}
		}
	}
}

// A weight that is no number shows in the gradients of the layers that it reaches.
func TestGradientNormNamesWhatIsNotFinite(t *testing.T) {
	e, n, in := trainable(t, plainNet(), 3, 8, 4, nil)
	backward(t, n, in, batchOf(3, 8, 8, 4, 1))
	nettest.Values(e.Find("fc3.weight.gradient"))[5] = math.Inf(1)
	nettest.Values(e.Find("fc4.bias.gradient"))[0] = math.NaN()
	if norm, bad, err := n.GradientNorm(); err != nil || bad != "fc3.weight" || norm-norm == 0 {
		t.Errorf("norm %g of %q (%v)", norm, bad, err)
	}
}

// freeze makes layers learn nothing.
func freeze(names ...string) func(*net.NetPlan) {
	return func(p *net.NetPlan) {
		for i := range p.Layers {
			for j := range p.Layers[i].Plan.Params {
				if slices.Contains(names, p.Layers[i].Name) {
					p.Layers[i].Plan.Params[j].LR = 0
				}
			}
		}
	}
}

// What is frozen has no gradient and no momentum, keeps its weights, and changes
// no gradient of the others. Below the lowest layer that learns, nothing goes
// backward.
func TestFrozenLayers(t *testing.T) {
	b := batchOf(3, 8, 8, 4, 1)
	_, whole, all := trainable(t, plainNet(), 3, 8, 4, nil)
	backward(t, whole, all, b)
	want := map[string][]float32{}
	for _, g := range gradientsOf(t, whole) {
		want[g.Name] = g.Data
	}
	for _, c := range []struct {
		frozen   []string
		backward string // layers that go backward
	}{
		{[]string{"conv1"}, "fc4 fc3 conv2"},
		{[]string{"conv1", "conv2"}, "fc4 fc3"},
		{[]string{"conv2"}, "fc4 fc3 conv2 conv1"}, // in the middle: its input's gradient alone
		{[]string{"conv1", "conv2", "fc3"}, "fc4"},
		{[]string{"fc4"}, "fc4 fc3 conv2 conv1"},
	} {
		t.Run(strings.Join(c.frozen, "+"), func(t *testing.T) {
			plan, err := net.Graph{Input: unit, Layers: plainNet()}.Def().Plan(3, 8, 8, 4)
			if err != nil {
				t.Fatal(err)
			}
			freeze(c.frozen...)(plan)
			e := &backwards{Reference: nettest.NewReference()}
			n, err := net.New(t.Context(), e, plan, 3, true)
			if err != nil {
				t.Fatal(err)
			}
			in, err := n.NewInput()
			if err != nil {
				t.Fatal(err)
			}
			before, err := n.Snapshot(nil, false)
			if err != nil {
				t.Fatal(err)
			}
			backward(t, n, in, b)
			if got := strings.Join(e.seen, " "); got != c.backward {
				t.Errorf("backward went through %q, want %q", got, c.backward)
			}
			gradients := gradientsOf(t, n)
			for _, g := range gradients {
				if slices.Contains(c.frozen, strings.Split(g.Name, ".")[0]) {
					t.Errorf("frozen %s has a gradient", g.Name)
				}
				if !slices.Equal(g.Data, want[g.Name]) {
					t.Errorf("the gradient of %s is another than with all layers learning", g.Name)
				}
			}
			if len(gradients) != len(want)-2*len(c.frozen) {
				t.Errorf("%d gradients", len(gradients))
			}
			n.Update(net.SGD{LR: 0.1, Momentum: 0.9, Decay: 0.01})
			after, err := n.Snapshot(nil, true)
			if err != nil {
				t.Fatal(err)
			}
			if len(after) != 8+len(gradients) {
				t.Errorf("a snapshot of %d tensors, want 8 weights and %d momenta", len(after), len(gradients))
			}
			for i, w := range before {
				frozen := slices.Contains(c.frozen, strings.Split(w.Name, ".")[0])
				if same := slices.Equal(w.Data, after[i].Data); same != frozen {
					t.Errorf("frozen %v: %s unchanged %v", frozen, w.Name, same)
				}
			}
			// What was saved is read again, the momentum too.
			if err := n.Load(after); err != nil {
				t.Error(err)
			}
			snapshot, err := n.NewSnapshot(true)
			if err != nil {
				t.Fatal(err)
			}
			again, err := snapshot.Take(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for i, w := range after {
				if again[i].Name != w.Name || again[i].Role != w.Role || !slices.Equal(again[i].Data, w.Data) {
					t.Errorf("%s (%s) was read as %s (%s)", w.Name, w.Role, again[i].Name, again[i].Role)
				}
			}
			states, err := n.Layers()
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range states {
				if slices.Contains(c.frozen, s.Layer) && !math.IsNaN(s.Update) {
					t.Errorf("frozen %s has an update of %g", s.Layer, s.Update)
				}
			}
		})
	}
	plan, err := net.Graph{Input: unit, Layers: plainNet()}.Def().Plan(3, 8, 8, 4)
	if err != nil {
		t.Fatal(err)
	}
	freeze("conv1", "conv2", "fc3", "fc4")(plan)
	if _, err := net.New(t.Context(), nettest.NewReference(), plan, 1, true); err == nil || !strings.Contains(err.Error(), "nothing to learn") {
		t.Errorf("a network that is all frozen: %v", err)
	}
}

// backwards notes the layers that compute gradients.
type backwards struct {
	*nettest.Reference
	seen []string
}

func (b *backwards) ConvGrad(dx, dw, db, dy, y, x, w *net.Tensor, g net.Conv) {
	b.seen = append(b.seen, y.Name)
	b.Reference.ConvGrad(dx, dw, db, dy, y, x, w, g)
}

func (b *backwards) DenseGrad(dx, dw, db, dy, y, x, w *net.Tensor, act net.Activation) {
	b.seen = append(b.seen, y.Name)
	b.Reference.DenseGrad(dx, dw, db, dy, y, x, w, act)
}

// The state of layers is what was made of them: two of four channels and three of
// seven units that no image moves, and an update of known size.
func TestLayerState(t *testing.T) {
	for _, form := range []net.MomentumForm{net.PaperMomentum, net.TorchMomentum, net.NesterovMomentum} {
		t.Run(fmt.Sprint(form), func(t *testing.T) { layerState(t, form) })
	}
}

func layerState(t *testing.T, form net.MomentumForm) {
	e, n, in := trainable(t, plainNet(), 3, 8, 4, nil)
	for _, c := range []int{1, 3} {
		nettest.Values(e.Find("conv1.bias"))[c] = -1e4
	}
	for c, bias := range []float64{-1e4, 50, -1e4, 50, 50, 50, -1e4} {
		nettest.Values(e.Find("fc3.bias"))[c] = bias
	}
	if err := in.Load(batchOf(3, 8, 8, 4, 1)); err != nil {
		t.Fatal(err)
	}
	if err := n.Forward(t.Context(), in, 0, true); err != nil {
		t.Fatal(err)
	}
	n.Peaks()
	n.Backward(t.Context())
	if _, _, err := n.GradientNorm(); err != nil {
		t.Fatal(err)
	}
	before, err := n.Snapshot(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	gradients := gradientsOf(t, n)
	n.Update(net.SGD{LR: 0.1, Momentum: 0.9, Form: form})
	states, err := n.Layers()
	if err != nil {
		t.Fatal(err)
	}
	after, err := n.Snapshot(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range states {
		got = append(got, fmt.Sprintf("%s %.3f", s.Layer, s.Dead))
		var moved, size, gradient float64
		for i, w := range after {
			if !strings.HasPrefix(w.Name, s.Layer+".") {
				continue
			}
			for k, v := range w.Data {
				d := float64(v - before[i].Data[k])
				moved, size = moved+d*d, size+float64(v)*float64(v)
				gradient += float64(gradients[i].Data[k]) * float64(gradients[i].Data[k])
			}
		}
		if want := math.Sqrt(moved / size); math.Abs(s.Update-want) > 1e-3*want || want == 0 {
			t.Errorf("%s: update %g of the weights, want %g", s.Layer, s.Update, want)
		}
		if want := math.Sqrt(gradient); math.Abs(s.Gradient-want) > 1e-5*want {
			t.Errorf("%s: gradient %g, want %g", s.Layer, s.Gradient, want)
		}
	}
	if want := "conv1 0.500|conv2 0.000|fc3 0.429|fc4 NaN"; strings.Join(got, "|") != want {
		t.Errorf("dead: %s, want %s", strings.Join(got, "|"), want)
	}
}

// Updates by smoothed labels, accumulated and clipped, are PyTorch's.
func TestSolverGolden(t *testing.T) {
	text, err := os.ReadFile("testdata/solver.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Weight, Bias, Losses, Norms []float64
		Images, Labels              []int
		FinalWeight                 []float64 `json:"final_weight"`
		FinalBias                   []float64 `json:"final_bias"`
	}
	if err := json.Unmarshal(text, &golden); err != nil {
		t.Fatal(err)
	}
	const side, rows, classes = 4, 3, 5
	e, n, in := trainable(t, []net.Node{{Name: "fc", Layer: net.NewDense(0)}, {Layer: net.SoftmaxLayer{}}}, rows, side, classes,
		func(p *net.NetPlan) { p.Accumulate = true })
	copy(nettest.Values(e.Find("fc.weight")), golden.Weight)
	copy(nettest.Values(e.Find("fc.bias")), golden.Bias)
	n.SmoothLabels(0.1)
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 2e-7*(1+math.Abs(want)) {
			t.Errorf("%s is %.9g, want %.9g", what, got, want)
		}
	}
	at, images := 0, golden.Images
	for update, size := range []int{2, 2, 1} {
		for range size {
			b := net.ImageBatch{N: rows}
			for _, v := range images[:rows*side*side*3] {
				b.Pixels = append(b.Pixels, byte(v))
			}
			images = images[rows*side*side*3:]
			for _, l := range golden.Labels[at*rows:][:rows] {
				b.Labels = append(b.Labels, int32(l))
			}
			backward(t, n, in, b)
			s, err := n.Stats()
			if err != nil {
				t.Fatal(err)
			}
			near(fmt.Sprintf("loss %d", at), s.Loss/rows, golden.Losses[at])
			n.Accumulate()
			at++
		}
		n.Average()
		norm, _, err := n.GradientNorm()
		if err != nil {
			t.Fatal(err)
		}
		near(fmt.Sprintf("norm %d", update), norm, golden.Norms[update])
		const clip, limit = 1.5, 0.25
		n.ScaleGradients(float32(min(1, clip/norm)), limit)
		n.Update(net.SGD{LR: 0.05, Momentum: 0.9, Decay: 0.01})
	}
	for i, v := range nettest.Values(e.Find("fc.weight")) {
		near(fmt.Sprintf("weight %d", i), v, golden.FinalWeight[i])
	}
	for i, v := range nettest.Values(e.Find("fc.bias")) {
		near(fmt.Sprintf("bias %d", i), v, golden.FinalBias[i])
	}
}
