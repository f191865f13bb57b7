package net

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// NetPlan is a network whose shapes, parameters and memory are known; nothing
// is allocated yet.
type NetPlan struct {
	Input InputSpec
	// MeanFrom says where the mean of Input is from (see Mean) where the YAML does not
	// have it in numbers: it is to be given with SetMean or LoadMean, and the weights
	// carry it. It is empty otherwise.
	MeanFrom  string
	meanGiven bool

	Classes []string    // may be nil
	Layers  []LayerPlan // in the order they run; the loss is last
	Params  int         // trained numbers
	MACs    int64       // multiply-adds of one Forward of one image

	// Accumulate makes room to add up the gradients of several batches, see
	// Network.Accumulate: a second gradient of every parameter.
	Accumulate bool

	// Of a part of a network (Until), nil otherwise: layers whose outputs stay, and
	// parameters of those that it leaves out.
	kept, left map[string]bool
}

// LayerPlan is one layer of a NetPlan.
type LayerPlan struct {
	Name, Type string
	From       []string // names of its inputs; "input" is the batch
	In         []Shape
	Layer      Layer
	Plan       Plan

	inputs []int // places of From in NetPlan.Layers; -1 is the batch
}

// maxElements bounds a tensor, far beyond any memory, so that sizes never
// overflow.
const maxElements = 1 << 40

