package main

import "sluice/net"

func init() {
	net.DefineLayer("double", "Adds its input to itself: a layer of existing operations, as fast as they are on every engine.", double{})
}

// double is a layer made of the engine's operations: y = x + x.
type double struct{}

func (double) Plan(in []net.Shape) (net.Plan, error) { return net.PlanLike(in) }

func (double) Forward(e net.Engine, f *net.Frame) { e.Add(f.Y, f.X[0], f.X[0]) }

func (double) Backward(e net.Engine, f *net.Frame) {
	if f.DX[0] != nil {
		e.Add(f.DX[0], f.DY, f.DY)
	}
}
