package gpu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"sluice/net"
	"sluice/pipeline"
	"sluice/pipeline/config"
)

func init() {
	pipeline.RegisterBatchStage("evaluate", "Measures loss and accuracy of trained weights over the line's images, without learning. The predictions of several files of weights are averaged, "+
		"and those of several pictures of an image (ten_crop). The sinks evaluation and pictures write the confusion matrix.",
		EvaluateOptions{Preprocessing: samePreprocessing, Device: Auto, Winograd: true, LogEvery: 10},
		func(o EvaluateOptions) (pipeline.BatchStage, error) { return NewEvaluate(o) })
}

// EvaluateOptions are the options of the evaluate stage.
type EvaluateOptions struct {
	Weights Files `yaml:"weights" config:"required" doc:"a safetensors file that a training run wrote, or a list of them, whose predictions are averaged; each says what its network and its classes are"`
	// Preprocessing is "same" or "any".
	Preprocessing string    `yaml:"preprocessing" doc:"same: refuse sample stages that are not those of the training's validation, ten_crop in the place of center_crop aside; any: take them"`
	Device        string    `yaml:"device" doc:"auto (cuda where there is one, else the CPU), cpu or cuda"`
	Precision     Precision `yaml:"precision" doc:"how numbers are held and multiplied: fp32 is 32-bit floats; tf32, of CUDA cards alone, rounds what convolutions and dense layers multiply to 10 bits, for tensor cores"`
	Winograd      bool      `yaml:"winograd" doc:"on the CPU, compute convolutions by Winograd's algorithm where it pays: faster, and rounded a little more"`
	LogEvery      int       `yaml:"log_every" doc:"batches between two metrics that tell how far it is"`
}

// Files are names of files. In YAML one name stands for a list of it.
type Files []string

// UnmarshalConfig reads a name or a list of names.
func (f *Files) UnmarshalConfig(d *config.Decoder, n *yaml.Node) {
	if n.Kind == yaml.SequenceNode {
		d.Decode(n, (*[]string)(f))
		return
	}
	var one string
	if d.Decode(n, &one) {
		*f = Files{one}
	}
}

// MarshalYAML gives the shorter form.
func (f Files) MarshalYAML() (any, error) {
	if len(f) == 1 {
		return f[0], nil
	}
	return []string(f), nil
}

// ConfigType says what the YAML takes.
func (Files) ConfigType() string { return "file, or list of files" }

// Evaluate is the stage that measures trained weights. It emits "progress" metrics,
// then one "validation" and one "done", with the epoch and step that the first
// weights are of, and an Evaluation batch if a sink takes it. Over the same images
// in the same batches one file of weights gives the numbers that training's own
// validation gave.
type Evaluate struct {
	opt  EvaluateOptions
	open openFunc

	began  time.Time
	nets   []evaluated // one a file
	engine net.Engine
	scorer *scorer
	done   int // batches
}

// evaluated is a network that is to be measured.
type evaluated struct {
	file   string
	about  about
	plan   *net.NetPlan
	labels []int32 // its number of the source's classes
	order  []int32 // its output that stands for a class of the first file, nil if it is the same
}

// NewEvaluate makes the evaluate stage.
func NewEvaluate(o EvaluateOptions) (*Evaluate, error) {
	var errs []error
	if len(o.Weights) == 0 || slices.Contains(o.Weights, "") {
		errs = append(errs, config.Fieldf("weights", "is empty: name the safetensors file of a training run, as runs/NAME/weights.safetensors"))
	}
	if o.LogEvery < 1 {
		errs = append(errs, config.Fieldf("log_every", "must be at least 1, is %d", o.LogEvery))
	}
	if err := errors.Join(append(errs, checkPreprocessing(o.Preprocessing), checkDevice(o.Device))...); err != nil {
		return nil, err
	}
	return &Evaluate{opt: o, open: Open}, nil
}

// Holds is two: the batch that is loaded and the one that computes.
func (v *Evaluate) Holds() int { return 2 }

func (v *Evaluate) newEngine(env *pipeline.Env) (net.Engine, error) {
	e, err := v.open(v.opt.Device, env.Threads, winograd(v.opt.Winograd))
	return opened(env, v.opt.Precision, e, err)
}

// Plan reads what the weights say about themselves and lays their networks out
// for the line's batches.
func (v *Evaluate) Plan(env *pipeline.Env) (pipeline.Plan, error) {
	v.nets = nil
	for _, file := range v.opt.Weights {
		n, err := v.read(env, file)
		if err != nil {
			return pipeline.Plan{}, err
		}
		v.nets = append(v.nets, n)
	}
	e, err := v.newEngine(env)
	if err != nil {
		return pipeline.Plan{}, err
	}
	plan := pipeline.Plan{Epochs: 1}
	for _, n := range v.nets {
		name, heading := "", ""
		if len(v.nets) > 1 {
			name, heading = n.file+": ", n.file+"\n"
		}
		for _, m := range memoryTable(e, n.plan, false) {
			plan.Memory = append(plan.Memory, pipeline.Memory{Name: name + m.Name, Bytes: m.Bytes})
		}
		plan.Text += heading + table(n.plan, e.Name())
	}
	return plan, e.Close()
}

