package stages

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/arrow/go/v17/arrow"

	"sluice/pipeline"
	"sluice/pipeline/config"
)

func init() {
	pipeline.RegisterBatchStage("exec",
		"Starts a program in any language, and exchanges batches with it as Arrow IPC streams on its standard input and output: one in, one out. It may change pixels and add columns. The validation of a training does not go through it.",
		ExecOptions{Workers: 1, Ordered: true, Timeout: 30 * time.Second, StartTimeout: time.Minute, Restarts: 3},
		func(o ExecOptions) (pipeline.BatchStage, error) { return NewExec(o) })
}

// ExecOptions are the options of the exec stage.
type ExecOptions struct {
	Command      []string      `yaml:"command" config:"required" doc:"the program and its arguments, as [python3, stage.py]; no shell reads them, and paths are relative to where the pipeline was started"`
	Workers      int           `yaml:"workers" doc:"how many of it run side by side, each with a batch of its own"`
	Ordered      bool          `yaml:"ordered" doc:"true: batches keep their order; false: they go on as they are done, so that a run can be neither repeated nor resumed"`
	Timeout      time.Duration `yaml:"timeout" doc:"how long it may take to answer a batch, and to end when its input has"`
	StartTimeout time.Duration `yaml:"start_timeout" doc:"how long it may take from its start to its schema"`
	Restarts     int           `yaml:"restarts" doc:"how often in a run a program that failed is started again, and its batch sent again; 0: never"`
}

// Exec is the stage that lets programs change batches. Each program gets an Arrow
// IPC stream on its standard input: the schema of the batches, which it must answer with
// the schema of its answers before a batch comes, and then batches, each of which
// it must answer with one, before it gets the next. The end of the input is its sign to end.
//
// What is checked: every column that comes is in the answer, with its type and without
// nulls, whatever its place and its metadata (they are put back as they were); no name is twice;
// added columns are numbers, booleans, times, strings, bytes, and lists and structs of
// these; there are as many rows as came, and the columns index and view say the same; and
// lengths and offsets fit the buffers. What the other columns hold is the program's.
//
// A program that ends, does not answer in time, or answers wrongly is killed. It is started again
// and gets its batch again, Restarts times in all of a run; then that is the error of
// the run. So that this changes nothing, and neither does the number of workers, what it answers
// must depend on the batch alone. What it says on standard error is told line by line
// (Env.Warn), a thousand lines of at most 1 KiB each.
//
// A batch's memory goes back when the program has read it; if it may have to be sent
// again, when the answer is there. A program is killed with all that it has started
// when the run ends. Should this process be killed itself, on Linux the kernel kills the program;
// what that has started, and elsewhere the program too, sees the end of its input.
type Exec struct {
	opt  ExecOptions
	name string // of the program, for messages
	mem  *recycler
	warn func(string)

	ctx      context.Context // of the workers
	cancel   context.CancelFunc
	jobs     chan *job
	workers  sync.WaitGroup
	finished chan *job // of any order
	queue    []*job    // not emitted yet, in the order they came
	restarts atomic.Int64

	mu     sync.Mutex
	agreed *agreement // that of the first program, maybe one that Plan asked
	ends   []error    // of programs that did not end well
}

// A job is a batch on its way through a program.
type job struct {
	batch  pipeline.Batch
	rec    arrow.Record // nil when it was released
	answer arrow.Record
	err    error
	done   chan *job
}

func (j *job) release() {
	if j.rec != nil {
		j.rec.Release()
		j.rec = nil
	}
}

