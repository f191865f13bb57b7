package host

import (
	"math"

	"sluice/net"
)

// tiny is the smallest normal float32. Numbers below are of no use as gradients,
// and a hundred times slower than others on some processors.
const tiny = 0x1p-126

// softmaxJob is softmax with cross-entropy, and its gradient. A task is a row.
type softmaxJob struct {
	x, prob, dx        view
	loss, rank, labels []float32
	smoothing          float64
	backward           bool
}

// SoftmaxLoss gives probabilities, losses and ranks. Sums are taken in float64
// and the loss from the logits, so that no probability is too small for it.
// Probabilities below tiny are zero.
func (e *Engine) SoftmaxLoss(prob, loss, rank, x, labels *net.Tensor, smoothing float32) {
	if !e.ready("SoftmaxLoss", prob, loss, rank, x, labels) || !e.smoothingFits("SoftmaxLoss", smoothing) {
		return
	}
	row := net.Shape{N: 1, C: x.Shape.N, H: 1, W: 1}
	flat := net.Shape{N: x.Shape.N, C: x.Shape.C, H: 1, W: 1}
	if !e.expect("SoftmaxLoss", "x", x, net.Map, flat) || !e.expect("SoftmaxLoss", "prob", prob, net.Map, flat) ||
		!e.expect("SoftmaxLoss", "loss", loss, net.Vector, row) || !e.expect("SoftmaxLoss", "rank", rank, net.Vector, row) ||
		!e.expect("SoftmaxLoss", "labels", labels, net.Vector, row) || !e.labelsFit("SoftmaxLoss", labels, x.Shape.C) {
		return
	}
	j := &e.jobs.softmax
	j.backward, j.smoothing = false, float64(smoothing)
	j.x, j.prob = open(x), open(prob)
	j.loss, j.rank, j.labels = loss.Mem.(*memory).f, rank.Mem.(*memory).f, labels.Mem.(*memory).f
	e.run("SoftmaxLoss", j.x.n, j)
}

// SoftmaxLossGrad is the gradient of the mean loss.
func (e *Engine) SoftmaxLossGrad(dx, prob, labels *net.Tensor, smoothing float32) {
	if !e.ready("SoftmaxLossGrad", dx, prob, labels) || !e.smoothingFits("SoftmaxLossGrad", smoothing) {
		return
	}
	flat := net.Shape{N: prob.Shape.N, C: prob.Shape.C, H: 1, W: 1}
	if !e.expect("SoftmaxLossGrad", "prob", prob, net.Map, flat) || !e.expect("SoftmaxLossGrad", "dx", dx, net.Map, flat) ||
		!e.expect("SoftmaxLossGrad", "labels", labels, net.Vector, net.Shape{N: 1, C: flat.N, H: 1, W: 1}) ||
		!e.labelsFit("SoftmaxLossGrad", labels, flat.C) {
		return
	}
	j := &e.jobs.softmax
	j.backward, j.smoothing = true, float64(smoothing)
	j.prob, j.dx, j.labels = open(prob), open(dx), labels.Mem.(*memory).f
	e.run("SoftmaxLossGrad", j.prob.n, j)
}

func (e *Engine) smoothingFits(op string, smoothing float32) bool {
	return e.fits(op, net.SmoothingFits(smoothing))
}

func (e *Engine) labelsFit(op string, labels *net.Tensor, classes int) bool {
	for i, l := range labels.Mem.(*memory).f {
		if !(l < float32(classes)) || l >= 0 && l != float32(int(l)) {
			e.fail("%s: the label of row %d is %v, but there are %d classes", op, i, l, classes)
			return false
		}
	}
	return true
}

func (j *softmaxJob) do(_ *worker, n int) {
	if j.backward {
		j.grad(n)
		return
	}
	x, prob, label := j.x.line(n, 0), j.prob.line(n, 0), int(j.labels[n])
	top := x[0]
	for _, v := range x {
		top = max(top, v)
	}
	var sum float64
	for _, v := range x {
		sum += math.Exp(float64(v) - float64(top))
	}
	for i, v := range x {
		p := float32(math.Exp(float64(v)-float64(top)) / sum)
		if p < tiny {
			p = 0
		}
		prob[i] = p
	}
	j.prob.borders(n)
	if label < 0 {
		j.loss[n], j.rank[n] = 0, float32(len(x))
		return
	}
	loss := math.Log(sum) - (float64(x[label]) - float64(top))
	if j.smoothing > 0 {
		var rest float64
		for _, v := range x {
			rest += math.Log(sum) - (float64(v) - float64(top))
		}
		loss = (1-j.smoothing)*loss + j.smoothing*rest/float64(len(x))
	}
	j.loss[n] = float32(loss)
	rank := 0
	for i, v := range x {
		if before(v, x[label], i < label) {
			rank++
		}
	}
	j.rank[n] = float32(rank)
}

// before says whether logit a comes before b: NaN first, then the greater, then
// the one of the lower index.
func before(a, b float32, lower bool) bool {
	switch aNaN, bNaN := a != a, b != b; {
	case aNaN != bNaN:
		return aNaN
	case aNaN, a == b:
		return lower
	}
	return a > b
}

func (j *softmaxJob) grad(n int) {
	prob, dx, label := j.prob.line(n, 0), j.dx.line(n, 0), int(j.labels[n])
	j.dx.borders(n)
	if label < 0 {
		clear(dx)
		return
	}
	count := float32(j.prob.n)
	share := float32(j.smoothing / float64(len(prob)))
	hit := float32(1 - j.smoothing + j.smoothing/float64(len(prob)))
	for i, p := range prob {
		if i == label {
			p -= hit
		} else {
			p -= share
		}
		dx[i] = p / count
		if dx[i] < tiny && dx[i] > -tiny {
			dx[i] = 0
		}
	}
}
