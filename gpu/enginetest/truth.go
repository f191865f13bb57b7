package enginetest

import (
	"math"

	"sluice/net"
)

// This file is the truth: what each op computes, as plain loops over float64 in
// NCHW and OIHW order. It shares nothing with any engine.

// act is the activation, and slope its derivative told by its value.
func act(a net.Activation, v float64) float64 {
	switch {
	case a == net.ReLU && v < 0:
		return 0
	case a == net.Tanh:
		return math.Tanh(v)
	}
	return v
}

func slope(a net.Activation, y float64) float64 {
	switch {
	case a == net.ReLU && y <= 0:
		return 0
	case a == net.Tanh:
		return 1 - y*y
	}
	return 1
}

// eachTap calls f for every product of a convolution: y[o] += x[i] * w[k].
func eachTap(x, w, y net.Shape, g net.Conv, f func(o, i, k int)) {
	groups := max(g.Groups, 1)
	for n := range y.N {
		for c := range y.C {
			first := c / (y.C / groups) * w.C // channel of x
			for h := range y.H {
				for v := range y.W {
					o := ((n*y.C+c)*y.H+h)*y.W + v
					for i := range w.C {
						for kh := range w.H {
							for kw := range w.W {
								r, s := h*g.Stride-g.Pad+kh, v*g.Stride-g.Pad+kw
								if r < 0 || r >= x.H || s < 0 || s >= x.W {
									continue
								}
								f(o, ((n*x.C+first+i)*x.H+r)*x.W+s, ((c*w.C+i)*w.H+kh)*w.W+kw)
							}
						}
					}
				}
			}
		}
	}
}

func convTruth(xs, ws, ys net.Shape, g net.Conv, x, w, b []float64) []float64 {
	y := make([]float64, ys.Len())
	eachTap(xs, ws, ys, g, func(o, i, k int) { y[o] += x[i] * w[k] })
	for i := range y {
		y[i] = act(g.Act, y[i]+b[i/(ys.H*ys.W)%ys.C])
	}
	return y
}

func convGradTruth(xs, ws, ys net.Shape, g net.Conv, x, w, y, dy []float64) (dx, dw, db []float64) {
	dx, dw, db = make([]float64, xs.Len()), make([]float64, ws.Len()), make([]float64, ys.C)
	d := make([]float64, len(dy))
	for i := range d {
		d[i] = dy[i] * slope(g.Act, y[i])
		db[i/(ys.H*ys.W)%ys.C] += d[i]
	}
	eachTap(xs, ws, ys, g, func(o, i, k int) {
		dx[i] += d[o] * w[k]
		dw[k] += d[o] * x[i]
	})
	return dx, dw, db
}

// poolTruth gives y, and for each of its elements the index of the element of x
// that it is.
func poolTruth(xs, ys net.Shape, g net.Pool, x []float64) (y []float64, from []int) {
	y, from = make([]float64, ys.Len()), make([]int, ys.Len())
	for o := range y {
		from[o] = -1
		plane, h, w := o/(ys.H*ys.W), o/ys.W%ys.H, o%ys.W
		for r := h*g.Stride - g.Pad; r < h*g.Stride-g.Pad+g.Size; r++ {
			for s := w*g.Stride - g.Pad; s < w*g.Stride-g.Pad+g.Size; s++ {
				if r < 0 || r >= xs.H || s < 0 || s >= xs.W {
					continue
				}
				i := (plane*xs.H+r)*xs.W + s
				if from[o] < 0 || !math.IsNaN(y[o]) && (x[i] > y[o] || math.IsNaN(x[i])) {
					y[o], from[o] = x[i], i
				}
			}
		}
	}
	return y, from
}

