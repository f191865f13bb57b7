//go:build cuda && linux

package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"sluice/gpu/host"
	"sluice/gpu/host/simd"
	"sluice/net"
)

// everyLayer has every layer there is, with the options that change what is computed:
// groups, stride, padding, every activation, both poolings with their roundings, LRN in
// groups, dropout of maps and of rows, joins, sums, and a layer that does not learn.
func everyLayer(t *testing.T, batch int) *net.NetPlan {
	t.Helper()
	conv := func(out, size, stride, padding, groups int, a net.Activation) net.ConvLayer {
		l := net.NewConv(out, size)
		l.Stride, l.Padding, l.Groups, l.Activation = stride, padding, groups, a
		return l
	}
	frozen := conv(12, 1, 1, 0, 1, net.ReLU)
	frozen.LR, frozen.BiasLR = 0, 0
	slow := net.NewDense(24)
	slow.Activation, slow.LR, slow.BiasLR, slow.BiasDecay = net.Tanh, 0.5, 2, 1
	plan, err := net.Graph{
		Input: net.InputOptions{Mean: net.Mean{From: "auto"}, Scale: net.Triple{.02, .03, .02}, Channels: "bgr", Pad: net.Padding{1, 0, 2, 1}},
		Layers: []net.Node{
			{Name: "conv1", Layer: conv(12, 5, 2, 2, 1, net.Tanh)},
			{Name: "norm1", Layer: net.LRNLayer{Size: 5, K: 1, Alpha: 0.1, Beta: 0.75, Groups: 2}},
			{Name: "pool1", Layer: net.MaxPoolLayer{Size: 3, Stride: 2, Padding: 1, Ceil: true}},
			{Name: "frozen", Layer: frozen},
			{Name: "conv2", Layer: conv(18, 3, 1, 1, 3, net.None)},
			{Name: "relu2", Layer: net.ActivationLayer{Function: net.ReLU}},
			{Name: "side", From: []string{"frozen"}, Layer: conv(18, 1, 1, 0, 1, net.ReLU)},
			{Name: "sum", From: []string{"relu2", "side"}, Layer: net.AddLayer{}},
			{Name: "mean", From: []string{"sum"}, Layer: net.AvgPoolLayer{Size: 3, Stride: 1, Padding: 1, CountPadding: true}},
			{Name: "inside", From: []string{"sum"}, Layer: net.AvgPoolLayer{Size: 3, Stride: 1, Padding: 1}},
			{Name: "both", From: []string{"mean", "inside", "sum"}, Layer: net.ConcatLayer{}},
			{Name: "drop", Layer: net.DropoutLayer{Rate: 0.2}},
			{Name: "norm2", Layer: net.LRNLayer{Size: 3, K: 2, Alpha: 0.05, Beta: 0.6, Groups: 1}},
			{Name: "fc3", Layer: slow},
			{Name: "drop3", Layer: net.DropoutLayer{Rate: 0.5}},
			{Name: "fc4", Layer: net.NewDense(0)},
			{Name: "softmax", Layer: net.SoftmaxLayer{}},
		},
	}.Def().Plan(batch, 18, 17, 5)
	if err != nil {
		t.Fatal(err)
	}
	plan.Accumulate = true
	mean := &net.MeanImage{H: 22, W: 24, Pixels: make([]float32, 22*24*3)}
	for i := range mean.Pixels {
		mean.Pixels[i] = 90 + float32(i%61)
	}
	if err := plan.SetMean(mean); err != nil {
		t.Fatal(err)
	}
	return plan
}

// learned is all that can be seen of a run.
type learned struct {
	losses, norms []float64
	states        []net.LayerState
	weights       []net.NamedTensor
}

