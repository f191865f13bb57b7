// Package nettest tests engines against the truth: Reference, an engine of plain
// loops in float64, and Golden, training steps that PyTorch computed.
package nettest

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"sluice/net"
)

// Reference is an engine that computes every op in float64 with the loops of its
// definition, on NCHW and OIHW as they are. It is slow, and it is what the others
// are compared with. It shares memory between tensors whenever their lifetimes
// allow, so that a lifetime planned too short shows in the numbers.
type Reference struct {
	ctx context.Context
	err error // sticks

	tensors map[string]*net.Tensor
}

var _ net.Engine = (*Reference)(nil)

// NewReference makes a Reference.
func NewReference() *Reference {
	return &Reference{ctx: context.Background(), tensors: map[string]*net.Tensor{}}
}

// Name is "reference".
func (e *Reference) Name() string { return "reference" }

// Values is what a tensor holds, NCHW or OIHW: the engine's own memory.
func Values(t *net.Tensor) []float64 { return t.Mem.([]float64) }

// Find is the tensor allocated under that name: "conv1.weight", nil if there is
// none.
func (e *Reference) Find(name string) *net.Tensor { return e.tensors[name] }

// Size is what Alloc takes.
func (e *Reference) Size(specs []net.Spec) int64 {
	_, sizes := share(specs)
	total := int64(0)
	for _, n := range sizes {
		total += 8 * int64(n)
	}
	return total
}

// share gives each spec a buffer, and each buffer a size.
func share(specs []net.Spec) (buffer, sizes []int) {
	order := make([]int, len(specs))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(specs[a].From, specs[b].From) })
	buffer = make([]int, len(specs))
	var until []int // the last op that a buffer is taken for; -1 is for ever
	for _, i := range order {
		s := specs[i]
		at := slices.IndexFunc(until, func(to int) bool { return s.To >= 0 && to >= 0 && to < s.From })
		if at < 0 {
			at = len(until)
			until, sizes = append(until, 0), append(sizes, 0)
		}
		buffer[i], until[at], sizes[at] = at, s.To, max(sizes[at], s.Shape.Len())
	}
	return buffer, sizes
}

// Alloc makes tensors of zeros.
func (e *Reference) Alloc(specs []net.Spec) ([]*net.Tensor, error) {
	buffer, sizes := share(specs)
	memory := make([][]float64, len(sizes))
	for i, n := range sizes {
		memory[i] = make([]float64, n)
	}
	tensors := make([]*net.Tensor, len(specs))
	for i, s := range specs {
		tensors[i] = &net.Tensor{Spec: s, Mem: memory[buffer[i]][:s.Shape.Len()]}
		e.tensors[s.Name] = tensors[i]
	}
	return tensors, nil
}

// Upload copies src to dst.
func (e *Reference) Upload(dst *net.Tensor, src []float32) {
	if e.run("Upload", len(src) == dst.Shape.Len()) {
		for i, v := range src {
			Values(dst)[i] = float64(v)
		}
	}
}

// Download copies src to dst.
func (e *Reference) Download(dst []float32, src *net.Tensor) {
	if e.run("Download", len(dst) == src.Shape.Len()) {
		for i, v := range Values(src) {
			dst[i] = float32(v)
		}
	}
}

// Host runs f over copies.
func (e *Reference) Host(outs, ins []*net.Tensor, f func(outs, ins [][]float32)) {
	if !e.run("Host", true) {
		return
	}
	host := func(tensors []*net.Tensor) (data [][]float32) {
		for _, t := range tensors {
			data = append(data, make([]float32, t.Shape.Len()))
			e.Download(data[len(data)-1], t)
		}
		return data
	}
	o, i := host(outs), host(ins)
	f(o, i)
	for j, t := range outs {
		e.Upload(t, o[j])
	}
}

// Begin starts a step.
func (e *Reference) Begin(ctx context.Context) { e.ctx = ctx }

