package net_test

import (
	"context"
	"testing"

	"sluice/net"
	"sluice/net/nettest"
)

// idle is an engine whose ops do nothing, so that what is left is the network.
type idle struct{ *nettest.Reference }

func (idle) Begin(context.Context)                                       {}
func (idle) Download([]float32, *net.Tensor)                             {}
func (idle) Conv(_, _, _, _ *net.Tensor, _ net.Conv)                     {}
func (idle) ConvGrad(_, _, _, _, _, _, _ *net.Tensor, _ net.Conv)        {}
func (idle) Dense(_, _, _, _ *net.Tensor, _ net.Activation)              {}
func (idle) DenseGrad(_, _, _, _, _, _, _ *net.Tensor, _ net.Activation) {}
func (idle) MaxPool(_, _, _ *net.Tensor, _ net.Pool)                     {}
func (idle) MaxPoolGrad(_, _, _ *net.Tensor, _ net.Pool)                 {}
func (idle) LRN(_, _ *net.Tensor, _ net.LRN)                             {}
func (idle) LRNGrad(_, _, _ *net.Tensor, _ net.LRN)                      {}
func (idle) Dropout(_, _ *net.Tensor, _ float32, _ net.RandomKey)        {}
func (idle) Copy(_, _ *net.Tensor)                                       {}
func (idle) Add(_, _, _ *net.Tensor)                                     {}
func (idle) SoftmaxLoss(_, _, _, _, _ *net.Tensor, _ float32)            {}
func (idle) SoftmaxLossGrad(_, _, _ *net.Tensor, _ float32)              {}
func (idle) Norm(*net.Tensor, int, *net.Tensor)                          {}
func (idle) Scale(_, _ *net.Tensor, _, _ float32)                        {}
func (idle) Peaks(*net.Tensor, int, *net.Tensor)                         {}
func (idle) SGD(_, _, _ *net.Tensor, _ net.SGD)                          {}

// A step allocates nothing after the first.
func TestStepAllocatesNothing(t *testing.T) {
	plan, err := small().Def().Plan(4, 12, 12, 3)
	if err != nil {
		t.Fatal(err)
	}
	n, err := net.New(t.Context(), idle{nettest.NewReference()}, plan, 1, true)
	if err != nil {
		t.Fatal(err)
	}
	in, err := n.NewInput()
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	var snapshot []net.NamedTensor
	prob := make([]float32, 0, 100)
	allocs := testing.AllocsPerRun(10, func() {
		if err := n.Forward(ctx, in, 1, true); err != nil {
			t.Fatal(err)
		}
		n.Backward(ctx)
		n.Update(net.SGD{LR: 0.1})
		if _, err := n.Stats(); err != nil {
			t.Fatal(err)
		}
		n.Probabilities(prob, 4)
	})
	if allocs != 0 {
		t.Errorf("a step allocates %g times", allocs)
	}
	if snapshot, err = n.Snapshot(snapshot, true); err != nil || len(snapshot) != 16 {
		t.Errorf("%d tensors, %v", len(snapshot), err)
	}
}
