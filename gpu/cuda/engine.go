//go:build cuda && linux

package cuda

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"gorgonia.org/cu"

	"sluice/gpu/cuda/kernels"
	"sluice/net"
)

// Engine computes on one card. Its ops are queued when they return. All calls of the
// driver are made by one goroutine on a thread of its own (owner), but for the waits for
// copies of batches (input.go); what is computed goes to one stream, batches to another.
// See net.Engine for what each op does.
type Engine struct {
	device Device
	// separate gives each tensor an allocation of its own, so that a tool that watches
	// memory sees what is read or written beyond it.
	separate bool
	// oneByOne waits for each kernel, so that an error is told of the right one.
	oneByOne bool

	queue  chan command
	reply  chan error // to the goroutine that uses the engine
	ended  sync.WaitGroup
	closed bool

	// The owner's.
	now           command
	dev           cu.Device
	context       cu.CUContext
	compute, copy cu.Stream
	kernels       map[string]cu.Function
	cells         [maxArgs]uint64
	pointers      [maxArgs]pointer
	flight        flight
	landing       cu.Event // when all before it has ended
	step          context.Context
	tracer        *tracer // nil if nobody traces

	// The caller's.
	ctx       context.Context
	cancelled error // of this step; Begin clears it
	inputs    []*input
	transfer  transfer
	hosts     [][]float32
	smallest  int // tile that tests ask for; 0: as the shape says
	tf32      bool
	held      [][]net.Spec // of each Alloc
	heldBytes int64

	// Memory, used by the owner alone after it was made.
	arenas  []cu.DevicePtr
	sums    scratch      // parts of sums
	filters scratch      // filters of four channels, for an input's three
	bad     cu.DevicePtr // the first row whose label is wrong
	pinned  *Pinned
	waiter  *waiter

	// Functions that call is given, made once so that a step allocates nothing.
	landFunc, uploadFunc, downloadFunc func() error

	err atomic.Pointer[error] // for good
}

var _ net.Engine = (*Engine)(nil)

// New makes an engine on a card of Devices.
func New(d Device) (*Engine, error) {
	if d.Major < 8 {
		return nil, fmt.Errorf("%s: the kernels need compute capability 8.0 (A100, RTX 30) or more", d)
	}
	e := &Engine{
		device: d, separate: os.Getenv("SLUICE_CUDA_SEPARATE") != "", oneByOne: os.Getenv("SLUICE_CUDA_SYNC") != "",
		queue: make(chan command, 64), reply: make(chan error), kernels: map[string]cu.Function{},
		ctx: context.Background(), step: context.Background(),
	}
	e.landFunc, e.uploadFunc, e.downloadFunc = e.land, e.upload, e.download
	started := make(chan error)
	e.ended.Go(func() { e.own(started) })
	if err := <-started; err != nil {
		e.ended.Wait()
		return nil, fmt.Errorf("%s: %w", d, err)
	}
	return e, nil
}

// Name says what it computes on, and how.
func (e *Engine) Name() string {
	precision := "fp32"
	if e.tf32 {
		precision = "tf32"
	}
	return fmt.Sprintf("cuda (%s, %s)", e.device.Name, precision)
}

// UseTF32 has convolutions and dense layers computed by tensor cores from now on: what they
// multiply is rounded to ten bits after the point, and added up in 32-bit floats. All else
// stays as it is. Two runs still give the same bits.
func (e *Engine) UseTF32() { e.tf32 = true }

// A command is what the owner does next: a function whose answer the caller waits for,
// the begin of a step, or a launch.
type command struct {
	do     func() error
	reply  chan<- error
	step   context.Context
	launch launch
}

// own is the owner: it makes all that the engine has, serves it, and takes it down.
func (e *Engine) own(started chan<- error) {
	// The thread is never given back: it ends with the goroutine, and its context with it.
	runtime.LockOSThread()
	err := e.open()
	started <- err
	if err != nil {
		return
	}
	e.serve()
	e.release()
}

func (e *Engine) open() (err error) {
	if e.dev, err = cu.GetDevice(e.device.Ordinal); err != nil {
		return err
	}
	if e.context, err = e.dev.RetainPrimaryCtx(); err != nil {
		return fmt.Errorf("its context: %w", err)
	}
	defer func() {
		if err != nil {
			e.release()
		}
	}()
	if err := cu.SetCurrentContext(e.context); err != nil {
		return err
	}
	if e.compute, err = cu.MakeStream(cu.NonBlocking); err != nil {
		return fmt.Errorf("a stream: %w", err)
	}
	if e.copy, err = cu.MakeStream(cu.NonBlocking); err != nil {
		return fmt.Errorf("a stream: %w", err)
	}
	for file, text := range kernels.PTX() {
		m, err := cu.LoadData(text)
		if err != nil {
			return fmt.Errorf("loading %s (is the driver older than CUDA 11.5?): %w", file, err)
		}
		for _, name := range entries(text) {
			if e.kernels[name], err = m.Function(name); err != nil {
				return fmt.Errorf("kernel %s of %s: %w", name, file, err)
			}
			if bytes := sharedBytes(name); bytes > 0 {
				if err := allowShared(e.kernels[name], bytes); err != nil {
					return fmt.Errorf("kernel %s of %s: %w", name, file, err)
				}
			}
		}
	}
	if e.bad, err = cu.MemAlloc(4); err != nil {
		return fmt.Errorf("allocating: %w", err)
	}
	if err := e.clearBad(); err != nil {
		return err
	}
	for i := range e.pointers {
		e.pointers[i] = pointer(&e.cells[i])
	}
	if err := e.flight.open(); err != nil {
		return err
	}
	if e.landing, err = cu.MakeEvent(cu.DisableTiming | cu.BlockingSyncEvent); err != nil {
		return fmt.Errorf("an event: %w", err)
	}
	if e.pinned, err = newPinned(e.dev); err != nil {
		return err
	}
	e.waiter = newWaiter(e.context)
	return nil
}

