package main

import (
	"fmt"

	"sluice/net"
)

func init() {
	net.RegisterLayer("double", "Adds its input to itself: a layer of existing operations, as fast as they are on every engine.", double{},
		func(d double) (net.Layer, error) { return d, nil })
}

// double is a layer made of the engine's operations: y = x + x.
type double struct{}

func (double) Plan(in []net.Shape) (net.Plan, error) {
	if len(in) != 1 {
		return net.Plan{}, fmt.Errorf("takes one input, and has %d", len(in))
	}
	return net.Plan{Out: in[0]}, nil
}

func (double) Forward(e net.Engine, f *net.Frame) { e.Add(f.Y, f.X[0], f.X[0]) }

func (double) Backward(e net.Engine, f *net.Frame) {
	if f.DX[0] != nil {
		e.Add(f.DX[0], f.DY, f.DY)
	}
}
