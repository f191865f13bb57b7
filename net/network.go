package net

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// Roles of a NamedTensor.
const (
	RoleWeight   = "weight" // a trained number: weights and biases
	RoleMomentum = "momentum"
)

// NamedTensor is a parameter on the host: name "conv1.weight", role "weight" or
// "momentum", data in OIHW; Dims are those of the file: (out, in) for a dense
// weight, (n) for a bias.
type NamedTensor struct {
	Name, Role string
	Dims       []int
	Data       []float32
}

// Stats sums a batch's results over its rows that have a label.
type Stats struct {
	Rows       int
	Loss       float64 // sum
	Top1, Top5 int
}

// Network is a NetPlan on an engine. Like the engine, it is used from one
// goroutine.
type Network struct {
	engine Engine
	plan   *NetPlan
	seed   uint64
	train  bool

	params []param
	layers []layerRun
	rows   [2][]float32 // host buffers of Stats and Probabilities
	prob   []float32
	loaded int // rows of the last Forward

	watch func(layer int, p Pass, began time.Time)

	smoothing    float32 // of labels
	summed       int     // gradients that Accumulate has added up
	last         SGD     // of the last Update
	norms, peaks *Tensor
	host         []float32 // of norms and peaks
}

// param is one tensor: its weight and, where it is trained, momentum, gradient and the
// sum of gradients (nil if they are not added up).
type param struct {
	name          string
	layer         int
	spec          ParamSpec
	w, v, dw, sum *Tensor
}

// layerRun is a layer with its tensors.
type layerRun struct {
	LayerPlan
	frame    Frame
	saved    []*Tensor // as planned
	none     []*Tensor // as many, all nil
	sums     []*Tensor // where DX[i] is added to; nil if it is the first
	backward bool
	loss     bool
	peaks    int // place in Network.peaks, -1 if it is not watched
}

// New allocates a network on an engine and initialises its parameters from seed.
// A network for inference (train false) has no Backward and no Update. When ctx
// ends first, its cause is the error.
func New(ctx context.Context, e Engine, p *NetPlan, seed uint64, train bool) (*Network, error) {
	if train && p.kept != nil {
		return nil, errors.New("a part of a network cannot be trained")
	}
	if train {
		if err := p.CheckLearns(); err != nil {
			return nil, err
		}
	}
	t := p.tensors(train)
	all, err := e.Alloc(t.specs)
	if err != nil {
		return nil, err
	}
	pick := func(at int) *Tensor {
		if at < 0 {
			return nil
		}
		return all[at]
	}
	picks := func(at []int) []*Tensor {
		out := make([]*Tensor, len(at))
		for i, a := range at {
			out[i] = pick(a)
		}
		return out
	}
	n := &Network{engine: e, plan: p, seed: seed, train: train, norms: pick(t.norms), peaks: pick(t.peaks)}
	for i, l := range p.Layers {
		lt := t.layers[i]
		r := layerRun{LayerPlan: l, saved: picks(lt.saved), sums: picks(lt.add), backward: lt.backward, peaks: lt.peaks}
		_, r.loss = l.Layer.(Loss)
		r.none = make([]*Tensor, len(r.saved))
		r.frame = Frame{
			X: make([]*Tensor, len(l.inputs)), DX: picks(lt.dx),
			Y: pick(lt.y), DY: pick(lt.dy), W: picks(lt.w), DW: picks(lt.dw),
			Key: RandomKey{Seed: seed, Layer: hash(l.Name)},
		}
		for j, in := range l.inputs {
			if in >= 0 {
				r.frame.X[j] = pick(t.layers[in].y)
			}
		}
		for j, s := range l.Plan.Params {
			n.params = append(n.params, param{
				name: l.Name + "." + s.Name, layer: i, spec: s,
				w: pick(lt.w[j]), v: pick(lt.v[j]), dw: pick(lt.dw[j]), sum: pick(lt.sum[j]),
			})
		}
		n.layers = append(n.layers, r)
	}
	e.Begin(ctx)
	var host []float32
	for _, q := range n.params {
		host = slices.Grow(host[:0], q.w.Shape.Len())[:q.w.Shape.Len()]
		if err := q.spec.Init.fill(ctx, host, seed, q.name); err != nil {
			return nil, err
		}
		e.Upload(q.w, host)
	}
	if cap(host) > largeInit {
		host = nil
		debug.FreeOSMemory()
	}
	return n, e.Sync()
}

// largeInit is how many numbers initialising may leave behind in memory: the
// collector sees no need before the heap has doubled, which a network that is
// made never does.
const largeInit = 1 << 22

// Plan is what the network was made from.
func (n *Network) Plan() *NetPlan { return n.plan }

// NewInput makes one of the two places for batches.
func (n *Network) NewInput() (Input, error) {
	if n.plan.MeanFrom != "" && !n.plan.meanGiven {
		return nil, fmt.Errorf("the mean that is subtracted (mean: %s) was not given to the network", n.plan.MeanFrom)
	}
	return n.engine.NewInput(n.plan.Input)
}

