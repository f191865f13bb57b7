package gpu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"sluice/net"
	"sluice/pipeline"
)

// Profile is where the time of a network's step goes, on random images that are in
// place. Times are medians over Steps steps, in milliseconds.
type Profile struct {
	Network string `json:"network"` // the stage, or the file of its weights
	Engine  string `json:"engine"`
	Train   bool   `json:"train"` // forward, backward and update; else forward alone
	Batch   int    `json:"batch"`
	Steps   int    `json:"steps"`
	// Peak is the most that the engine could do at the time, in GFLOP/s; 0 where it
	// cannot tell.
	Peak float64 `json:"peak_gflops,omitempty"`
	// Load is how long it takes to load a batch (to convert or copy it), which a run
	// does while the batch before computes.
	Load float64 `json:"load_ms"`
	// Step is a whole step, not watched.
	Step            float64     `json:"step_ms"`
	ImagesPerSecond float64     `json:"images_per_second"`
	GFLOPS          float64     `json:"gflops"` // of the whole step
	Layers          []LayerTime `json:"layers"`
}

// LayerTime is one layer's part of a step that is watched.
type LayerTime struct {
	Name     string  `json:"name"`
	Type     string  `json:"type"`
	Forward  float64 `json:"forward_ms"`
	Backward float64 `json:"backward_ms"`
	Update   float64 `json:"update_ms"`
	GFLOPS   float64 `json:"gflops,omitempty"` // of forward and backward; 0 for a layer without products
	Share    float64 `json:"share"`            // of the sum over all layers
}

// Total is the layer's time.
func (l LayerTime) Total() float64 { return l.Forward + l.Backward + l.Update }

// A subject is a network that a stage computes.
type subject struct {
	name  string
	plan  *net.NetPlan
	train bool
}

// profiled is a stage whose networks can be measured, after Plan.
type profiled interface {
	newEngine(env *pipeline.Env) (net.Engine, error)
	subjects() ([]subject, error)
}

func (t *Train) subjects() ([]subject, error) {
	if t.mean != nil {
		if err := t.plan.SetMean(t.mean); err != nil {
			return nil, err
		}
	}
	return []subject{{"train", t.plan, true}}, nil
}

func (v *Evaluate) subjects() ([]subject, error) {
	var list []subject
	for _, n := range v.nets {
		list = append(list, subject{n.file, n.plan, false})
	}
	return list, nil
}

func (x *Extract) subjects() ([]subject, error) {
	return []subject{{x.opt.Weights, x.plan, false}}, nil
}

// HasNetwork reports whether a stage has networks that Measure can measure.
func HasNetwork(s pipeline.BatchStage) bool {
	_, ok := s.(profiled)
	return ok
}

// Measure times steps of every network of a stage, which was planned for env's
// batches, each with new weights: what the numbers are does not change the time.
func Measure(ctx context.Context, s pipeline.BatchStage, env *pipeline.Env, steps int) ([]Profile, error) {
	p, ok := s.(profiled)
	if !ok {
		return nil, fmt.Errorf("a %T has no network", s)
	}
	list, err := p.subjects()
	if err != nil {
		return nil, err
	}
	var all []Profile
	for _, sub := range list {
		e, err := p.newEngine(env)
		if err != nil {
			return nil, err
		}
		one, err := measure(ctx, e, sub, steps)
		if err := errors.Join(err, e.Close()); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

func measure(ctx context.Context, e net.Engine, sub subject, steps int) (Profile, error) {
	plan := sub.plan
	p := Profile{Network: sub.name, Engine: e.Name(), Train: sub.train, Batch: plan.Input.N, Steps: steps}
	n, err := net.New(ctx, e, plan, 1, sub.train)
	if err != nil {
		return p, err
	}
	in, err := n.NewInput()
	if err != nil {
		return p, err
	}
	defer in.Close()
	batch := randomBatch(plan)
	step := func(number int) error {
		if err := n.Forward(ctx, in, number, sub.train); err != nil {
			return err
		}
		if sub.train {
			n.Backward(ctx)
			n.Update(net.SGD{LR: 1e-6, Momentum: 0.9, Decay: 0.0005})
		}
		return e.Sync()
	}

	// The first step allocates, so it is not measured.
	loads, whole := make([]float64, steps+1), make([]float64, steps+1)
	for i := range steps + 1 {
		start := time.Now()
		if err := in.Load(batch); err != nil {
			return p, err
		}
		if _, _, err := in.Tensors(); err != nil {
			return p, err
		}
		loads[i], start = since(start), time.Now()
		if err := step(i); err != nil {
			return p, err
		}
		whole[i] = since(start)
	}
	p.Load, p.Step = median(loads[1:]), median(whole[1:])
	p.Peak = peak(e)

	type part struct {
		layer int
		pass  net.Pass
	}
	times := map[part][]float64{}
	for i := range steps {
		n.Watch(func(layer int, pass net.Pass, began time.Time) {
			t := times[part{layer, pass}]
			if len(t) == i {
				t = append(t, 0)
			}
			t[i] += since(began)
			times[part{layer, pass}] = t
		})
		if err := step(steps + 1 + i); err != nil {
			return p, err
		}
	}
	p.Peak = max(p.Peak, peak(e)) // it only ever measures too little

	sum, flops := 0.0, 0.0
	for i, w := range plan.Work(sub.train) {
		l := LayerTime{
			Name: plan.Layers[i].Name, Type: plan.Layers[i].Type,
			Forward: median(times[part{i, net.ForwardPass}]), Backward: median(times[part{i, net.BackwardPass}]), Update: median(times[part{i, net.UpdatePass}]),
		}
		work := 2 * float64(w.Forward+w.Backward)
		if passes := l.Forward + l.Backward; work > 0 && passes > 0 {
			l.GFLOPS = work / passes / 1e6
		}
		flops += work
		sum += l.Total()
		p.Layers = append(p.Layers, l)
	}
	for i := range p.Layers {
		p.Layers[i].Share = p.Layers[i].Total() / cmp.Or(sum, 1)
	}
	p.ImagesPerSecond, p.GFLOPS = float64(p.Batch)/p.Step*1e3, flops/p.Step/1e6
	return p, nil
}

func since(t time.Time) float64 { return time.Since(t).Seconds() * 1e3 }

// peak asks an engine what it could do at most, in GFLOP/s.
func peak(e net.Engine) float64 {
	if p, ok := e.(interface{ Peak() float64 }); ok {
		return p.Peak()
	}
	return 0
}

// median is 0 of nothing.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// randomBatch is noise, with labels of every class in turn.
func randomBatch(plan *net.NetPlan) net.ImageBatch {
	s := plan.Input
	b := net.ImageBatch{N: s.N, Pixels: make([]byte, s.N*s.H*s.W*3), Labels: make([]int32, s.N), Origin: make([]int32, 2*s.N)}
	r := rand.New(rand.NewPCG(1, 1))
	for i := range b.Pixels {
		b.Pixels[i] = byte(r.Uint32())
	}
	last := plan.Layers[len(plan.Layers)-1]
	if _, ok := last.Layer.(net.Loss); ok {
		for i := range b.Labels {
			b.Labels[i] = int32(i % last.Plan.Out.C)
		}
	}
	return b
}