// learn trains by every option of the solver: gradients of two batches of which one is
// short are added up, clipped by their norm and one by one, and labels smoothed. It goes on
// from weights and momentum unless they are nil.
func learn(t *testing.T, e net.Engine, form net.MomentumForm, from []net.NamedTensor, first, end int) (l learned) {
	t.Helper()
	const batch, h, w = 6, 18, 17
	plan := everyLayer(t, batch)
	n, err := net.New(t.Context(), e, plan, 3, true)
	if err != nil {
		t.Fatal(err)
	}
	n.SmoothLabels(0.1)
	in, err := n.NewInput()
	if err != nil {
		t.Fatal(err)
	}
	if from != nil {
		if err := n.Load(from); err != nil {
			t.Fatal(err)
		}
	}
	for step := first; step < end; step++ {
		r := rand.New(rand.NewPCG(8, uint64(step)))
		rows := batch - step%2
		b := net.ImageBatch{N: rows, Pixels: make([]byte, rows*h*w*3), Labels: make([]int32, rows), Flip: make([]bool, rows)}
		for k := range rows {
			b.Labels[k], b.Flip[k] = int32(r.IntN(6)-1), r.IntN(2) == 0 // -1 is none
			b.Origin = append(b.Origin, int32(r.IntN(8)), int32(r.IntN(5)))
			b.Shift = append(b.Shift, float32(r.NormFloat64()), 3, -float32(r.NormFloat64()))
		}
		for k := range b.Pixels {
			b.Pixels[k] = byte(35*int(b.Labels[k/(h*w*3)]+1) + r.IntN(80))
		}
		if err := in.Load(b); err != nil {
			t.Fatal(err)
		}
		if err := n.Forward(t.Context(), in, step, true); err != nil {
			t.Fatal(err)
		}
		n.Peaks()
		n.Backward(t.Context())
		stats, err := n.Stats()
		if err != nil {
			t.Fatal(err)
		}
		l.losses = append(l.losses, stats.Loss)
		n.Accumulate()
		if step%2 == 0 {
			continue
		}
		n.Average()
		norm, bad, err := n.GradientNorm()
		if err != nil || bad != "" {
			t.Fatal(bad, err)
		}
		l.norms = append(l.norms, norm)
		n.ScaleGradients(float32(min(1, 0.4/norm)), 0.05)
		n.Update(net.SGD{LR: 0.02, Momentum: 0.9, Decay: 1e-2, Form: form})
	}
	if l.states, err = n.Layers(); err != nil {
		t.Fatal(err)
	}
	if l.weights, err = n.Snapshot(nil, true); err != nil {
		t.Fatal(err)
	}
	return l
}

// Every layer and every option of the solver gives what it does on the CPU.
func TestEveryOption(t *testing.T) {
	level, err := simd.Choose("")
	if err != nil {
		t.Fatal(err)
	}
	near := func(t *testing.T, what string, got, want, allowed float64) {
		t.Helper()
		if d := math.Abs(got - want); !(d <= allowed*(1+math.Abs(want))) && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Errorf("%s is %v, on the CPU %v", what, got, want)
		}
	}
	for _, form := range []net.MomentumForm{net.PaperMomentum, net.TorchMomentum, net.NesterovMomentum} {
		t.Run(form.String(), func(t *testing.T) {
			const steps = 8
			cpu := host.New(0, level)
			defer cpu.Close()
			want, got := learn(t, cpu, form, nil, 0, steps), learn(t, open(t), form, nil, 0, steps)
			for i := range want.losses {
				near(t, fmt.Sprint("the loss of step ", i), got.losses[i], want.losses[i], 1e-4)
			}
			for i := range want.norms {
				near(t, fmt.Sprint("the norm of update ", i), got.norms[i], want.norms[i], 1e-3)
			}
			for i, s := range want.states {
				if got.states[i].Layer != s.Layer {
					t.Fatalf("layer %d is %s, on the CPU %s", i, got.states[i].Layer, s.Layer)
				}
				near(t, s.Layer+": what is dead", got.states[i].Dead, s.Dead, 1e-9)
				near(t, s.Layer+": the update", got.states[i].Update, s.Update, 1e-3)
				near(t, s.Layer+": the gradient", got.states[i].Gradient, s.Gradient, 1e-3)
			}
			for i, x := range want.weights {
				var off, size float64
				for k, v := range x.Data {
					d := float64(got.weights[i].Data[k]) - float64(v)
					off, size = off+d*d, size+float64(v)*float64(v)
				}
				if x.Name != got.weights[i].Name || x.Role != got.weights[i].Role || !(math.Sqrt(off) <= 2e-3*math.Sqrt(size)+1e-9) {
					t.Errorf("%s (%s) is off by %.2g of its size", x.Name, x.Role, math.Sqrt(off/size))
				}
			}
		})
	}
}

// A run that goes on from its weights and momentum on another engine ends with the bits of
// one that was not interrupted, by tensor cores, too.
func TestResume(t *testing.T) {
	for _, tf32 := range []bool{false, true} {
		newOne := func() *Engine {
			e := open(t)
			if tf32 {
				e.UseTF32()
			}
			return e
		}
		whole := learn(t, newOne(), net.NesterovMomentum, nil, 0, 8)
		half := learn(t, newOne(), net.NesterovMomentum, nil, 0, 4)
		rest := learn(t, newOne(), net.NesterovMomentum, half.weights, 4, 8)
		if got := slices.Concat(half.losses, rest.losses); !slices.Equal(got, whole.losses) {
			t.Errorf("tf32 %v: the losses are %v, those of a whole run %v", tf32, got, whole.losses)
		}
		for i, x := range whole.weights {
			if !slices.Equal(rest.weights[i].Data, x.Data) {
				t.Errorf("tf32 %v: %s (%s) differs from a whole run's", tf32, x.Name, x.Role)
			}
		}
	}
}
