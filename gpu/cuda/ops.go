//go:build cuda && linux

package cuda

import (
	"fmt"

	"gorgonia.org/cu"

	"sluice/net"
)

// widestMaxPool bounds a window whose places are kept in 16 bits.
const widestMaxPool = 256

// MaxPool takes the greatest element of each window.
func (e *Engine) MaxPool(y, arg, x *net.Tensor, g net.Pool) {
	const op = "MaxPool"
	if !e.ready(op, y, x) || !e.fits(op, net.PoolFits(y, x, g, widestMaxPool)) ||
		arg != nil && (!e.ready(op, arg) || !e.fits(op, arg.Expect("arg", net.Index, y.Shape))) {
		return
	}
	var places cu.DevicePtr
	if arg != nil {
		places = at(arg)
	}
	l := elements("max_pool", op, y.Name, y.Shape.Len())
	l.pointer(at(y)).pointer(places).pointer(at(x))
	e.do(*windows(&l, x.Shape, y.Shape, g))
}

// MaxPoolGrad adds each dy to the place that arg names.
func (e *Engine) MaxPoolGrad(dx, dy, arg *net.Tensor, g net.Pool) {
	const op = "MaxPoolGrad"
	if dx == nil || !e.ready(op, dx, dy, arg) || !e.fits(op, net.PoolFits(dy, dx, g, widestMaxPool)) ||
		!e.fits(op, arg.Expect("arg", net.Index, dy.Shape)) {
		return
	}
	l := elements("max_pool_grad", op, dx.Name, dx.Shape.Len())
	l.pointer(at(dx)).pointer(at(dy)).pointer(at(arg))
	e.do(*windows(&l, dx.Shape, dy.Shape, g))
}

// widestAvgPool is any window.
const widestAvgPool = 1 << 30

// AvgPool takes the mean of each window.
func (e *Engine) AvgPool(y, x *net.Tensor, g net.Pool) {
	if e.ready("AvgPool", y, x) && e.fits("AvgPool", net.PoolFits(y, x, g, widestAvgPool)) {
		l := elements("avg_pool", "AvgPool", y.Name, y.Shape.Len())
		l.pointer(at(y)).pointer(at(x))
		e.do(*windows(&l, x.Shape, y.Shape, g).ints(flag(g.CountPad)))
	}
}

// AvgPoolGrad gives each pixel its share of the dy of the windows that hold it.
func (e *Engine) AvgPoolGrad(dx, dy *net.Tensor, g net.Pool) {
	if dx == nil || !e.ready("AvgPoolGrad", dx, dy) || !e.fits("AvgPoolGrad", net.PoolFits(dy, dx, g, widestAvgPool)) {
		return
	}
	l := elements("avg_pool_grad", "AvgPoolGrad", dx.Name, dx.Shape.Len())
	l.pointer(at(dx)).pointer(at(dy))
	e.do(*windows(&l, dx.Shape, dy.Shape, g).ints(flag(g.CountPad)))
}

// windows are the numbers of a pooling from x to y.
func windows(l *launch, x, y net.Shape, g net.Pool) *launch {
	return l.ints(x.N, x.H, x.W, x.C, y.H, y.W, g.Size, g.Stride, g.Pad)
}

// LRN normalises across channels.
func (e *Engine) LRN(y, x *net.Tensor, g net.LRN) {
	if e.ready("LRN", y, x) && e.fits("LRN", net.LRNFits(g, x, y)) {
		e.lrn(launch{kernel: "lrn", op: "LRN", tensor: y.Name}, at(y), 0, x, g)
	}
}

// LRNGrad computes the gradient of LRN.
func (e *Engine) LRNGrad(dx, dy, x *net.Tensor, g net.LRN) {
	if dx != nil && e.ready("LRNGrad", dx, dy, x) && e.fits("LRNGrad", net.LRNFits(g, x, dx, dy)) {
		e.lrn(launch{kernel: "lrn_grad", op: "LRNGrad", tensor: dx.Name}, at(dx), at(dy), x, g)
	}
}

func (e *Engine) lrn(l launch, to, dy cu.DevicePtr, x *net.Tensor, g net.LRN) {
	const block, reach = 1024, 2048 // those of lrn.cu
	group := x.Shape.C / max(g.Groups, 1)
	// Windows wider than the channels are as wide as matters.
	before, after := min(g.Size/2, group-1), min(g.Size-1-g.Size/2, group-1)
	if before+after > reach {
		e.fail("%s: a window of %d channels of %q is more than %d, which is all that the card's kernel takes", l.op, before+1+after, x.Name, reach+1)
		return
	}
	l.threads, l.grid = 256, [3]int{ceil(x.Shape.Len(), block), 1, 1}
	l.pointer(to)
	if dy != 0 {
		l.pointer(dy)
	}
	l.pointer(at(x)).ints(x.Shape.Len(), x.Shape.C, group, before, after).floats(g.K, g.Alpha, g.Beta)
	e.do(l)
}

