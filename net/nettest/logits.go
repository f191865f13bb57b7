package nettest

import (
	"testing"

	"sluice/net"
)

// Picture is an image of h x w that needs no file: H x W x 3 levels, red, green,
// blue, different everywhere. The scripts that make goldens draw the same.
func Picture(h, w int) []byte {
	pix := make([]byte, 0, h*w*3)
	for y := range h {
		for x := range w {
			for c := range 3 {
				pix = append(pix, byte(7*y+13*x+71*c+y*x%251))
			}
		}
	}
	return pix
}

// Logits runs an image through a network with these weights on e, and gives what
// the softmax reads.
func Logits(t testing.TB, e net.Engine, plan *net.NetPlan, tensors []net.NamedTensor, pixels []byte) []float32 {
	t.Helper()
	logits, _ := plan.Logits()
	return Outputs(t, e, plan, tensors, pixels, logits)[0]
}

// Outputs runs an image through a network with these weights on e, and gives the
// outputs of layers.
func Outputs(t testing.TB, e net.Engine, plan *net.NetPlan, tensors []net.NamedTensor, pixels []byte, layers ...string) [][]float32 {
	t.Helper()
	part, err := plan.Until(layers...)
	if err != nil {
		t.Fatal(err)
	}
	n, err := net.New(t.Context(), e, part, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Load(tensors); err != nil {
		t.Fatal(err)
	}
	in, err := n.NewInput()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := in.Load(net.ImageBatch{N: 1, Pixels: pixels, Labels: []int32{-1}}); err != nil {
		t.Fatal(err)
	}
	if err := n.Forward(t.Context(), in, 0, false); err != nil {
		t.Fatal(err)
	}
	out := make([][]float32, len(layers))
	for i, layer := range layers {
		if out[i], err = n.Activation(nil, layer, 1); err != nil {
			t.Fatal(err)
		}
	}
	return out
}
