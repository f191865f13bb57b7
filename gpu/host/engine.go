package host

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"sluice/gpu/host/simd"
	"sluice/net"
)

// Engine computes on a fixed pool of goroutines. Its ops have run when they
// return. See net.Engine for what each does.
type Engine struct {
	threads int
	level   simd.Level
	workers []*worker
	wake    chan *worker // to the pool; closed by Close
	idle    sync.WaitGroup
	closed  bool
	inputs  []*input

	// The job that runs now: its tasks are 0..tasks-1, next is the first not taken.
	job   job
	op    string
	tasks int
	next  atomic.Int64
	ended sync.WaitGroup
	broke atomic.Bool // a task panicked
	panic taskPanic

	ctx       context.Context
	done      <-chan struct{}
	cancelled error // of this step; Begin clears it
	err       error // for good

	winograd            Winograd
	direct, transformed int // passes of convolutions

	jobs    jobs
	zeros   []float32 // which nothing writes to
	scratch []float32 // shared by the tasks of one op, like the two below
	flatX   []float32
	bias    []float32
	hosts   [][]float32
}

// A job is an op cut into tasks by its geometry. do may run on any worker and
// writes nothing that another task of the job writes or reads.
type job interface{ do(w *worker, task int) }

// jobs holds one of each kind, so that an op allocates nothing.
type jobs struct {
	pack        packJob
	conv        convJob
	dgrad       dgradJob
	wgrad       wgradJob
	wino        winoJob
	winoGrad    winoGradJob
	filter      filterJob
	addParts    addPartsJob
	delta       deltaJob
	flatten     flattenJob
	dense       denseJob
	denseData   denseDataJob
	denseW      denseWeightJob
	turn        turnJob
	deal        dealJob
	pool        poolJob
	poolGrad    poolGradJob
	avgPool     avgPoolJob
	shares      sharesJob
	avgPoolGrad avgPoolGradJob
	channels    channelsJob
	lrn         lrnJob
	lrnGrad     lrnGradJob
	dropout     dropoutJob
	activate    activateJob
	points      pointsJob
	softmax     softmaxJob
	sgd         sgdJob
	norm        normJob
	scale       scaleJob
	add         addJob
	peaks       peaksJob
}

// worker is what one goroutine has for itself.
type worker struct {
	e   *Engine
	buf []float32
	alt []float32
	// What a kernel is told, here because arguments of functions chosen at run
	// time would be allocated; and a tile of which not all lanes are wanted.
	product simd.Product
	outer   simd.Outer
	patch   simd.Patch
	points  *simd.Points
	tile    []float32
	none    int     // the offset of the only segment
	one     float32 // 1
}

// reserve makes the workers' buffers at least this long, so that it does not
// depend on who takes which task when memory is allocated.
func (e *Engine) reserve(buf, alt int) {
	for _, w := range e.workers {
		need(&w.buf, buf)
		need(&w.alt, alt)
	}
}

// need gives a buffer of n floats of unknown contents.
func need(buf *[]float32, n int) []float32 {
	if len(*buf) < n {
		*buf = make([]float32, n)
	}
	return (*buf)[:n]
}

type taskPanic struct {
	sync.Mutex
	value any
	stack []byte
}

var _ net.Engine = (*Engine)(nil)

// tileFloats is as large as any register tile.
const tileFloats = 512

// An Option is how an engine differs from others of its level.
type Option func(*Engine)

// New makes an engine that computes on threads goroutines (0: as many as there
// are processors), the caller's among them, with the instructions of a level
// that simd.Choose or simd.Levels gave.
func New(threads int, level simd.Level, options ...Option) *Engine {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	e := &Engine{threads: threads, level: level, wake: make(chan *worker), ctx: context.Background()}
	for _, o := range options {
		o(e)
	}
	for i := range threads {
		w := &worker{e: e, points: simd.PointsOf(e.level), tile: make([]float32, tileFloats), one: 1}
		e.workers = append(e.workers, w)
		if i > 0 {
			e.idle.Go(e.serve)
		}
	}
	return e
}

// Name says how it computes.
func (e *Engine) Name() string {
	if e.threads == 1 {
		return fmt.Sprintf("cpu (%v, 1 thread)", e.level)
	}
	return fmt.Sprintf("cpu (%v, %d threads)", e.level, e.threads)
}

// Peak measures how many GFLOP/s the engine's threads could do at most, were
// every instruction a multiply-add of its level's widest vectors; 0 in plain Go.
func (e *Engine) Peak() float64 {
	j := peakJob{each: make([]float64, e.threads)}
	e.run("Peak", e.threads, j)
	sum := 0.0
	for _, p := range j.each {
		sum += p
	}
	return sum
}

// peakJob measures each thread while the others are measured: alone, a core may
// run faster.
type peakJob struct{ each []float64 }

func (j peakJob) do(w *worker, task int) { j.each[task] = simd.Peak(w.e.level) }

// Begin starts a step that ends early when ctx is done.
func (e *Engine) Begin(ctx context.Context) {
	e.ctx, e.done, e.cancelled = ctx, ctx.Done(), nil
}

// Sync returns the first error, or the cause of the step's cancellation. Ops
// have run when they return, so there is nothing to wait for.
func (e *Engine) Sync() error {
	if e.err != nil {
		return e.err
	}
	return e.cancelled
}

// Close ends the goroutines. Tensors are memory like any other.
func (e *Engine) Close() error {
	if e.closed {
		return nil
	}
	e.closed = true
	close(e.wake)
	e.idle.Wait()
	for _, in := range e.inputs {
		in.Close()
	}
	e.inputs = nil
	if e.err == nil {
		e.err = fmt.Errorf("cpu: the engine is closed")
	}
	return nil
}

// fail keeps the first error.
func (e *Engine) fail(format string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf("cpu: "+format, args...)
	}
}

// stopped says that ops are to do nothing.
func (e *Engine) stopped() bool {
	if e.err != nil || e.cancelled != nil {
		return true
	}
	if e.halted() {
		e.cancelled = context.Cause(e.ctx)
		return true
	}
	return false
}

// halted is asked by tasks between blocks: they return at once if so, and what
// the op wrote is of no use.
func (e *Engine) halted() bool {
	if e.broke.Load() {
		return true
	}
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

// run does every task of j and returns when all are done.
func (e *Engine) run(op string, tasks int, j job) {
	if tasks <= 0 || e.stopped() {
		return
	}
	e.job, e.op, e.tasks = j, op, tasks
	e.next.Store(0)
	helpers := min(e.threads, tasks) - 1
	e.ended.Add(helpers)
	for i := range helpers {
		e.wake <- e.workers[i+1]
	}
	e.workers[0].work()
	e.ended.Wait()
	e.job = nil
	if e.broke.Load() {
		e.broke.Store(false)
		e.fail("%s: panic: %v\n%s", op, e.panic.value, e.panic.stack)
	}
	e.stopped() // remembers a cancellation
}

func (e *Engine) serve() {
	for w := range e.wake {
		w.work()
		e.ended.Done()
	}
}

// work takes tasks until there are none. A panic ends the job.
func (w *worker) work() {
	defer w.rescue()
	e := w.e
	for !e.halted() {
		i := int(e.next.Add(1)) - 1
		if i >= e.tasks {
			return
		}
		e.job.do(w, i)
	}
}

func (w *worker) rescue() {
	v := recover()
	if v == nil {
		return
	}
	p := &w.e.panic
	p.Lock()
	defer p.Unlock()
	if !w.e.broke.Load() {
		p.value, p.stack = v, debug.Stack()
		w.e.broke.Store(true)
	}
}
