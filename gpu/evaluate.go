package gpu

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"sluice/net"
	"sluice/pipeline"
	"sluice/pipeline/config"
)

func init() {
	pipeline.RegisterBatchStage("evaluate", "Measures loss and accuracy of trained weights over the line's images, without learning.",
		EvaluateOptions{Preprocessing: samePreprocessing, Device: Auto},
		func(o EvaluateOptions) (pipeline.BatchStage, error) { return NewEvaluate(o) })
}

// EvaluateOptions are the options of the evaluate stage.
type EvaluateOptions struct {
	Weights string `yaml:"weights" config:"required" doc:"a safetensors file that a training run wrote; it says what the network and its classes are"`
	// Preprocessing is "same" or "any".
	Preprocessing string `yaml:"preprocessing" doc:"same: refuse sample stages that are not those of the training's validation; any: take them"`
	Device        string `yaml:"device" doc:"auto (cuda where there is one, else the CPU), cpu or cuda"`
}

// Evaluate is the stage that measures trained weights. It emits one "validation"
// and one "done" metric, with the epoch and step that the weights are of. Over
// the same images in the same batches it gives the numbers that training's own
// validation gave.
type Evaluate struct {
	opt  EvaluateOptions
	open func(device string, threads int) (net.Engine, error)

	began  time.Time
	plan   *net.NetPlan
	about  about
	labels []int32
	engine net.Engine
	scorer *scorer
}

// NewEvaluate makes the evaluate stage.
func NewEvaluate(o EvaluateOptions) (*Evaluate, error) {
	if o.Weights == "" {
		return nil, config.Fieldf("weights", "is empty: name the safetensors file of a training run, as runs/NAME/weights.safetensors")
	}
	if err := errors.Join(checkPreprocessing(o.Preprocessing), checkDevice(o.Device)); err != nil {
		return nil, err
	}
	return &Evaluate{opt: o, open: Open}, nil
}

// Holds is two: the batch that is loaded and the one that computes.
func (v *Evaluate) Holds() int { return 2 }

// Plan reads what the weights say about themselves and lays their network out
// for the line's batches.
func (v *Evaluate) Plan(env *pipeline.Env) (pipeline.Plan, error) {
	a, err := readAbout(v.opt.Weights)
	if err != nil {
		return pipeline.Plan{}, err
	}
	if err := a.checkImages(env, v.opt.Weights, v.opt.Preprocessing); err != nil {
		return pipeline.Plan{}, err
	}
	labels, err := mapClasses(env.Classes, a.Classes)
	if err != nil {
		return pipeline.Plan{}, fmt.Errorf("%w (weights: %s)", err, v.opt.Weights)
	}
	plan, err := a.Net.Plan(env.BatchSize, env.Frame.H, env.Frame.W, len(a.Classes))
	if err == nil {
		err = checkWidth(plan, a.Classes)
	}
	if err != nil {
		return pipeline.Plan{}, fmt.Errorf("the network in %s: %w", v.opt.Weights, err)
	}
	v.plan, v.about, v.labels = plan, a, labels

	e, err := v.open(v.opt.Device, env.Threads)
	if err != nil {
		return pipeline.Plan{}, err
	}
	return pipeline.Plan{Epochs: 1, Memory: memoryTable(e, plan, false), Text: table(plan, e.Name())}, e.Close()
}

// Prepare allocates the network and loads the weights.
func (v *Evaluate) Prepare(ctx context.Context, env *pipeline.Env) error {
	if v.plan == nil {
		if _, err := v.Plan(env); err != nil {
			return err
		}
	}
	v.began = time.Now()
	tensors, err := readWeights(v.opt.Weights)
	if err != nil {
		return err
	}
	if v.engine, err = v.open(v.opt.Device, env.Threads); err != nil {
		return err
	}
	n, err := net.New(ctx, v.engine, v.plan, 0, false)
	if err != nil {
		return err
	}
	if err := n.Load(tensors); err != nil {
		return fmt.Errorf("%s: %w", v.opt.Weights, err)
	}
	f, err := newFeed("evaluate", n, v.about.Classes)
	if err != nil {
		return err
	}
	f.labels = v.labels
	v.scorer = newScorer(v.engine, n, f)
	return nil
}

// Process begins to load b and meanwhile computes the batch before it.
func (v *Evaluate) Process(ctx context.Context, b *pipeline.Batch, emit pipeline.Emit) error {
	return v.scorer.Process(ctx, b, emit)
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
	row.Epoch, row.Step, row.Seconds = v.about.Epoch, v.about.Step, time.Since(v.began).Seconds()
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
		errs = append(errs, v.scorer.feed.close())
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

// scorer computes a network forward over batches and sums what comes out. It is
// the whole of evaluate and the validation within train, which lends it its
// network and inputs.
type scorer struct {
	engine net.Engine
	net    *net.Network
	feed   *feed
	meter  meter
	sum    span
}

func newScorer(e net.Engine, n *net.Network, f *feed) *scorer {
	return &scorer{engine: e, net: n, feed: f}
}

func (s *scorer) Holds() int { return 2 }

func (s *scorer) Process(ctx context.Context, b *pipeline.Batch, _ pipeline.Emit) error {
	s.meter.enter()
	defer s.meter.leave()
	last := s.feed.take()
	if err := s.feed.load(b); err != nil {
		return err
	}
	return s.compute(ctx, last)
}

func (s *scorer) Flush(ctx context.Context, _ pipeline.Emit) error {
	s.meter.enter()
	err := s.compute(ctx, s.feed.take())
	s.sum = s.meter.cut()
	return err
}

func (s *scorer) compute(ctx context.Context, p *loaded) error {
	if p == nil {
		return nil
	}
	if err := s.net.Forward(ctx, p.Input, p.step, false); err != nil {
		return err
	}
	if err := s.engine.Sync(); err != nil {
		return err
	}
	stats, err := s.net.Stats()
	if err != nil {
		return err
	}
	s.meter.step(stats)
	return nil
}

// result gives the averages, after Flush.
func (s *scorer) result() (pipeline.Metric, error) {
	if s.sum.stats.Rows == 0 {
		return pipeline.Metric{}, errors.New("no image was left to measure")
	}
	row := s.sum.metric("validation")
	if math.IsNaN(row.Loss) || math.IsInf(row.Loss, 0) {
		return row, fmt.Errorf("the loss is %g: the network has diverged; train it with a lower solver.lr", row.Loss)
	}
	return row, nil
}
