package nettest

import (
	"strings"
	"testing"

	"sluice/net"
)

// forgetful is a layer whose Backward leaves the gradients of the parameters as they are.
type forgetful struct{ net.Layer }

func (l forgetful) Backward(e net.Engine, f *net.Frame) {
	without := *f
	without.DW = make([]*net.Tensor, len(f.DW))
	l.Layer.Backward(e, &without)
}

func TestTestLayer(t *testing.T) {
	square := func(x float32) float32 { return x * x }
	TestLayer(t, net.Pointwise(square, func(x float32) float32 { return 2 * x }))
	TestLayer(t, net.NewConv(4, 3))
	TestLayer(t, net.NewDense(6))

	calls := float32(0)
	for want, layer := range map[string]net.Layer{
		"of number 0 of the input is 3.05": net.Pointwise(square, func(x float32) float32 { return 2 }),
		"of weight is 0":                   forgetful{net.NewDense(6)},
		"different numbers":                net.Pointwise(func(float32) float32 { calls++; return calls }, square),
		"takes two inputs":                 net.AddLayer{},
	} {
		if err := checkLayer(layer); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