// Sync returns the first error, or why the step was cancelled.
func (e *Reference) Sync() error {
	if e.err != nil {
		return e.err
	}
	return context.Cause(e.ctx)
}

// Close does nothing.
func (e *Reference) Close() error { return nil }

// run reports whether an op is to run; fits says that its shapes do.
func (e *Reference) run(op string, fits bool) bool {
	if e.err == nil && !fits {
		e.err = fmt.Errorf("%s: shapes do not fit", op)
	}
	return e.err == nil && e.ctx.Err() == nil
}

// NewInput makes a place for batches.
func (e *Reference) NewInput(s net.InputSpec) (net.Input, error) {
	t, err := e.Alloc([]net.Spec{
		{Name: "input", Shape: s.Shape(), To: -1},
		{Name: "labels", Shape: net.Shape{N: 1, C: s.N, H: 1, W: 1}, Kind: net.Vector, To: -1},
	})
	if err != nil {
		return nil, err
	}
	return &input{spec: s, x: t[0], labels: t[1]}, nil
}

type input struct {
	spec      net.InputSpec
	x, labels *net.Tensor
	n         int
}

func (in *input) Load(b net.ImageBatch) error {
	if b.Release != nil {
		defer b.Release()
	}
	s := in.spec
	if b.N > s.N || len(b.Pixels) != b.N*s.H*s.W*3 || len(b.Labels) != b.N || s.MeanImage != nil && len(b.Origin) != 2*b.N {
		return fmt.Errorf("a batch of %d images does not fit", b.N)
	}
	in.n = b.N
	x, labels, shape := Values(in.x), Values(in.labels), s.Shape()
	clear(x)
	for n := range s.N {
		labels[n] = -1
	}
	for n := range b.N {
		labels[n] = float64(b.Labels[n])
		for h := range s.H {
			for w := range s.W {
				for c := range 3 {
					v := float64(b.Pixels[((n*s.H+h)*s.W+w)*3+c])
					if m := s.MeanImage; m == nil {
						v -= float64(s.Mean[c])
					} else {
						x := w
						if b.Flip != nil && b.Flip[n] {
							x = s.W - 1 - w
						}
						v -= float64(m.Pixels[((int(b.Origin[2*n+1])+h)*m.W+int(b.Origin[2*n])+x)*3+c])
					}
					if b.Shift != nil {
						v += float64(b.Shift[n*3+c])
					}
					to := c
					if s.BGR {
						to = 2 - c
					}
					x[at(shape, n, to, h+s.Top, w+s.Left)] = v * float64(s.Scale[c])
				}
			}
		}
	}
	return nil
}

func (in *input) Tensors() (x, labels *net.Tensor, err error) { return in.x, in.labels, nil }
func (in *input) N() int                                      { return in.n }
func (in *input) Close() error                                { return nil }

func at(s net.Shape, n, c, h, w int) int { return ((n*s.C+c)*s.H+h)*s.W + w }

func activate(v float64, act net.Activation) float64 {
	switch act {
	case net.ReLU:
		if v < 0 {
			return 0
		}
	case net.Tanh:
		return math.Tanh(v)
	}
	return v
}

// slope is the activation's derivative where it gave y.
func slope(y float64, act net.Activation) float64 {
	switch {
	case act == net.ReLU && y <= 0:
		return 0
	case act == net.Tanh:
		return 1 - y*y
	}
	return 1
}

// taps calls f with the place of every product of a convolution: y[o] += x[i]*w[k].
func taps(y, x, w net.Shape, g net.Conv, f func(o, i, k int)) {
	groups := max(g.Groups, 1)
	for n := range y.N {
		for c := range y.C {
			first := c / (y.C / groups) * w.C // input channel of the group
			for h := range y.H {
				for v := range y.W {
					for ci := range w.C {
						for kh := range g.Size {
							for kw := range g.Size {
								ih, iw := h*g.Stride-g.Pad+kh, v*g.Stride-g.Pad+kw
								if ih >= 0 && ih < x.H && iw >= 0 && iw < x.W {
									f(at(y, n, c, h, v), at(x, n, first+ci, ih, iw), at(w, c, ci, kh, kw))
								}
							}
						}
					}
				}
			}
		}
	}
}

