package gpu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"time"

	"sluice/net"
	"sluice/pipeline"
	"sluice/pipeline/config"
)

func init() {
	pipeline.RegisterBatchStage("train", "Trains a network by stochastic gradient descent with momentum (the paper's rule): loads one batch while it computes the one before.",
		TrainOptions{Device: Auto, Winograd: true, Solver: net.DefaultSolver(), LogEvery: 10, ValidateEvery: 1, EarlyStop: EarlyStop{Threshold: 0.001}, Watch: DefaultWatch()},
		func(o TrainOptions) (pipeline.BatchStage, error) { return NewTrain(o) })
}

// TrainOptions are the options of the train stage.
type TrainOptions struct {
	Net           net.Def    `yaml:"net" config:"required" doc:"a preset (alexnet), a preset with options, or {input, layers}; its last layer is as wide as there are classes"`
	Epochs        int        `yaml:"epochs" config:"required" doc:"how many times every image is learnt from"`
	Device        string     `yaml:"device" doc:"auto (cuda where there is one, else the CPU), cpu or cuda"`
	Precision     Precision  `yaml:"precision" doc:"how numbers are held and multiplied: fp32 is 32-bit floats; tf32, of CUDA cards alone, rounds what convolutions and dense layers multiply to 10 bits, for tensor cores"`
	Winograd      bool       `yaml:"winograd" doc:"on the CPU, compute convolutions by Winograd's algorithm where it pays: faster, and rounded a little more"`
	Solver        net.Solver `yaml:"solver" doc:"lr, momentum, weight_decay, schedule, and what is done with gradients"`
	LogEvery      int        `yaml:"log_every" doc:"steps that a step metric averages; an epoch's last steps get one of their own"`
	InitFrom      InitFrom   `yaml:"init_from,omitempty" doc:"a file of weights to begin with: FILE, or {file, layers}"`
	EarlyStop     EarlyStop  `yaml:"early_stop" doc:"end the run when it learns no more"`
	Watch         Watch      `yaml:"watch" doc:"look after the run, and say when it is lost"`
	ValidateEvery int        `yaml:"validate_every" doc:"epochs between validations; the last epoch is always validated, 0 validates only it"`
}

// Train is the stage that learns. It holds up to two batches: one that is loaded
// and one that computes. It emits
//
//   - Metrics "step" every LogEvery steps and at the end of an epoch: averages of
//     the steps since the one before, never over two epochs;
//   - Metrics "layer" for each layer every Watch.Every steps, and "warning" or
//     "lost" when something is wrong with the run, which Env.Warn is told too;
//   - Metrics "validation" after an epoch, if the run has a validation;
//   - Weights after each epoch, if a sink takes them;
//   - Checkpoint as often as the sink for them says, at the end, and when the run
//     is ended early;
//   - Metrics "done", last of all: the last validation's loss and accuracy (the
//     last epoch's training averages if the run has none) and the whole run's
//     throughput.
//
// A run that is resumed (Resume) goes on from the newest whole checkpoint, to the
// same bits.
//
// A step is one batch. With Solver.Accumulate the weights change only after so many,
// and at the end of an epoch; a checkpoint is always of the last change, and the batches
// after it come again. An update is all or nothing: it may be cancelled until every
// gradient is known, and not from then on.
type Train struct {
	opt  TrainOptions
	open openFunc

	env    *pipeline.Env
	plan   *net.NetPlan
	mean   *net.MeanImage // where the network's YAML does not have it in numbers
	engine net.Engine
	net    *net.Network
	feed   *feed
	sched  net.Schedule
	lr     float64 // of the last step

	meter    meter
	done     int // steps
	snapshot *net.Snapshot
	result   pipeline.Metric // of the last epoch that is done with
	stall    stall
	watched  watched
	pending  int      // batches since the last update
	names    []string // of their images

	start    *start      // what to take from InitFrom's file; nil for nothing
	restored *checkpoint // of a run that is resumed, until Prepare
	config   []string    // what changes the numbers, for checkpoints
	schedule []byte      // its state, as JSON
	mark     mark        // after the last whole step, or the end of its epoch
	whole    bool        // the weights are those of mark
	saved    mark        // of the last checkpoint
	savedAt  time.Time
}