// NewExec makes the exec stage; mistakes in the options are errors.
func NewExec(o ExecOptions) (*Exec, error) {
	var errs []error
	if len(o.Command) == 0 || o.Command[0] == "" {
		errs = append(errs, config.Fieldf("command", "is empty: name a program, as command: [python3, stage.py]"))
	}
	if o.Workers < 1 || o.Workers > 1024 {
		errs = append(errs, config.Fieldf("workers", "must be from 1 to 1024, is %d", o.Workers))
	}
	if o.Timeout <= 0 {
		errs = append(errs, config.Fieldf("timeout", "must be more than 0, is %v", o.Timeout))
	}
	if o.StartTimeout <= 0 {
		errs = append(errs, config.Fieldf("start_timeout", "must be more than 0, is %v", o.StartTimeout))
	}
	if o.Restarts < 0 {
		errs = append(errs, config.Fieldf("restarts", "must be at least 0, is %d", o.Restarts))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	name := strings.Join(o.Command, " ")
	if len(name) > 80 {
		name = strings.ToValidUTF8(name[:77], "") + "..."
	}
	return &Exec{
		opt: o, name: name, mem: &recycler{keep: 4 * (o.Workers + 2)},
		warn: func(text string) { log.Print(text) }, finished: make(chan *job, o.Workers),
	}, nil
}

// Holds is one batch a worker.
func (x *Exec) Holds() int { return x.opt.Workers }

// Plan starts the program and asks it what it will answer with.
func (x *Exec) Plan(env *pipeline.Env) (pipeline.Plan, error) {
	if !x.opt.Ordered && env.Checkpoints != nil {
		return pipeline.Plan{}, config.Fieldf("ordered", "must be true where there are checkpoints: batches of any order cannot be gone on from")
	}
	if env.Schema == nil {
		return pipeline.Plan{}, nil
	}
	agreed, err := x.ask(env.Schema)
	if err != nil {
		return pipeline.Plan{}, err
	}
	row := int64(0)
	for _, f := range agreed.schema.Fields() {
		row += bytesOf(f.Type)
	}
	order := "in order"
	if !x.opt.Ordered {
		order = "in any order"
	}
	return pipeline.Plan{
		Schema: agreed.schema,
		// The body that is read into, the answer, and one that downstream has.
		Memory: []pipeline.Memory{{Name: "answers of programs", Bytes: 3 * int64(x.opt.Workers) * int64(env.BatchSize) * row}},
		Text:   fmt.Sprintf("%d x %s, %s\n%s\n", x.opt.Workers, x.name, order, agreed),
	}, nil
}

// bytesOf is the size of a value, as far as the type tells.
func bytesOf(t arrow.DataType) int64 {
	switch t := t.(type) {
	case *arrow.FixedSizeListType:
		return int64(t.Len()) * bytesOf(t.Elem())
	case arrow.FixedWidthDataType:
		return int64(t.BitWidth()+7) / 8
	}
	return 0
}

// ask starts the program for its schema alone, once.
func (x *Exec) ask(schema *arrow.Schema) (*agreement, error) {
	if x.agreed != nil && x.agreed.in.Equal(schema) {
		return x.agreed, nil
	}
	p, err := startProgram(context.Background(), x.opt.Command, schema, x.opt.StartTimeout, x.mem, func(string) {})
	if err != nil {
		return nil, fmt.Errorf("program %q: %w", x.name, err)
	}
	if err := p.finish(x.opt.StartTimeout); err != nil {
		return nil, fmt.Errorf("program %q, asked for its schema and given no batch: %w", x.name, err)
	}
	x.agreed = p.agreed
	return p.agreed, nil
}

// Prepare notes whom to tell what programs say.
func (x *Exec) Prepare(_ context.Context, env *pipeline.Env) error {
	if env.Warn != nil {
		x.warn = env.Warn
	}
	if env.Resume && !x.opt.Ordered {
		return fmt.Errorf("%w: batches came in any order; run it anew, or with ordered: true", pipeline.ErrResume)
	}
	return nil
}

// Process gives b to a program that is free, and emits what is done.
func (x *Exec) Process(ctx context.Context, b *pipeline.Batch, emit pipeline.Emit) error {
	if x.jobs == nil {
		x.begin(ctx)
	}
	var ready *job
	if len(x.queue) == x.opt.Workers {
		var err error
		if ready, err = x.next(ctx); err != nil {
			return err
		}
	}
	j := &job{batch: *b, rec: b.Record, done: x.finished}
	if x.opt.Ordered {
		j.done = make(chan *job, 1)
	}
	j.rec.Retain()
	x.queue = append(x.queue, j)
	x.jobs <- j // a worker is free, or nearly
	if ready == nil {
		return nil
	}
	return ready.emit(emit)
}

func (x *Exec) begin(ctx context.Context) {
	x.ctx, x.cancel = context.WithCancel(ctx)
	x.jobs = make(chan *job)
	for range x.opt.Workers {
		x.workers.Go(x.work)
	}
}

// next waits for the job whose answer is to be emitted, and takes it off the queue.
// Programs heed ctx, so that it need not.
func (x *Exec) next(ctx context.Context) (*job, error) {
	j := <-x.queue[0].done
	for i := range x.queue {
		if x.queue[i] == j {
			x.queue = append(x.queue[:i], x.queue[i+1:]...)
			break
		}
	}
	if j.err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return j, j.err
}

func (j *job) emit(emit pipeline.Emit) error {
	j.batch.Record = j.answer
	return emit(&j.batch)
}

// Flush emits what is still on its way, and ends the programs.
func (x *Exec) Flush(ctx context.Context, emit pipeline.Emit) error {
	for len(x.queue) > 0 {
		j, err := x.next(ctx)
		if err != nil {
			return err
		}
		if err := j.emit(emit); err != nil {
			return err
		}
	}
	if x.jobs == nil {
		return nil
	}
	x.end()
	return errors.Join(x.ends...)
}

// end lets the workers end.
func (x *Exec) end() {
	close(x.jobs)
	x.workers.Wait()
	x.jobs = nil
}

// Close kills what still runs.
func (x *Exec) Close() error {
	if x.cancel != nil {
		x.cancel()
	}
	if x.jobs != nil {
		x.end()
	}
	for _, j := range x.queue {
		<-j.done
		if j.answer != nil {
			j.answer.Release()
		}
	}
	x.queue = nil
	return nil
}

// work serves jobs with a program of its own.
func (x *Exec) work() {
	var p *program
	for j := range x.jobs {
		p = x.serve(p, j)
		j.release()
		j.done <- j
	}
	switch {
	case p == nil:
	case x.ctx.Err() != nil:
		p.kill()
	default:
		if err := p.finish(x.opt.Timeout); err != nil {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.ends = append(x.ends, fmt.Errorf("program %q: %w", x.name, err))
		}
	}
}

// serve gets the answer of a job from a program, starting one where there is none. It
// gives the program for the next job, nil if there is none left.
func (x *Exec) serve(p *program, j *job) *program {
	for {
		var err error
		if p == nil {
			p, err = x.start(j.rec.Schema())
		} else if !p.agreed.in.Equal(j.rec.Schema()) {
			j.err = fmt.Errorf("program %q, batch %d of epoch %d: the batch has another schema than those before it", x.name, j.batch.Step, j.batch.Epoch+1)
			return p
		}
		if err == nil {
			sent := func() {}
			if x.opt.Restarts == 0 {
				sent = j.release
			}
			if j.answer, err = p.exchange(j.rec, x.opt.Timeout, sent); err == nil {
				return p
			}
		}
		if p != nil {
			p.kill()
			p = nil
		}
		if x.ctx.Err() != nil {
			j.err = context.Cause(x.ctx)
			return nil
		}
		j.err = fmt.Errorf("program %q, batch %d of epoch %d: %w", x.name, j.batch.Step, j.batch.Epoch+1, err)
		if errors.Is(err, errStart) {
			return nil
		}
		n := x.restarts.Add(1)
		if n > int64(x.opt.Restarts) {
			if x.opt.Restarts > 0 {
				j.err = fmt.Errorf("%w; it was started again %d times, as often as restarts allows", j.err, x.opt.Restarts)
			}
			return nil
		}
		x.warn(fmt.Sprintf("exec: %v; it is started again (%d of %d)", j.err, n, x.opt.Restarts))
		j.err = nil
	}
}

// start starts a program, and holds it to what the first has agreed to.
func (x *Exec) start(schema *arrow.Schema) (*program, error) {
	p, err := startProgram(x.ctx, x.opt.Command, schema, x.opt.StartTimeout, x.mem, func(line string) { x.warn(x.name + ": " + line) })
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.agreed == nil {
		x.agreed = p.agreed
	}
	if !x.agreed.out.Equal(p.agreed.out) {
		return p, errors.New("it answers with another schema than when it was started first")
	}
	return p, nil
}