// Conv computes y = act(x * w + b).
func (e *Reference) Conv(y, x, w, b *net.Tensor, g net.Conv) {
	if !e.run("Conv", y.Shape.C == w.Shape.N && y.Shape.N == x.Shape.N && w.Shape.C*max(g.Groups, 1) == x.Shape.C) {
		return
	}
	Y, X, W := Values(y), Values(x), Values(w)
	for i := range Y {
		Y[i] = Values(b)[i/(y.Shape.H*y.Shape.W)%y.Shape.C]
	}
	taps(y.Shape, x.Shape, w.Shape, g, func(o, i, k int) { Y[o] += X[i] * W[k] })
	for i, v := range Y {
		Y[i] = activate(v, g.Act)
	}
}

// wanted is what a gradient holds, nil for one that is not wanted.
func wanted(t *net.Tensor) []float64 {
	if t == nil {
		return nil
	}
	return Values(t)
}

// ConvGrad is the backward pass of Conv.
func (e *Reference) ConvGrad(dx, dw, db, dy, y, x, w *net.Tensor, g net.Conv) {
	if !e.run("ConvGrad", (dw == nil || dw.Shape == w.Shape) && (dw == nil) == (db == nil) && dy.Shape == y.Shape) {
		return
	}
	DY, Y, X, W := Values(dy), Values(y), Values(x), Values(w)
	DX, DW, DB := wanted(dx), wanted(dw), wanted(db)
	clear(DX)
	clear(DW)
	clear(DB)
	for i := range DY {
		DY[i] *= slope(Y[i], g.Act)
		if DB != nil {
			DB[i/(y.Shape.H*y.Shape.W)%y.Shape.C] += DY[i]
		}
	}
	taps(y.Shape, x.Shape, w.Shape, g, func(o, i, k int) {
		if DW != nil {
			DW[k] += X[i] * DY[o]
		}
		if DX != nil {
			DX[i] += W[k] * DY[o]
		}
	})
}

// Dense computes y = act(w x + b).
func (e *Reference) Dense(y, x, w, b *net.Tensor, act net.Activation) {
	in, out := x.Shape.Image(), y.Shape.C
	if !e.run("Dense", w.Shape.Image() == in && w.Shape.N == out) {
		return
	}
	for n := range x.Shape.N {
		for o := range out {
			sum := Values(b)[o]
			for i, v := range Values(x)[n*in : (n+1)*in] {
				sum += v * Values(w)[o*in+i]
			}
			Values(y)[n*out+o] = activate(sum, act)
		}
	}
}

// DenseGrad is the backward pass of Dense.
func (e *Reference) DenseGrad(dx, dw, db, dy, y, x, w *net.Tensor, act net.Activation) {
	in, out := x.Shape.Image(), y.Shape.C
	if !e.run("DenseGrad", (dw == nil || dw.Shape == w.Shape) && (dw == nil) == (db == nil) && dy.Shape == y.Shape) {
		return
	}
	X, W := Values(x), Values(w)
	DX, DW, DB := wanted(dx), wanted(dw), wanted(db)
	clear(DX)
	clear(DW)
	clear(DB)
	for n := range x.Shape.N {
		for o := range out {
			d := Values(dy)[n*out+o] * slope(Values(y)[n*out+o], act)
			if DB != nil {
				DB[o] += d
			}
			for i := range in {
				if DW != nil {
					DW[o*in+i] += d * X[n*in+i]
				}
				if DX != nil {
					DX[n*in+i] += d * W[o*in+i]
				}
			}
		}
	}
}