// Forward begins a step of the engine (Engine.Begin) and computes the net on a
// loaded input. step keys dropout; train says whether to drop, and to keep what
// Backward needs. Errors of ops surface at Sync; an error here is the Input's.
func (n *Network) Forward(ctx context.Context, in Input, step int, train bool) error {
	if train && !n.train {
		return errors.New("the network was made for inference and cannot train")
	}
	x, labels, err := in.Tensors()
	if err != nil {
		return err
	}
	n.engine.Begin(ctx)
	n.loaded = in.N()
	for i := range n.layers {
		l := &n.layers[i]
		f := &l.frame
		for j, from := range l.inputs {
			if from < 0 {
				f.X[j] = x
			}
		}
		f.Saved = l.saved
		if !train && !l.loss {
			f.Saved = l.none
		}
		f.Labels, f.Train, f.Key.Step, f.Smoothing = labels, train, uint64(step), 0
		if train {
			f.Smoothing = n.smoothing
		}
		began := n.begins()
		l.Layer.Forward(n.engine, f)
		n.did(i, ForwardPass, began)
	}
	return nil
}

// Backward computes every gradient of the mean loss of the Forward before it,
// which must have been one that trains. ctx is that Forward's.
func (n *Network) Backward(ctx context.Context) {
	if !n.train || !n.layers[0].frame.Train {
		panic("net: Backward without a Forward that trains")
	}
	n.engine.Begin(ctx)
	for i := len(n.layers) - 1; i >= 0; i-- {
		l := &n.layers[i]
		if !l.backward {
			continue
		}
		began := n.begins()
		l.Layer.Backward(n.engine, &l.frame)
		for j, sum := range l.sums {
			if sum != nil {
				n.engine.Add(sum, sum, l.frame.DX[j])
			}
		}
		n.did(i, BackwardPass, began)
	}
}

// Update applies the paper's SGD rule to every parameter that is trained, with the gradients of
// the last Backward and the parameter's own multipliers.
func (n *Network) Update(s SGD) {
	if !n.train {
		panic("net: Update of a network made for inference")
	}
	for q := range n.trained() {
		began := n.begins()
		n.engine.SGD(q.w, q.v, q.dw, q.rule(s))
		n.did(q.layer, UpdatePass, began)
	}
	n.last = s
}

// rule is the solver's rule with the parameter's own multipliers.
func (q *param) rule(s SGD) SGD {
	s.LR *= q.spec.LR
	s.Decay *= q.spec.Decay
	return s
}

// Stats waits for the last Forward and sums its losses and hits over the rows
// loaded that have a label.
func (n *Network) Stats() (Stats, error) {
	l := &n.layers[len(n.layers)-1]
	if !l.loss {
		return Stats{}, errors.New("this part of the network has no loss")
	}
	for i, saved := range l.saved[:2] {
		n.rows[i] = resized(n.rows[i], saved.Shape.Len())
		n.engine.Download(n.rows[i], saved)
	}
	if err := n.engine.Sync(); err != nil {
		return Stats{}, err
	}
	var s Stats
	for i, rank := range n.rows[1][:n.loaded] {
		if int(rank) >= l.Plan.Out.C {
			continue // no label
		}
		s.Rows++
		s.Loss += float64(n.rows[0][i])
		if rank < 1 {
			s.Top1++
		}
		if rank < 5 {
			s.Top5++
		}
	}
	return s, nil
}

// Probabilities appends the first rows rows of the last Forward's softmax to dst.
// Errors surface at Sync.
func (n *Network) Probabilities(dst []float32, rows int) []float32 {
	y := n.layers[len(n.layers)-1].frame.Y
	n.prob = resized(n.prob, y.Shape.Len())
	n.engine.Download(n.prob, y)
	return append(dst, n.prob[:rows*y.Shape.Image()]...)
}

func resized(buf []float32, n int) []float32 { return slices.Grow(buf[:0], n)[:n] }

// Gradients copies the gradient of every parameter that is trained, as the last Backward left
// them, under the parameter's name and the role "gradient".
func (n *Network) Gradients() ([]NamedTensor, error) {
	if !n.train {
		return nil, errors.New("a network made for inference has no gradients")
	}
	var out []NamedTensor
	for q := range n.trained() {
		t := q.named("gradient", nil)
		n.engine.Download(t.Data, q.dw)
		out = append(out, t)
	}
	return out, n.engine.Sync()
}

func (q *param) dims() []int { return q.spec.Dims() }

// Dims is the parameter's shape in files: (out, in) for a dense weight, (n) for a
// bias.
func (p ParamSpec) Dims() []int {
	s := p.Shape
	switch p.Kind {
	case Matrix:
		return []int{s.N, s.Image()}
	case Vector:
		return []int{s.C}
	}
	return []int{s.N, s.C, s.H, s.W}
}