func (e *Engine) serve() {
	for e.now = range e.queue { // kept here, for else each would be allocated
		switch {
		case e.now.do != nil:
			e.now.reply <- e.blame(e.now.do())
		case e.now.step != nil:
			e.step = e.now.step
		default:
			e.launched(&e.now.launch)
		}
	}
}

// release gives back all that open and serve have made. What fails now has failed before.
func (e *Engine) release() {
	if e.waiter != nil {
		e.waiter.close()
	}
	_ = cu.Synchronize()
	e.tracer.close()
	for _, p := range append(e.arenas, e.sums.memory, e.filters.memory, e.transfer.device, e.bad) {
		if p != 0 {
			_ = cu.MemFree(p)
		}
	}
	if e.pinned != nil {
		e.pinned.Free(e.transfer.host)
		e.pinned.close()
	}
	e.flight.close()
	if e.landing != (cu.Event{}) {
		_ = cu.DestroyEvent(&e.landing)
	}
	_ = e.copy.Destroy()
	_ = e.compute.Destroy()
	_ = e.dev.ReleasePrimaryCtx()
}

// call has the owner do f and waits for it. Who is on another goroutine than the engine's
// (Input.Load) has a reply of its own, and uses ask: each must wait for its own answer.
func (e *Engine) call(f func() error) error { return e.ask(f, e.reply) }

func (e *Engine) ask(f func() error, reply chan error) error {
	e.queue <- command{do: f, reply: reply}
	return <-reply
}

// Begin starts a step that ends early when ctx is done: what is queued then is not
// launched any more.
func (e *Engine) Begin(ctx context.Context) {
	e.ctx, e.cancelled = ctx, nil
	if !e.closed {
		e.queue <- command{step: ctx} // in its turn: nothing of the step before is dropped for ctx
	}
}

// stick keeps the first error.
func (e *Engine) stick(err error) {
	err = fmt.Errorf("cuda: %w", err)
	e.err.CompareAndSwap(nil, &err)
}

func (e *Engine) fail(format string, args ...any) { e.stick(fmt.Errorf(format, args...)) }

func (e *Engine) failed() error {
	if err := e.err.Load(); err != nil {
		return *err
	}
	return nil
}

// stopped says that ops are to do nothing.
func (e *Engine) stopped() bool {
	if e.err.Load() != nil || e.cancelled != nil {
		return true
	}
	if e.ctx.Err() != nil {
		e.cancelled = context.Cause(e.ctx)
		return true
	}
	return false
}

// Sync waits for all ops and returns the first error, or the cause of the step's
// cancellation.
func (e *Engine) Sync() error {
	if e.closed {
		return e.failed()
	}
	if err := e.call(e.landFunc); err != nil {
		e.stick(err)
	}
	if err := e.failed(); err != nil {
		return err
	}
	e.stopped() // remembers a cancellation
	return e.cancelled
}

// Close waits for the card and gives back its memory.
func (e *Engine) Close() error {
	if e.closed {
		return nil
	}
	for _, in := range e.inputs {
		if err := in.Close(); err != nil {
			e.stick(err)
		}
	}
	e.inputs = nil
	e.closed = true
	close(e.queue)
	e.ended.Wait()
	if e.err.Load() == nil {
		e.fail("the engine is closed")
	}
	return nil
}

// ready says whether an op may run on these tensors at all.
func (e *Engine) ready(op string, tensors ...*net.Tensor) bool {
	if e.stopped() {
		return false
	}
	for i, t := range tensors {
		if t == nil {
			e.fail("%s: tensor %d of %d is nil", op, i+1, len(tensors))
			return false
		}
		if m, ok := t.Mem.(*buffer); !ok || m.e != e {
			e.fail("%s: tensor %q belongs to another engine", op, t.Name)
			return false
		}
	}
	return true
}

// fits keeps what net says of an op's tensors.
func (e *Engine) fits(op string, err error) bool {
	if err != nil {
		e.fail("%s: %w", op, err)
	}
	return err == nil
}