// read is what a file says about itself, held to the line and to the first file.
func (v *Evaluate) read(env *pipeline.Env, file string) (n evaluated, err error) {
	n.file = file
	if n.about, err = readAbout(file); err != nil {
		return n, err
	}
	if err := n.about.checkImages(env, file, v.opt.Preprocessing); err != nil {
		return n, err
	}
	classes := n.about.Classes
	if n.labels, err = mapClasses(env.Classes, classes); err != nil {
		return n, fmt.Errorf("%w (weights: %s)", err, file)
	}
	if n.plan, err = n.about.Net.Plan(env.BatchSize, env.Frame.H, env.Frame.W, len(classes)); err == nil {
		err = checkWidth(n.plan, classes)
	}
	if err != nil {
		return n, fmt.Errorf("the network in %s: %w", file, err)
	}
	if len(v.nets) == 0 || slices.Equal(classes, v.nets[0].about.Classes) {
		return n, nil
	}
	first := v.nets[0].about.Classes
	if len(classes) == len(first) {
		n.order, err = mapClasses(first, classes)
	} else {
		err = fmt.Errorf("it has %d classes, and those before have %d", len(classes), len(first))
	}
	if err != nil {
		return n, fmt.Errorf("%s and %s cannot be averaged: %w", v.nets[0].file, file, err)
	}
	return n, nil
}

// Prepare allocates the networks and loads the weights.
func (v *Evaluate) Prepare(ctx context.Context, env *pipeline.Env) error {
	if v.nets == nil {
		if _, err := v.Plan(env); err != nil {
			return err
		}
	}
	v.began = time.Now()
	var err error
	if v.engine, err = v.newEngine(env); err != nil {
		return err
	}
	v.scorer = &scorer{engine: v.engine}
	v.scorer.meter.begin()
	if accepts(env, pipeline.Evaluation) {
		v.scorer.counts = map[cell]outcome{}
	}
	for _, of := range v.nets {
		m, err := v.load(ctx, of)
		if err != nil {
			return err
		}
		traced(env, v.engine, m.net, m.feed)
		v.scorer.members = append(v.scorer.members, m)
	}
	return nil
}

func (v *Evaluate) load(ctx context.Context, of evaluated) (m member, err error) {
	tensors, err := readWeights(of.file)
	if err != nil {
		return m, err
	}
	if m.net, err = net.New(ctx, v.engine, of.plan, 0, false); err != nil {
		return m, err
	}
	if err := m.net.Load(tensors); err != nil {
		return m, fmt.Errorf("%s: %w", of.file, err)
	}
	if m.feed, err = newFeed("evaluate", m.net, of.about.Classes); err != nil {
		return m, err
	}
	m.feed.labels, m.order = of.labels, of.order
	return m, nil
}

// Process begins to load b and meanwhile computes the batch before it.
func (v *Evaluate) Process(ctx context.Context, b *pipeline.Batch, emit pipeline.Emit) error {
	if err := v.scorer.Process(ctx, b, emit); err != nil {
		return err
	}
	if v.scorer.meter.window.steps < v.opt.LogEvery {
		return nil
	}
	window := v.scorer.meter.cut()
	v.done += window.steps
	row := window.metric("progress")
	row.Epoch, row.Step = b.Epoch, v.done
	return v.scorer.meter.emit(emit, row)
}

// Flush computes the last batch and emits the result.
func (v *Evaluate) Flush(ctx context.Context, emit pipeline.Emit) error {
	if err := v.scorer.Flush(ctx, emit); err != nil {
		return err
	}
	row, err := v.scorer.result()
	if err != nil {
		return err
	}
	first := v.nets[0].about
	if v.scorer.counts != nil {
		rec := pipeline.OutcomesRecord(v.scorer.outcomes(first.Classes)...)
		if err := emit(&pipeline.Batch{Kind: pipeline.Evaluation, Epoch: first.Epoch, Step: first.Step, Record: rec}); err != nil {
			return err
		}
	}
	row.Epoch, row.Step, row.Seconds = first.Epoch, first.Step, time.Since(v.began).Seconds()
	if err := emit(metricBatch(row)); err != nil {
		return err
	}
	row.Event, row.Seconds = "done", time.Since(v.began).Seconds()
	return emit(metricBatch(row))
}

// Close gives everything back, after success and after failure alike.
func (v *Evaluate) Close() error {
	var errs []error
	if v.scorer != nil {
		errs = append(errs, v.scorer.close())
	}
	if v.engine != nil {
		errs = append(errs, v.engine.Close())
	}
	v.scorer, v.engine = nil, nil
	return errors.Join(errs...)
}

// mapClasses numbers the source's classes as the weights do.
func mapClasses(source, weights []string) ([]int32, error) {
	if len(source) == 0 {
		return nil, errors.New("evaluation needs labels, and the source knows no classes: put the images into one folder a class, or list them with their labels")
	}
	labels := make([]int32, len(source))
	for i, name := range source {
		j := slices.Index(weights, name)
		if j < 0 {
			return nil, fmt.Errorf("class %q of the source is none of the %d that the weights know (%s)", name, len(weights), few(weights))
		}
		labels[i] = int32(j)
	}
	return labels, nil
}