// plan lays the graph out for n images of h x w. The error is joined of
// nodeErrors and of what concerns the whole network.
func (g Graph) plan(n, h, w, classes int) (*NetPlan, error) {
	if n < 1 || h < 1 || w < 1 {
		return nil, fmt.Errorf("a batch of %d images of %d x %d is empty; the network needs to know the size of the images it gets", n, w, h)
	}
	run, err := g.order()
	if err == nil {
		err = g.Input.check()
	}
	if err != nil {
		return nil, err
	}
	pad := g.Input.Pad
	if g.Fit != nil {
		if pad, err = g.Fit(h, w); err != nil {
			return nil, err
		}
	}
	p := &NetPlan{Input: InputSpec{
		N: n, H: h, W: w, Top: pad[0], Bottom: pad[1], Left: pad[2], Right: pad[3],
		Mean: g.Input.Mean.RGB, Scale: g.Input.Scale, BGR: g.Input.Channels == "bgr",
	}, MeanFrom: g.Input.Mean.From}
	if !sane(p.Input.Shape()) {
		return nil, fmt.Errorf("a batch of %d images of %d x %d is too large", n, w, h)
	}
	errs := widen(run, cmp.Or(classes, g.Classes))
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	for _, v := range run {
		l := LayerPlan{Name: v.name, Type: v.typ, From: v.from, Layer: v.layer, inputs: v.in}
		known := true
		for _, i := range v.in {
			s := p.Input.Shape()
			if i >= 0 {
				s = p.Layers[i].Plan.Out
			}
			l.In = append(l.In, s)
			known = known && s.N > 0 // else there was a mistake in what it reads
		}
		if known {
			if l.Plan, err = v.layer.Plan(l.In); err == nil {
				err = l.Plan.check()
			}
			if err != nil {
				errs = append(errs, &nodeError{v.at, v.name, err})
				l.Plan = Plan{}
			}
		}
		p.Layers = append(p.Layers, l)
		for _, s := range l.Plan.Params {
			p.Params += s.Shape.Len()
		}
		p.MACs += l.Plan.MACs / int64(n)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	p.Input.Halo = p.halo(-1)
	return p, nil
}

// widen gives the last dense layer its width. It also refuses a ReLU before the
// loss, with which half of the classes learn nothing.
func widen(run []*vertex, classes int) (errs []error) {
	last := true
	for i := len(run) - 1; i >= 0; i-- {
		v := run[i]
		open, ok := v.layer.(Widener)
		if !ok {
			continue
		}
		l, ok := open.Widen(classes)
		switch {
		case ok && !last:
			errs = append(errs, v.errorf("out may be left out only in the last such layer, where it is the number of classes"))
		case ok && classes < 1:
			errs = append(errs, v.errorf("out is left out, and the number of classes is not known"))
		case ok:
			v.layer = l
		}
		last = false
	}
	for _, v := range run {
		if _, ok := v.layer.(Loss); !ok || len(v.in) == 0 || v.in[0] < 0 {
			continue
		}
		before := run[v.in[0]]
		if d, ok := before.layer.(DenseLayer); ok && d.Activation != None {
			errs = append(errs, before.errorf("the loss needs its output as it is: set activation: none, or leave out out"))
		}
	}
	return errs
}

func (p Plan) check() error {
	shapes := []Shape{p.Out}
	for _, s := range p.Params {
		shapes = append(shapes, s.Shape)
	}
	for _, s := range p.Saved {
		shapes = append(shapes, s.Shape)
	}
	for _, s := range shapes {
		if !sane(s) {
			return fmt.Errorf("a tensor of %s is empty, or larger than any memory", s)
		}
	}
	return nil
}

// sane reports whether a shape has elements, and not too many.
func sane(s Shape) bool {
	n := 1
	for _, d := range []int{s.N, s.C, s.H, s.W} {
		if d < 1 || d > maxElements/n {
			return false
		}
		n *= d
	}
	return true
}

// halo is the widest border that a consumer of layer i wants (-1: the batch).
func (p *NetPlan) halo(i int) int {
	widest := 0
	for _, l := range p.Layers {
		for _, in := range l.inputs {
			if in == i {
				widest = max(widest, l.Plan.Halo)
			}
		}
	}
	return widest
}

// Specs lists every tensor that the network would allocate on an engine, in
// training or only for inference.
func (p *NetPlan) Specs(train bool) []Spec { return p.tensors(train).specs }

// tensors is the specs of a network, and which of them a layer uses.
type tensors struct {
	specs  []Spec
	layers []layerTensors
	norms  int // a norm each of the gradient, update and weight of every trained parameter; -1: none
	peaks  int // of the channels of every layer that is watched; -1: none
}

// trains reports whether any parameter of the layer learns. One that does not is
// frozen, and has neither gradient nor momentum.
func (l *LayerPlan) trains() bool {
	return slices.ContainsFunc(l.Plan.Params, func(s ParamSpec) bool { return s.LR != 0 })
}

// Trained is how many numbers are in layers that learn: of Params, without those of
// frozen layers.
func (p *NetPlan) Trained() (n int) {
	for _, l := range p.Layers {
		for _, s := range l.Plan.Params {
			if l.trains() {
				n += s.Shape.Len()
			}
		}
	}
	return n
}

// CheckLearns is an error if the network has nothing to learn.
func (p *NetPlan) CheckLearns() error {
	if p.Trained() > 0 {
		return nil
	}
	return errors.New("the network has nothing to learn: every layer with parameters is frozen")
}

// layerTensors are places in specs; -1 is none.
type layerTensors struct {
	y, dy    int
	saved    []int
	w, dw, v []int // v: momentum
	sum      []int // of gradients
	peaks    int   // place of its channels in tensors.peaks
	dx       []int // one for each input
	add      []int // the sum that dx[i] is to be added to
	backward bool
}

func (t *tensors) add(s Spec) int {
	t.specs = append(t.specs, s)
	return len(t.specs) - 1
}

// tensors says what a network allocates and from which op to which each tensor
// lives. Layer i computes forward at op i and backward at op 2L-1-i of a step of
// L layers; the update is op 2L.
//
//   - An output lives until its last reader has run: forward, or backward where a
//     Plan keeps it.
//   - The gradient of an output lives from the first backward that adds to it (of
//     the last reader) to the backward of its own layer. A further reader computes
//     into a tensor that lives for that op alone, and it is added.
//   - Gradients of parameters live until the update.
//   - What the loss leaves is read after the step.
func (p *NetPlan) tensors(train bool) *tensors {
	count := len(p.Layers)
	forever := -1
	back := func(i int) int { return 2*count - 1 - i }
	t := &tensors{layers: make([]layerTensors, count), norms: -1, peaks: -1}

	// A layer goes backward if it, or one before it, has something to learn.
	learns := make([]bool, count)
	for i, l := range p.Layers {
		learns[i] = train && l.trains()
		for _, in := range l.inputs {
			learns[i] = learns[i] || in >= 0 && learns[in]
		}
	}
	trained, peaks := 0, 0
	for i, l := range p.Layers {
		to := i
		if learns[i] && l.Plan.KeepY {
			to = back(i)
		}
		firstBack := -1 // of the readers, in the order of going backward
		for j, reader := range p.Layers {
			for _, in := range reader.inputs {
				if in != i {
					continue
				}
				to = max(to, j)
				if learns[j] && reader.Plan.KeepX {
					to = max(to, back(j))
				}
				firstBack = j
			}
		}
		_, isLoss := l.Layer.(Loss)
		if isLoss || p.kept[l.Name] {
			to = forever
		}
		lt := &t.layers[i]
		*lt = layerTensors{y: -1, dy: -1, peaks: -1, backward: learns[i]}
		if r, ok := l.Layer.(Rectifier); ok && r.Rectifies() && learns[i] && l.Plan.KeepY {
			lt.peaks = peaks
			peaks += l.Plan.Out.C
		}
		lt.y = t.add(Spec{Name: l.Name, Shape: l.Plan.Out, Kind: Map, Halo: p.halo(i), From: i, To: to})
		if learns[i] && !isLoss {
			lt.dy = t.add(Spec{Name: l.Name + ".gradient", Shape: l.Plan.Out, Kind: Map, From: back(firstBack), To: back(i)})
		}
		for _, s := range l.Plan.Saved {
			s.Name, s.From, s.To = l.Name+"."+s.Name, i, back(i)
			if isLoss {
				s.To = forever
			}
			at := -1
			if learns[i] || isLoss {
				at = t.add(s)
			}
			lt.saved = append(lt.saved, at)
		}
		for _, s := range l.Plan.Params {
			spec := Spec{Name: l.Name + "." + s.Name, Shape: s.Shape, Kind: s.Kind, Groups: s.Groups, To: forever}
			lt.w = append(lt.w, t.add(spec))
			if !train || !l.trains() {
				lt.v, lt.dw, lt.sum = append(lt.v, -1), append(lt.dw, -1), append(lt.sum, -1)
				continue
			}
			trained++
			spec.Name += ".momentum"
			lt.v = append(lt.v, t.add(spec))
			sum := -1
			if p.Accumulate {
				spec.Name = l.Name + "." + s.Name + ".sum"
				sum = t.add(spec)
			}
			lt.sum = append(lt.sum, sum)
			spec.Name, spec.From, spec.To = l.Name+"."+s.Name+".gradient", back(i), 2*count
			lt.dw = append(lt.dw, t.add(spec))
		}
	}
	if trained > 0 {
		t.norms = t.add(Spec{Name: "norms", Shape: Shape{1, 3 * trained, 1, 1}, Kind: Vector, To: forever})
	}
	if peaks > 0 {
		t.peaks = t.add(Spec{Name: "peaks", Shape: Shape{1, peaks, 1, 1}, Kind: Vector, To: forever})
	}
	// Backward, in its order: the first reader of an output writes its gradient,
	// the others add to it.
	written := make([]bool, count)
	for i := count - 1; i >= 0; i-- {
		lt := &t.layers[i]
		for _, in := range p.Layers[i].inputs {
			dx, sum := -1, -1
			if in >= 0 && learns[in] {
				dx = t.layers[in].dy
				if written[in] {
					sum = dx
					dx = t.add(Spec{Name: p.Layers[i].Name + ".part", Shape: p.Layers[in].Plan.Out, Kind: Map, From: back(i), To: back(i)})
				}
				written[in] = true
			}
			lt.dx, lt.add = append(lt.dx, dx), append(lt.add, sum)
		}
	}
	return t
}