// Activate is y = act(x).
func (e *Engine) Activate(y, x *net.Tensor, act net.Activation) {
	if e.ready("Activate", y, x) && e.fits("Activate", net.MapsFit(x, y)) && e.activation("Activate", act) {
		e.activate("Activate", y, x, act)
	}
}

func (e *Engine) activate(op string, y, x *net.Tensor, act net.Activation) {
	l := elements("activate", op, y.Name, y.Shape.Len())
	l.pointer(at(y)).pointer(at(x)).ints(y.Shape.Len(), int(act))
	e.do(l)
}

// ActivateGrad is dx = dy times the slope of the activation that gave y.
func (e *Engine) ActivateGrad(dx, dy, y *net.Tensor, act net.Activation) {
	if e.ready("ActivateGrad", dx, dy, y) && e.fits("ActivateGrad", net.MapsFit(y, dy, dx)) && e.activation("ActivateGrad", act) {
		l := elements("activate_grad", "ActivateGrad", dx.Name, dx.Shape.Len())
		l.pointer(at(dx)).pointer(at(dy)).pointer(at(y)).ints(dx.Shape.Len(), int(act))
		e.do(l)
	}
}

func (e *Engine) activation(op string, act net.Activation) bool {
	if act < net.None || act > net.Tanh {
		return e.fits(op, fmt.Errorf("there is no activation %d", int(act)))
	}
	return true
}

// Dropout is y = x * mask / keep.
func (e *Engine) Dropout(y, x *net.Tensor, keep float32, key net.RandomKey) {
	if !e.ready("Dropout", y, x) || !e.fits("Dropout", net.MapsFit(x, y)) {
		return
	}
	if !(keep > 0 && keep <= 1) {
		e.fail("Dropout: a fraction of %v cannot be kept of %q", keep, x.Name)
		return
	}
	if keep == 1 {
		e.Copy(y, x)
		return
	}
	s, count := x.Shape, x.Shape.Len()
	l := elements("dropout_flat", "Dropout", y.Name, ceil(count, 4))
	l.pointer(at(y)).pointer(at(x)).ints(count)
	if s.H*s.W > 1 {
		l = elements("dropout", "Dropout", y.Name, count)
		l.pointer(at(y)).pointer(at(x)).ints(count, s.C, s.H*s.W)
	}
	l.words(uint32(net.KeepLimit(keep))).floats(1/keep).
		words(key.Layer, uint32(key.Step), uint32(key.Step>>32), uint32(key.Seed), uint32(key.Seed>>32))
	e.do(l)
}

// Copy is y = x.
func (e *Engine) Copy(y, x *net.Tensor) {
	if !e.ready("Copy", y, x) || !e.fits("Copy", y.Expect("y", x.Kind, x.Shape)) {
		return
	}
	if y.FilterGroups() != x.FilterGroups() {
		e.fail("Copy: %q has %d groups, %q %d", x.Name, x.FilterGroups(), y.Name, y.FilterGroups())
		return
	}
	e.channels("Copy", y, x, exact(x.Spec)/4, 1, 0, 1, 0, 1)
}

// channels copies words of 32 bits.
func (e *Engine) channels(op string, y, x *net.Tensor, pixels, n, to, yC, from, xC int) {
	l := elements("copy_channels", op, y.Name, pixels*n)
	l.pointer(at(y)).pointer(at(x)).ints(pixels, n, yC, to, xC, from)
	e.do(l)
}

// CopyChannels is y's channels from to on = x's channels from from on, n of them.
func (e *Engine) CopyChannels(y, x *net.Tensor, to, from, n int) {
	if e.ready("CopyChannels", y, x) && e.fits("CopyChannels", net.ChannelsFit(y, x, to, from, n)) {
		e.channels("CopyChannels", y, x, x.Shape.N*x.Shape.H*x.Shape.W, n, to, y.Shape.C, from, x.Shape.C)
	}
}

// Add is y = a + b, of maps or parameters.
func (e *Engine) Add(y, a, b *net.Tensor) {
	if !e.ready("Add", y, a, b) {
		return
	}
	var err error
	if a.Kind == net.Map {
		err = net.MapsFit(a, b, y)
	} else {
		err = net.ParametersFit(a, b, y)
	}
	if e.fits("Add", err) {
		l := elements("add", "Add", y.Name, y.Shape.Len())
		l.pointer(at(y)).pointer(at(a)).pointer(at(b)).ints(y.Shape.Len())
		e.do(l)
	}
}