// MaxPool takes the greatest element of each window; arg holds its place in x.
func (e *Reference) MaxPool(y, arg, x *net.Tensor, g net.Pool) {
	s := y.Shape
	if !e.run("MaxPool", s.N == x.Shape.N && s.C == x.Shape.C && s.H == g.Out(x.Shape.H) && s.W == g.Out(x.Shape.W)) {
		return
	}
	for n := range s.N {
		for c := range s.C {
			for h := range s.H {
				for w := range s.W {
					best := -1
					for kh := range g.Size {
						for kw := range g.Size {
							ih, iw := h*g.Stride-g.Pad+kh, w*g.Stride-g.Pad+kw
							if ih < 0 || ih >= x.Shape.H || iw < 0 || iw >= x.Shape.W {
								continue
							}
							i := at(x.Shape, n, c, ih, iw)
							if best < 0 || greater(Values(x)[i], Values(x)[best]) {
								best = i
							}
						}
					}
					o := at(s, n, c, h, w)
					Values(y)[o] = Values(x)[best]
					if arg != nil {
						Values(arg)[o] = float64(best)
					}
				}
			}
		}
	}
}

// greater counts a NaN as greater than any number.
func greater(a, b float64) bool { return a > b || math.IsNaN(a) && !math.IsNaN(b) }

// MaxPoolGrad adds each dy to the place that arg names.
func (e *Reference) MaxPoolGrad(dx, dy, arg *net.Tensor, _ net.Pool) {
	if !e.run("MaxPoolGrad", dy.Shape == arg.Shape) {
		return
	}
	clear(Values(dx))
	for o, i := range Values(arg) {
		Values(dx)[int(i)] += Values(dy)[o]
	}
}

// shares calls f with every element o of a mean of shape y and every element i of
// its window in x, and how many places the mean counts.
func shares(y, x net.Shape, g net.Pool, f func(o, i int, count float64)) {
	for o := range y.Len() {
		top, left := o/y.W%y.H*g.Stride-g.Pad, o%y.W*g.Stride-g.Pad
		var inside []int
		count := 0
		for h := top; h < top+g.Size; h++ {
			for w := left; w < left+g.Size; w++ {
				switch {
				case h >= 0 && h < x.H && w >= 0 && w < x.W:
					inside = append(inside, at(x, o/(y.Image()), o/(y.H*y.W)%y.C, h, w))
					count++
				case g.CountPad && h < x.H+g.Pad && w < x.W+g.Pad:
					count++
				}
			}
		}
		for _, i := range inside {
			f(o, i, float64(count))
		}
	}
}

// AvgPool takes the mean of each window.
func (e *Reference) AvgPool(y, x *net.Tensor, g net.Pool) {
	if !e.run("AvgPool", y.Shape == net.Shape{N: x.Shape.N, C: x.Shape.C, H: g.Out(x.Shape.H), W: g.Out(x.Shape.W)}) {
		return
	}
	clear(Values(y))
	shares(y.Shape, x.Shape, g, func(o, i int, count float64) { Values(y)[o] += Values(x)[i] / count })
}

// AvgPoolGrad is the backward pass of AvgPool.
func (e *Reference) AvgPoolGrad(dx, dy *net.Tensor, g net.Pool) {
	if !e.run("AvgPoolGrad", dy.Shape == net.Shape{N: dx.Shape.N, C: dx.Shape.C, H: g.Out(dx.Shape.H), W: g.Out(dx.Shape.W)}) {
		return
	}
	clear(Values(dx))
	shares(dy.Shape, dx.Shape, g, func(o, i int, count float64) { Values(dx)[i] += Values(dy)[o] / count })
}

// neighbours calls f with every element and the elements in its window.
func neighbours(s net.Shape, g net.LRN, f func(i, j int)) {
	group := s.C / max(g.Groups, 1)
	for n := range s.N {
		for c := range s.C {
			from := c / group * group
			for k := max(from, c-g.Size/2); k < min(from+group, c-g.Size/2+g.Size); k++ {
				for p := range s.H * s.W {
					f((n*s.C+c)*s.H*s.W+p, (n*s.C+k)*s.H*s.W+p)
				}
			}
		}
	}
}

