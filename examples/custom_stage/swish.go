package main

import (
	"fmt"
	"math"

	"sluice/net"
)

func init() {
	net.RegisterLayer("swish", "x times the sigmoid of x. Go functions over floats on the host: right on every engine, slow on a card.", swish{},
		func(s swish) (net.Layer, error) { return s, nil })
}

// swish is a layer of Go functions over floats in NCHW.
type swish struct{}

func (swish) Plan(in []net.Shape) (net.Plan, error) {
	if len(in) != 1 {
		return net.Plan{}, fmt.Errorf("takes one input, and has %d", len(in))
	}
	return net.Plan{Out: in[0], KeepX: true}, nil // Backward reads X
}

func (swish) Forward(e net.Engine, f *net.Frame) {
	e.Host([]*net.Tensor{f.Y}, f.X, func(outs, ins [][]float32) {
		for i, x := range ins[0] {
			outs[0][i] = x * sigmoid(x)
		}
	})
}

func (swish) Backward(e net.Engine, f *net.Frame) {
	if f.DX[0] == nil {
		return
	}
	e.Host(f.DX, []*net.Tensor{f.DY, f.X[0]}, func(outs, ins [][]float32) {
		for i, x := range ins[1] {
			s := sigmoid(x)
			outs[0][i] = ins[0][i] * (s + x*s*(1-s))
		}
	})
}

func sigmoid(x float32) float32 { return float32(1 / (1 + math.Exp(-float64(x)))) }