// Scale is y = x * by within +-limit.
func (e *Engine) Scale(y, x *net.Tensor, by, limit float32) {
	if !e.ready("Scale", y, x) || !e.fits("Scale", net.ParametersFit(y, x)) {
		return
	}
	if !(limit >= 0) {
		e.fail("Scale: the limit of %q is %g, and must not be negative", y.Name, limit)
		return
	}
	l := elements("scale", "Scale", y.Name, y.Shape.Len())
	l.pointer(at(y)).pointer(at(x)).ints(y.Shape.Len()).floats(by, limit)
	e.do(l)
}

// SGD updates w and v.
func (e *Engine) SGD(w, v, dw *net.Tensor, s net.SGD) {
	if e.ready("SGD", w, v, dw) && e.fits("SGD", net.ParametersFit(w, v, dw)) {
		momentum, decay, rate, ahead, back := s.Factors()
		l := elements("sgd", "SGD", w.Name, w.Shape.Len())
		l.pointer(at(w)).pointer(at(v)).pointer(at(dw)).ints(w.Shape.Len()).floats(momentum, decay, rate, ahead, back)
		e.do(l)
	}
}

// Norm is out[at] = |x|: the sum of each part by itself, then the parts.
func (e *Engine) Norm(out *net.Tensor, place int, x *net.Tensor) {
	if !e.ready("Norm", out, x) || !e.fits("Norm", net.ParametersFit(x)) || !e.fits("Norm", net.IntoFits(out, place, 1)) {
		return
	}
	count := x.Shape.Len()
	each := max(4096, ceil(count, 1024))
	parts := ceil(count, each)
	sums, ok := e.need(&e.sums, 8*parts)
	if !ok {
		return
	}
	l := launch{kernel: "squares", op: "Norm", tensor: x.Name, threads: 256, grid: [3]int{parts, 1, 1}}
	l.pointer(sums).pointer(at(x)).ints(count, each)
	e.do(l)
	l = launch{kernel: "norm_of_parts", op: "Norm", tensor: x.Name, threads: 256, grid: [3]int{1, 1, 1}}
	l.pointer(at(out) + cu.DevicePtr(4*place)).pointer(sums).ints(parts)
	e.do(l)
}

// Peaks is out[at+c] = the largest x of channel c.
func (e *Engine) Peaks(out *net.Tensor, place int, x *net.Tensor) {
	if !e.ready("Peaks", out, x) || !e.fits("Peaks", net.MapsFit(x)) || !e.fits("Peaks", net.IntoFits(out, place, x.Shape.C)) {
		return
	}
	s := x.Shape
	pixels := s.N * s.H * s.W
	parts, each := columnParts(pixels)
	tops, ok := e.need(&e.sums, 4*parts*s.C)
	if !ok {
		return
	}
	l := launch{kernel: "peaks", op: "Peaks", tensor: x.Name, threads: 256, grid: [3]int{ceil(s.C, 32), parts, 1}}
	l.pointer(tops).pointer(at(x)).ints(pixels, s.C, each)
	e.do(l)
	l = elements("peak_of_parts", "Peaks", x.Name, s.C)
	l.pointer(at(out)+cu.DevicePtr(4*place)).pointer(tops).ints(parts, s.C)
	e.do(l)
}

// SoftmaxLoss gives probabilities, losses and ranks. A label that is no class is found
// by the card, and told by the next Sync or Download.
func (e *Engine) SoftmaxLoss(prob, loss, rank, x, labels *net.Tensor, smoothing float32) {
	const op = "SoftmaxLoss"
	if e.ready(op, prob, loss, rank, x, labels) && e.softmaxFits(op, smoothing, x, prob, loss, rank, labels) {
		l := launch{kernel: "softmax_loss", op: op, tensor: x.Name, threads: 128, grid: [3]int{x.Shape.N, 1, 1}}
		l.pointer(at(prob)).pointer(at(loss)).pointer(at(rank)).pointer(at(x)).pointer(at(labels)).ints(x.Shape.C).floats(smoothing).pointer(e.bad)
		e.do(l)
	}
}

// SoftmaxLossGrad is the gradient of the mean loss.
func (e *Engine) SoftmaxLossGrad(dx, prob, labels *net.Tensor, smoothing float32) {
	const op = "SoftmaxLossGrad"
	if e.ready(op, dx, prob, labels) && e.softmaxFits(op, smoothing, prob, dx, labels) {
		l := launch{kernel: "softmax_loss_grad", op: op, tensor: dx.Name, threads: 128, grid: [3]int{dx.Shape.N, 1, 1}}
		l.pointer(at(dx)).pointer(at(prob)).pointer(at(labels)).ints(dx.Shape.N, dx.Shape.C).floats(smoothing).pointer(e.bad)
		e.do(l)
	}
}

func (e *Engine) softmaxFits(op string, smoothing float32, x, beside *net.Tensor, rows ...*net.Tensor) bool {
	err := net.SoftmaxFits(x, smoothing, beside)
	for _, r := range rows {
		if err == nil {
			err = net.RowFits(x, r)
		}
	}
	return e.fits(op, err)
}
