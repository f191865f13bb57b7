package host

import (
	"sluice/gpu/host/simd"
	"sluice/net"
)

// activateJob is y = act(x), or dx = dy * slope(y). A task is a row of an image.
type activateJob struct {
	points  *simd.Points
	to      view // y or dx
	from, y view // x or dy; y is for slopes alone
	act     net.Activation
	back    bool
}

// Activate is y = act(x).
func (e *Engine) Activate(y, x *net.Tensor, act net.Activation) {
	if !e.ready("Activate", y, x) || !e.expect("Activate", "x", x, net.Map, x.Shape) || !e.expect("Activate", "y", y, net.Map, x.Shape) || !e.activation("Activate", act) {
		return
	}
	j := &e.jobs.activate
	*j = activateJob{points: simd.PointsOf(e.level), to: open(y), from: open(x), act: act}
	e.run("Activate", j.to.n*j.to.h, j)
}

// ActivateGrad is dx = dy times the slope of the activation that gave y.
func (e *Engine) ActivateGrad(dx, dy, y *net.Tensor, act net.Activation) {
	const op = "ActivateGrad"
	if !e.ready(op, dx, dy, y) || !e.expect(op, "y", y, net.Map, y.Shape) || !e.expect(op, "dy", dy, net.Map, y.Shape) ||
		!e.expect(op, "dx", dx, net.Map, y.Shape) || !e.activation(op, act) {
		return
	}
	j := &e.jobs.activate
	*j = activateJob{points: simd.PointsOf(e.level), to: open(dx), from: open(dy), y: open(y), act: act, back: true}
	e.run(op, j.to.n*j.to.h, j)
}

func (e *Engine) activation(op string, act net.Activation) bool {
	if act < net.None || act > net.Tanh {
		e.fail("%s: there is no activation %d", op, act)
		return false
	}
	return true
}

func (j *activateJob) do(_ *worker, task int) {
	n, h := task/j.to.h, task%j.to.h
	to := j.to.line(n, h)
	copy(to, j.from.line(n, h))
	switch {
	case j.back && j.act == net.ReLU:
		j.points.ReLUGrad(to, j.y.line(n, h))
	case j.back && j.act == net.Tanh:
		j.points.TanhGrad(to, j.y.line(n, h))
	case j.act == net.ReLU:
		for i, v := range to {
			to[i] = max(v, 0)
		}
	case j.act == net.Tanh:
		j.points.Tanh(to)
	}
	j.to.border(n, h)
}