// named is a host tensor for the parameter, in data's memory if it fits.
func (q *param) named(role string, data []float32) NamedTensor {
	return NamedTensor{Name: q.name, Role: role, Dims: q.dims(), Data: resized(data, q.spec.Shape.Len())}
}

// Snapshot copies every weight (and after them every momentum there is, if asked) to
// the host, reusing the memory of dst.
func (n *Network) Snapshot(dst []NamedTensor, momentum bool) ([]NamedTensor, error) {
	if momentum && !n.train {
		return nil, errors.New("a network made for inference has no momentum")
	}
	old, dst := dst[:cap(dst)], dst[:0]
	take := func(q *param, role string, t *Tensor) {
		var data []float32
		if i := len(dst); i < len(old) {
			data = old[i].Data
		}
		named := q.named(role, data)
		n.engine.Download(named.Data, t)
		dst = append(dst, named)
	}
	for i := range n.params {
		take(&n.params[i], RoleWeight, n.params[i].w)
	}
	if t, ok := n.plan.meanTensor(); ok {
		if i := len(dst); i < len(old) && len(old[i].Data) == len(t.Data) {
			copy(old[i].Data, t.Data)
			t.Data = old[i].Data
		}
		dst = append(dst, t)
	}
	for i := range n.params {
		if momentum && n.params[i].v != nil {
			take(&n.params[i], RoleMomentum, n.params[i].v)
		}
	}
	return dst, n.engine.Sync()
}

// Load sets parameters by name and role ("" is a weight). Every weight must be
// given; momentum is given whole or not at all, and then left as it is. If a
// tensor is missing, unknown, given twice or of another shape, the error lists
// all of them and nothing is changed.
func (n *Network) Load(tensors []NamedTensor) error {
	want, err := match(n.params, n.plan, n.train, tensors)
	if err != nil {
		return err
	}
	// A network that trains was given its mean, and has inputs that subtract it.
	if !n.train {
		if err := n.plan.LoadMean(tensors); err != nil {
			return err
		}
	}
	for _, t := range tensors {
		switch {
		case n.plan.left[t.Name], t.Name == InputMeanName:
		case t.Role != RoleMomentum:
			n.engine.Upload(want[tensorKey{t.Name, RoleWeight}].w, t.Data)
		case n.train:
			n.engine.Upload(want[tensorKey{t.Name, RoleMomentum}].v, t.Data)
		}
	}
	return n.engine.Sync()
}

// CheckWeights is the error that Load of a network of this plan, made for
// inference, would give. It allocates nothing.
func (p *NetPlan) CheckWeights(tensors []NamedTensor) error {
	var params []param
	for _, l := range p.Layers {
		for _, s := range l.Plan.Params {
			params = append(params, param{name: l.Name + "." + s.Name, spec: s})
		}
	}
	_, err := match(params, p, false, tensors)
	return err
}

type tensorKey struct{ name, role string }

// match finds the parameter of every tensor.
func match(params []param, plan *NetPlan, train bool, tensors []NamedTensor) (map[tensorKey]*param, error) {
	want := map[tensorKey]*param{}
	momentum := slices.ContainsFunc(tensors, func(t NamedTensor) bool { return t.Role == RoleMomentum })
	for i := range params {
		q := &params[i]
		want[tensorKey{q.name, RoleWeight}] = q
		if momentum && q.v != nil {
			want[tensorKey{q.name, RoleMomentum}] = q
		}
	}
	given := map[tensorKey]bool{}
	var errs []error
	for _, t := range tensors {
		k := tensorKey{t.Name, t.Role}
		if k.role == "" {
			k.role = RoleWeight
		}
		q, ok := want[k]
		switch {
		case !ok && k.role == RoleMomentum && !train:
			// Inference has no use for it.
		case !ok && plan.left[t.Name]:
			// Of a layer that this part of the network leaves out.
		case !ok && t.Name == InputMeanName && plan.MeanFrom != "" && !given[k]:
		case !ok:
			errs = append(errs, fmt.Errorf("unknown tensor %q (%s)", t.Name, k.role))
		case given[k]:
			errs = append(errs, fmt.Errorf("tensor %q (%s) is given twice", t.Name, k.role))
		case !slices.Equal(t.Dims, q.dims()) || len(t.Data) != q.spec.Shape.Len():
			errs = append(errs, fmt.Errorf("tensor %q (%s) has shape %v with %d numbers, the network needs %v", t.Name, k.role, t.Dims, len(t.Data), q.dims()))
		}
		given[k] = true
	}
	if _, err := plan.findMean(tensors); err != nil {
		errs = append(errs, err)
	}
	var missing []string
	for _, q := range params {
		for _, role := range []string{RoleWeight, RoleMomentum} {
			if k := (tensorKey{q.name, role}); want[k] != nil && !given[k] {
				missing = append(missing, fmt.Sprintf("%q (%s)", q.name, role))
			}
		}
	}
	if len(missing) > 0 {
		errs = append(errs, fmt.Errorf("missing: %s", strings.Join(missing, ", ")))
	}
	return want, errors.Join(errs...)
}
