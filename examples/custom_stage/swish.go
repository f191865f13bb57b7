package main

import (
	"math"

	"sluice/net"
)

func init() {
	net.RegisterLayer("swish", "x times the sigmoid of x. Go functions over floats on the host: right on every engine, slow on a card.", swish{},
		func(swish) (net.Layer, error) { return net.Pointwise(swish{}.at, swish{}.slope), nil })
}

// swish is a layer that computes each number by itself: a function and its derivative.
type swish struct{}

func (swish) at(x float32) float32 { return x * sigmoid(x) }

func (swish) slope(x float32) float32 {
	s := sigmoid(x)
	return s + x*s*(1-s)
}

func sigmoid(x float32) float32 { return float32(1 / (1 + math.Exp(-float64(x)))) }