// LRN normalises across channels.
func (e *Reference) LRN(y, x *net.Tensor, g net.LRN) {
	if !e.run("LRN", y.Shape == x.Shape) {
		return
	}
	X := Values(x)
	for i, s := range denominators(x, g) {
		Values(y)[i] = X[i] * math.Pow(s, -float64(g.Beta))
	}
}

// denominators are k + alpha * sum, before the power.
func denominators(x *net.Tensor, g net.LRN) []float64 {
	X, s := Values(x), make([]float64, x.Shape.Len())
	for i := range s {
		s[i] = float64(g.K)
	}
	neighbours(x.Shape, g, func(i, j int) { s[i] += float64(g.Alpha) * X[j] * X[j] })
	return s
}

// LRNGrad is the backward pass of LRN.
func (e *Reference) LRNGrad(dx, dy, x *net.Tensor, g net.LRN) {
	if !e.run("LRNGrad", dy.Shape == x.Shape) {
		return
	}
	DX, DY, X, S := Values(dx), Values(dy), Values(x), denominators(x, g)
	for i := range DX {
		DX[i] = DY[i] * math.Pow(S[i], -float64(g.Beta))
	}
	neighbours(x.Shape, g, func(i, j int) {
		DX[j] -= 2 * float64(g.Alpha) * float64(g.Beta) * X[j] * DY[i] * X[i] * math.Pow(S[i], -float64(g.Beta)-1)
	})
}

// Dropout is y = x * mask.
func (e *Reference) Dropout(y, x *net.Tensor, keep float32, key net.RandomKey) {
	if !e.run("Dropout", y.Shape == x.Shape) {
		return
	}
	for i, v := range Values(x) {
		Values(y)[i] = 0
		words := key.Block(uint32(i / 4))
		if uint64(words[i%4]) < net.KeepLimit(keep) {
			Values(y)[i] = v / float64(keep)
		}
	}
}

// Copy is y = x.
func (e *Reference) Copy(y, x *net.Tensor) {
	if e.run("Copy", y.Shape == x.Shape) {
		copy(Values(y), Values(x))
	}
}

// CopyChannels copies n channels.
func (e *Reference) CopyChannels(y, x *net.Tensor, to, from, n int) {
	s := x.Shape
	s.C = y.Shape.C
	if !e.run("CopyChannels", y.Shape == s && from+n <= x.Shape.C && to+n <= s.C) {
		return
	}
	for image := range s.N {
		copy(Values(y)[at(s, image, to, 0, 0):at(s, image, to+n, 0, 0)], Values(x)[at(x.Shape, image, from, 0, 0):])
	}
}

// Add is y = a + b.
func (e *Reference) Add(y, a, b *net.Tensor) {
	if e.run("Add", y.Shape == a.Shape && y.Shape == b.Shape) {
		for i, v := range Values(a) {
			Values(y)[i] = v + Values(b)[i]
		}
	}
}

// SoftmaxLoss gives probabilities, losses and ranks.
func (e *Reference) SoftmaxLoss(prob, loss, rank, x, labels *net.Tensor, smoothing float32) {
	if !e.run("SoftmaxLoss", prob.Shape == x.Shape && labels.Shape.C == x.Shape.N && slices.Max(Values(labels)) < float64(x.Shape.C)) {
		return
	}
	classes := x.Shape.C
	for n := range x.Shape.N {
		row, p := Values(x)[n*classes:(n+1)*classes], Values(prob)[n*classes:]
		top, sum := slices.Max(row), 0.
		for c, v := range row {
			p[c] = math.Exp(v - top)
			sum += p[c]
		}
		for c := range row {
			p[c] /= sum
		}
		label := int(Values(labels)[n])
		Values(loss)[n], Values(rank)[n] = 0, float64(classes)
		if label < 0 {
			continue
		}
		uniform := 0.
		for _, v := range row {
			uniform += (math.Log(sum) + top - v) / float64(classes)
		}
		s := float64(smoothing)
		Values(loss)[n] = (1 - s) * (math.Log(sum) + top - row[label])
		if s > 0 { // 0 times an infinite loss is none
			Values(loss)[n] += s * uniform
		}
		before := 0
		for c, v := range row {
			if c != label && (v > row[label] || v == row[label] && c < label || math.IsNaN(v)) {
				before++
			}
		}
		if math.IsNaN(row[label]) {
			before = classes - 1
		}
		Values(rank)[n] = float64(before)
	}
}