// maxEpochs keeps the number of all steps below 2^63.
const maxEpochs = 1_000_000_000

// NewTrain makes the train stage; mistakes in the options are errors.
func NewTrain(o TrainOptions) (*Train, error) {
	var errs []error
	if o.Epochs < 1 || o.Epochs > maxEpochs {
		errs = append(errs, config.Fieldf("epochs", "must be from 1 to %d, is %d", maxEpochs, o.Epochs))
	}
	if o.LogEvery < 1 {
		errs = append(errs, config.Fieldf("log_every", "must be at least 1, is %d", o.LogEvery))
	}
	if o.ValidateEvery < 0 {
		errs = append(errs, config.Fieldf("validate_every", "must be at least 0, is %d", o.ValidateEvery))
	}
	errs = append(errs, checkDevice(o.Device), o.Solver.Check(), o.EarlyStop.check(), o.Watch.check(), o.InitFrom.check())
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Train{opt: o, open: Open}, nil
}

func (t *Train) newEngine(env *pipeline.Env) (net.Engine, error) {
	e, err := t.open(t.opt.Device, env.Threads, winograd(t.opt.Winograd))
	return opened(env, t.opt.Precision, e, err)
}

// Holds is two: the batch that is loaded and the one that computes.
func (t *Train) Holds() int { return 2 }

// Plan lays the network out for the line's batches. It opens the engine only to
// ask how much memory that would take.
func (t *Train) Plan(env *pipeline.Env) (pipeline.Plan, error) {
	var errs []error
	switch len(env.Classes) {
	case 0:
		errs = append(errs, errors.New("training needs labels, and the source knows no classes: put the images into one folder a class, or list them with their labels"))
	case 1:
		errs = append(errs, fmt.Errorf("training needs two classes or more, and the source has only %q", env.Classes[0]))
	}
	if env.ValidationBatch > env.BatchSize {
		errs = append(errs, fmt.Errorf("validation batches of %d do not fit the network, which is made for batches of %d: set validate.batch.size to at most that",
			env.ValidationBatch, env.BatchSize))
	}
	plan, err := t.opt.Net.Plan(env.BatchSize, env.Frame.H, env.Frame.W, len(env.Classes))
	if err != nil {
		return pipeline.Plan{}, errors.Join(append(errs, err)...)
	}
	if err := errors.Join(append(errs, checkWidth(plan, env.Classes), t.planMean(env))...); err != nil {
		return pipeline.Plan{}, err
	}
	if t.start, err = t.opt.InitFrom.plan(plan, env); err != nil {
		return pipeline.Plan{}, err
	}
	if err := plan.CheckLearns(); err != nil {
		return pipeline.Plan{}, err
	}
	plan.Accumulate = t.opt.Solver.Accumulate > 1
	t.plan = plan

	e, err := t.newEngine(env)
	if err != nil {
		return pipeline.Plan{}, err
	}
	mem := memoryTable(e, plan, true)
	switch {
	case env.Checkpoints != nil:
		mem = append(mem, pipeline.Memory{Name: "copy of the weights and momentum for the sinks", Bytes: 4 * int64(plan.Params+plan.Trained())})
	case accepts(env, pipeline.Weights):
		mem = append(mem, pipeline.Memory{Name: "copy of the weights for the sinks", Bytes: 4 * int64(plan.Params)})
	}
	return pipeline.Plan{
		Epochs: t.opt.Epochs, Train: true, Memory: mem, Text: table(plan, e.Name()) + t.start.text(),
	}, e.Close()
}