// avgPoolTruth gives, for every element of y, the elements of x in its window and
// what its mean divides by.
func avgPoolTruth(xs, ys net.Shape, g net.Pool) (from [][]int, divisors []float64) {
	from, divisors = make([][]int, ys.Len()), make([]float64, ys.Len())
	for o := range from {
		plane, top, left := o/(ys.H*ys.W), o/ys.W%ys.H*g.Stride-g.Pad, o%ys.W*g.Stride-g.Pad
		bottom, right := min(top+g.Size, xs.H+g.Pad), min(left+g.Size, xs.W+g.Pad)
		divisors[o] = float64((bottom - top) * (right - left))
		for r := max(0, top); r < min(xs.H, bottom); r++ {
			for s := max(0, left); s < min(xs.W, right); s++ {
				from[o] = append(from[o], (plane*xs.H+r)*xs.W+s)
			}
		}
		if !g.CountPad {
			divisors[o] = float64(len(from[o]))
		}
	}
	return from, divisors
}

// lrnScale is k + alpha * sum for every element.
func lrnScale(s net.Shape, g net.LRN, x []float64) []float64 {
	scale := make([]float64, len(x))
	for i := range x {
		scale[i] = float64(g.K)
		lrnWindow(s, g, i, func(j int) { scale[i] += float64(g.Alpha) * x[j] * x[j] })
	}
	return scale
}

// lrnWindow calls f for the elements in the window of element i: Size channels,
// beginning Size/2 before it, within its group.
func lrnWindow(s net.Shape, g net.LRN, i int, f func(j int)) {
	plane := s.H * s.W
	c, size := i/plane%s.C, s.C/max(g.Groups, 1)
	for d := c - g.Size/2; d < c-g.Size/2+g.Size; d++ {
		if d >= 0 && d < s.C && d/size == c/size {
			f(i + (d-c)*plane)
		}
	}
}

func lrnTruth(s net.Shape, g net.LRN, x []float64) []float64 {
	y := make([]float64, len(x))
	for i, v := range lrnScale(s, g, x) {
		y[i] = x[i] * math.Pow(v, -float64(g.Beta))
	}
	return y
}

func lrnGradTruth(s net.Shape, g net.LRN, x, dy []float64) []float64 {
	dx := make([]float64, len(x))
	for i, v := range lrnScale(s, g, x) {
		p := math.Pow(v, -float64(g.Beta))
		dx[i] += dy[i] * p
		lrnWindow(s, g, i, func(j int) {
			dx[j] -= dy[i] * x[i] * float64(g.Beta) * p / v * 2 * float64(g.Alpha) * x[j]
		})
	}
	return dx
}

// softmaxTruth is net.Ops.SoftmaxLoss.
func softmaxTruth(s net.Shape, x, labels []float64, smoothing float32) (prob, loss, rank []float64) {
	prob, loss, rank = make([]float64, len(x)), make([]float64, s.N), make([]float64, s.N)
	for n := range s.N {
		row, p := x[n*s.C:][:s.C], prob[n*s.C:][:s.C]
		top := row[0]
		for _, v := range row {
			top = max(top, v)
		}
		sum := 0.0
		for i, v := range row {
			p[i] = math.Exp(v - top)
			sum += p[i]
		}
		for i := range p {
			p[i] /= sum
		}
		label := int(labels[n])
		if label < 0 {
			rank[n] = float64(s.C)
			continue
		}
		for i, v := range row {
			if q := target(i, label, s.C, smoothing); q > 0 { // 0 times an infinite loss is none
				loss[n] += q * (math.Log(sum) + top - v)
			}
		}
		for i, v := range row {
			l := row[label]
			switch {
			case i == label:
			case math.IsNaN(v) && math.IsNaN(l), v == l:
				if i < label {
					rank[n]++
				}
			case math.IsNaN(v), v > l:
				rank[n]++
			}
		}
	}
	return prob, loss, rank
}

// target is the probability that class i of a row should have.
func target(i, label, classes int, smoothing float32) float64 {
	q := float64(smoothing) / float64(classes)
	if i == label {
		q += 1 - float64(smoothing)
	}
	return q
}

func softmaxGradTruth(s net.Shape, prob, labels []float64, smoothing float32) []float64 {
	dx := make([]float64, len(prob))
	for n := range s.N {
		label := int(labels[n])
		for i := range s.C {
			if label < 0 {
				continue
			}
			dx[n*s.C+i] = (prob[n*s.C+i] - target(i, label, s.C, smoothing)) / float64(s.N)
		}
	}
	return dx
}