// SoftmaxLossGrad is dx = (prob - q) / N.
func (e *Reference) SoftmaxLossGrad(dx, prob, labels *net.Tensor, smoothing float32) {
	if !e.run("SoftmaxLossGrad", dx.Shape == prob.Shape) {
		return
	}
	classes, rows := dx.Shape.C, dx.Shape.N
	for i, p := range Values(prob) {
		s := float64(smoothing)
		switch label := int(Values(labels)[i/classes]); {
		case label < 0:
			p = 0
		case label == i%classes:
			p -= 1 - s + s/float64(classes)
		default:
			p -= s / float64(classes)
		}
		Values(dx)[i] = p / float64(rows)
	}
}

// Norm is out[at] = |x|.
func (e *Reference) Norm(out *net.Tensor, at int, x *net.Tensor) {
	if !e.run("Norm", at < out.Shape.C) {
		return
	}
	sum := 0.
	for _, v := range Values(x) {
		sum += v * v
	}
	Values(out)[at] = math.Sqrt(sum)
}

// Scale is y = x * by within limit.
func (e *Reference) Scale(y, x *net.Tensor, by, limit float32) {
	if !e.run("Scale", y.Shape == x.Shape) {
		return
	}
	for i, v := range Values(x) {
		v *= float64(by)
		if l := float64(limit); limit > 0 {
			v = max(-l, min(l, v))
		}
		Values(y)[i] = v
	}
}

// Peaks is the greatest number of each channel.
func (e *Reference) Peaks(out *net.Tensor, at int, x *net.Tensor) {
	if !e.run("Peaks", at+x.Shape.C <= out.Shape.C) {
		return
	}
	peaks := Values(out)[at:][:x.Shape.C]
	for c := range peaks {
		peaks[c] = math.Inf(-1)
	}
	for i, v := range Values(x) {
		c := i / (x.Shape.H * x.Shape.W) % x.Shape.C
		if greater(v, peaks[c]) {
			peaks[c] = v
		}
	}
}

// Activate is y = act(x).
func (e *Reference) Activate(y, x *net.Tensor, act net.Activation) {
	if e.run("Activate", y.Shape == x.Shape) {
		for i, v := range Values(x) {
			Values(y)[i] = activate(v, act)
		}
	}
}

// ActivateGrad is dx = dy times the slope.
func (e *Reference) ActivateGrad(dx, dy, y *net.Tensor, act net.Activation) {
	if e.run("ActivateGrad", dx.Shape == dy.Shape && dy.Shape == y.Shape) {
		for i, d := range Values(dy) {
			Values(dx)[i] = d * slope(Values(y)[i], act)
		}
	}
}

// SGD is one step in the form that is asked for.
func (e *Reference) SGD(w, v, dw *net.Tensor, s net.SGD) {
	if !e.run("SGD", w.Shape == v.Shape && w.Shape == dw.Shape) {
		return
	}
	for i, d := range Values(dw) {
		m, lr := float64(s.Momentum), float64(s.LR)
		g := d + float64(s.Decay)*Values(w)[i]
		switch s.Form {
		case net.PaperMomentum:
			Values(v)[i] = m*Values(v)[i] - lr*g
			Values(w)[i] += Values(v)[i]
		case net.TorchMomentum:
			Values(v)[i] = m*Values(v)[i] - g
			Values(w)[i] += lr * Values(v)[i]
		case net.NesterovMomentum:
			Values(v)[i] = m*Values(v)[i] - g
			Values(w)[i] += lr * (m*Values(v)[i] - g)
		}
	}
}