// Prepare allocates and initialises the network.
func (t *Train) Prepare(ctx context.Context, env *pipeline.Env) error {
	if t.plan == nil {
		if _, err := t.Plan(env); err != nil {
			return err
		}
	}
	t.env = env
	t.meter.begin()
	t.sched = t.opt.Solver.Start(net.Horizon{Epochs: env.Epochs, StepsPerEpoch: env.StepsPerEpoch})
	var err error
	if t.engine, err = t.newEngine(env); err != nil {
		return err
	}
	if t.mean != nil {
		if err := t.plan.SetMean(t.mean); err != nil {
			return err
		}
	}
	if t.net, err = net.New(ctx, t.engine, t.plan, env.Seed, true); err != nil {
		return err
	}
	t.net.SmoothLabels(float32(t.opt.Solver.LabelSmoothing))
	if t.feed, err = newFeed("train", t.net, env.Classes); err != nil {
		return err
	}
	traced(env, t.engine, t.net, t.feed)
	if accepts(env, pipeline.Weights) || env.Checkpoints != nil {
		if t.snapshot, err = t.net.NewSnapshot(env.Checkpoints != nil); err != nil {
			return err
		}
	}
	if t.config, err = t.numbers(env); err != nil {
		return err
	}
	if t.schedule, err = json.Marshal(t.sched); err != nil {
		return fmt.Errorf("the state of the schedule: %w", err)
	}
	t.savedAt = time.Now()
	if c := t.restored; c != nil {
		t.restored = nil
		if err := t.load(c); err != nil {
			return err
		}
		debug.FreeOSMemory() // what was read is as large as the network's parameters
		return nil
	}
	if t.start == nil {
		return nil
	}
	if err := t.start.load(t.net); err != nil {
		return err
	}
	if env.Warn != nil {
		env.Warn(t.start.sentence())
	}
	debug.FreeOSMemory()
	return nil
}

// Process begins to load b and meanwhile computes the batch before it.
func (t *Train) Process(ctx context.Context, b *pipeline.Batch, emit pipeline.Emit) error {
	t.meter.enter()
	defer t.meter.leave()
	if err := t.log(t.mark.Cursor.Epoch, emit); err != nil { // of the step before a resumed run
		return err
	}
	if t.ended() { // resumed after its end
		return pipeline.ErrEnough
	}
	last := t.feed.take()
	if last != nil && last.epoch != b.Epoch {
		// Validation needs both inputs, so b is loaded after it.
		if err := t.step(ctx, last, true, emit); err != nil {
			return err
		}
		last = nil
	}
	if at := t.mark.Cursor; t.mark.Open && at.Epoch != b.Epoch {
		if err := t.endEpoch(ctx, at.Epoch, false, emit); err != nil {
			return err
		}
		if t.ended() {
			return pipeline.ErrEnough
		}
	}
	if err := t.feed.load(b); err != nil {
		return err
	}
	if last == nil {
		return nil
	}
	return t.step(ctx, last, false, emit)
}

// Flush computes the last batch and ends the run.
func (t *Train) Flush(ctx context.Context, emit pipeline.Emit) error {
	t.meter.enter()
	if err := t.log(t.mark.Cursor.Epoch, emit); err != nil {
		return err
	}
	bounded := t.env.StopAfter > 0
	if last := t.feed.take(); last != nil {
		bounded = bounded && t.done+1 >= t.env.StopAfter
		if err := t.step(ctx, last, !bounded, emit); err != nil {
			return err
		}
	}
	switch {
	case t.done == 0:
		return errors.New("no batch came to learn from: the dataset is smaller than one batch; set batch.size lower")
	case t.mark.Step == 0:
		return fmt.Errorf("the run was ended after %d steps, and the weights change only after %d: run more steps, or set solver.accumulate lower", t.done, t.opt.Solver.Accumulate)
	}
	// An epoch that was cut short by the bound on steps can be gone on with, so the
	// checkpoint is of its last step.
	if t.cut() && t.mark.Open && t.mark.Step != t.saved.Step {
		if err := t.checkpoint(ctx, emit); err != nil {
			return err
		}
	}
	epoch := t.mark.epoch()
	if t.mark.Open {
		if err := t.endEpoch(ctx, epoch, true, emit); err != nil {
			return err
		}
	}
	row := t.meter.run.metric("done")
	row.Loss, row.Top1, row.Top5 = t.result.Loss, t.result.Top1, t.result.Top5
	return t.emit(emit, epoch, row)
}

// cut reports whether the bound on steps has ended the run.
func (t *Train) cut() bool { return t.env.StopAfter > 0 && t.done >= t.env.StopAfter }

// Close gives everything back, after success and after failure alike.
func (t *Train) Close() error {
	var errs []error
	if t.feed != nil {
		errs = append(errs, t.feed.close())
	}
	if t.engine != nil {
		errs = append(errs, t.engine.Close())
	}
	t.feed, t.engine = nil, nil
	return errors.Join(errs...)
}

// ended reports whether the run has been ended early.
func (t *Train) ended() bool { return !t.mark.Open && t.stall.enough(t.opt.EarlyStop) }

// step learns from one batch, the last of its epoch or not.
func (t *Train) step(ctx context.Context, p *loaded, last bool, emit pipeline.Emit) error {
	defer traceSpan(t.env, "train", "step", p.step)()
	s := t.opt.Solver
	t.lr = t.sched.LR(p.step)
	t.names = append(t.names, p.names...)
	t.pending++
	update := t.pending >= s.Accumulate || last
	look := update && crosses(t.mark.Step, t.done+1, t.opt.Watch.Every)
	if err := t.net.Forward(ctx, p.Input, p.step, true); err != nil {
		return at(ctx, p, err)
	}
	if look {
		t.net.Peaks()
	}
	t.net.Backward(ctx)
	if err := t.engine.Sync(); err != nil {
		return at(ctx, p, err)
	}
	stats, err := t.net.Stats()
	if err != nil {
		return at(ctx, p, err)
	}
	if mean := stats.Loss / float64(stats.Rows); math.IsNaN(mean) || math.IsInf(mean, 0) {
		return t.lost(ctx, p, fmt.Sprintf("the loss is %g", mean), emit)
	}
	if s.Accumulate > 1 {
		t.net.Accumulate()
	}
	if !update {
		t.done++
		t.meter.step(stats)
		t.watched.learn(stats, t.opt.Watch, len(t.env.Classes))
		return t.log(p.epoch, emit)
	}
	if s.Accumulate > 1 {
		t.net.Average()
	}
	norm, bad, err := t.net.GradientNorm()
	if err != nil {
		return at(ctx, p, err)
	}
	if bad != "" {
		return t.lost(ctx, p, fmt.Sprintf("the loss is still %.4g, but the gradient of %s is not finite", stats.Loss/float64(stats.Rows), bad), emit)
	}
	if by := clip(norm, s.ClipNorm); by < 1 || s.ClipValue > 0 {
		t.net.ScaleGradients(by, float32(s.ClipValue))
		if err := t.engine.Sync(); err != nil {
			return at(ctx, p, err)
		}
	}
	t.whole = false
	// Never half an update: cancelled weights are of no step at all.
	t.engine.Begin(context.WithoutCancel(ctx))
	t.net.Update(net.SGD{LR: float32(t.lr), Momentum: float32(s.Momentum), Decay: float32(s.WeightDecay), Form: s.Form})
	if err := t.engine.Sync(); err != nil {
		return at(ctx, p, err)
	}
	t.done++
	t.pending, t.names = 0, t.names[:0]
	t.meter.step(stats)
	t.meter.update(norm)
	t.watched.learn(stats, t.opt.Watch, len(t.env.Classes))
	if look {
		if err := t.look(); err != nil {
			return at(ctx, p, err)
		}
	}
	t.mark, t.whole = t.now(p.cursor, true), true
	if err := t.log(p.epoch, emit); err != nil {
		return err
	}
	if t.due() {
		return t.checkpoint(ctx, emit)
	}
	return nil
}

// clip is what a gradient of that norm is multiplied by; most 0 is no bound.
func clip(norm, most float64) float32 {
	if most == 0 || norm <= most {
		return 1
	}
	return float32(most / norm)
}

// log emits the averages of the steps since the last time, if they are enough, and
// what was seen at the last one. What it emits is in the mark until it is emitted.
func (t *Train) log(epoch int, emit pipeline.Emit) error {
	if t.meter.window.steps >= t.opt.LogEvery {
		if err := t.emit(emit, epoch, t.meter.cut().metric("step")); err != nil {
			return err
		}
	}
	return t.say(epoch, emit)
}

// endEpoch validates, tells the schedule, and hands out the weights. What the
// epoch came to, the validation or the averages of its training steps, becomes
// result. The mark moves at its very end, so that an epoch whose end was
// interrupted is ended again.
func (t *Train) endEpoch(ctx context.Context, epoch int, last bool, emit pipeline.Emit) error {
	if rest := t.meter.cut(); rest.steps > 0 {
		if err := t.emit(emit, epoch, rest.metric("step")); err != nil {
			return err
		}
	}
	sum := t.meter.endEpoch()
	result, rows := sum.metric(""), sum.stats.Rows
	var accuracy *float64 // of a validation
	if every := t.opt.ValidateEvery; t.env.Validate != nil && (last || every > 0 && (epoch+1)%every == 0) {
		s := newScorer(t.engine, t.net, t.feed)
		if err := t.env.Validate(ctx, s); err != nil {
			return fmt.Errorf("validation after epoch %d: %w", epoch+1, err)
		}
		var err error
		if result, err = s.result(); err != nil {
			return fmt.Errorf("validation after epoch %d: %w", epoch+1, err)
		}
		accuracy, rows = &result.Top1, s.sum.stats.Rows
	}
	t.meter.resume()
	t.watched.judge(1-result.Top1, rows, t.done, epoch, t.opt.Watch, len(t.env.Classes))
	if accuracy != nil {
		if err := t.emit(emit, epoch, result); err != nil {
			return err
		}
	}
	if err := t.say(epoch, emit); err != nil {
		return err
	}
	if accuracy != nil || t.env.Validate == nil {
		t.sched.Observe(1 - result.Top1)
		t.stall.observe(1-result.Top1, t.opt.EarlyStop)
	}
	last = last || t.stall.enough(t.opt.EarlyStop)
	t.result = result
	var err error
	if t.schedule, err = json.Marshal(t.sched); err != nil {
		return fmt.Errorf("the state of the schedule: %w", err)
	}
	if accepts(t.env, pipeline.Weights) {
		b, err := t.weights(ctx, epoch, last, accuracy)
		if err != nil {
			return err
		}
		if err := t.meter.blocked(func() error { return emit(b) }); err != nil {
			return err
		}
	}
	if t.cut() { // what was measured is of an epoch that is still open to whoever resumes
		return nil
	}
	t.mark = t.now(pipeline.Cursor{Epoch: epoch + 1}, false)
	t.mark.Accuracy = accuracy
	if c := t.env.Checkpoints; c == nil || !last && (c.Epochs == 0 || (epoch+1)%c.Epochs != 0) {
		return nil
	}
	return t.checkpoint(ctx, emit)
}

// emit completes and sends a metric.
func (t *Train) emit(emit pipeline.Emit, epoch int, row pipeline.Metric) error {
	row.Epoch, row.Step, row.LR = epoch, t.done, t.lr
	return t.meter.emit(emit, row)
}

// at says where in the run an error came from, but for the one that a cancelled
// context brings, which is nobody's fault.
func at(ctx context.Context, p *loaded, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("epoch %d, step %d: %w", p.epoch+1, p.step, err)
}

func accepts(env *pipeline.Env, k pipeline.Kind) bool { return env.Accepts != nil && env.Accepts(k) }
