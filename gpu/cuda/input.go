//go:build cuda && linux

package cuda

import (
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"gorgonia.org/cu"

	"sluice/net"
)

// input is a place for a batch. Its bytes go to the card and become numbers on a stream
// of their own, while another batch computes; what computes waits for them on the card.
type input struct {
	e         *Engine
	spec      net.InputSpec
	x, labels *net.Tensor
	mean      cu.DevicePtr // the mean image, or 0
	raw       cu.DevicePtr // the batch as it came, see parts
	host      []byte       // pinned, as raw is
	at        parts

	free   cu.Event // what computed from it before has ended
	loaded cu.Event

	mu      sync.Mutex
	pixels  []byte // of the load that is queued
	has     struct{ shift, flip bool }
	pending sync.WaitGroup // until the waiter has seen it loaded
	closed  bool
	n       int

	reply              chan error // to Load and Tensors
	loadFunc, takeFunc func() error
}

// parts is where in raw the parts of a batch begin, behind the pixels.
type parts struct{ shift, origin, labels, flip, end int }

func partsOf(s net.InputSpec) (p parts) {
	p.shift = (s.N*s.H*s.W*3 + align - 1) / align * align
	p.origin = p.shift + 12*s.N
	p.labels = p.origin + 8*s.N
	p.flip = p.labels + 4*s.N
	p.end = p.flip + s.N
	return p
}

// NewInput makes a place for batches.
func (e *Engine) NewInput(s net.InputSpec) (net.Input, error) {
	if err := e.failed(); err != nil {
		return nil, err
	}
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	ts, err := e.alloc(e.inputSpecs(s), 2)
	if err != nil {
		return nil, err
	}
	if len(ts) == 3 {
		ts[0].Mem.(*buffer).four = at(ts[2])
	}
	in := &input{e: e, spec: s, x: ts[0], labels: ts[1], at: partsOf(s), reply: make(chan error)}
	in.loadFunc, in.takeFunc = in.enqueue, in.take
	if err := e.call(in.open); err != nil {
		return nil, fmt.Errorf("cuda: an input: %w", err)
	}
	none := make([]float32, s.N)
	for i := range none {
		none[i] = -1
	}
	e.Upload(in.labels, none)
	e.inputs = append(e.inputs, in)
	return in, nil
}

// inputSpecs are the tensors of an input: its images, the labels, and for tensor cores the
// images with a fourth channel of zeros, unless that is more than kernels can count.
func (e *Engine) inputSpecs(s net.InputSpec) []net.Spec {
	specs := []net.Spec{
		{Name: "input", Shape: s.Shape(), Kind: net.Map, Halo: s.Halo, To: -1},
		{Name: "labels", Shape: net.Shape{N: 1, C: s.N, H: 1, W: 1}, Kind: net.Vector, To: -1},
	}
	four := net.Spec{Name: "input of four channels", Shape: s.Shape(), Kind: net.Map, To: -1}
	four.Shape.C = 4
	if _, err := bytesOf(four); e.tf32 && err == nil {
		specs = append(specs, four)
	}
	return specs
}

// InputSize is the bytes of the tensors of an input; 0 for one that NewInput refuses.
func (e *Engine) InputSize(s net.InputSpec) int64 { return e.Size(e.inputSpecs(s)) }

// open makes what the card has of an input, by the owner.
func (in *input) open() (err error) {
	e := in.e
	for _, ev := range []*cu.Event{&in.free, &in.loaded} {
		if *ev, err = cu.MakeEvent(cu.DisableTiming | cu.BlockingSyncEvent); err != nil {
			return fmt.Errorf("an event: CUDA says %w", err)
		}
	}
	if in.raw, err = e.zeroed(in.at.end); err != nil {
		return err
	}
	in.host = e.pinned.Allocate(in.at.end)
	m := in.spec.MeanImage
	if m == nil {
		return nil
	}
	if in.mean, err = e.zeroed(4 * len(m.Pixels)); err != nil {
		return err
	}
	// On the stream that reads it; from memory that is not pinned, and so before it returns.
	if err := cu.MemcpyHtoDAsync(in.mean, unsafe.Pointer(&m.Pixels[0]), int64(4*len(m.Pixels)), e.compute); err != nil {
		return fmt.Errorf("the mean image: CUDA says %w", err)
	}
	return e.land()
}

// Load begins to copy b. Pixels that lie in pinned memory are copied from where they are,
// others by way of memory of the input's own.
func (in *input) Load(b net.ImageBatch) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	err := in.spec.Fits(b)
	switch {
	case err != nil:
		err = fmt.Errorf("cuda: %w", err)
	case in.closed || in.e.closed:
		err = fmt.Errorf("cuda: loading into a closed input")
	default:
		err = in.e.failed()
	}
	if err != nil {
		if b.Release != nil {
			b.Release()
		}
		return err
	}
	in.pending.Wait() // the load before, if nobody has computed it
	in.n = b.N
	in.has.shift, in.has.flip = b.Shift != nil, b.Flip != nil
	put(in.host[in.at.shift:], b.Shift)
	put(in.host[in.at.origin:], b.Origin)
	put(in.host[in.at.labels:], b.Labels)
	for i, f := range b.Flip {
		in.host[in.at.flip+i] = byte(flag(f))
	}
	in.pixels = b.Pixels
	release := b.Release
	if len(b.Pixels) > 0 && !in.e.pinned.holds(b.Pixels) {
		in.pixels = in.host[:len(b.Pixels)]
		copy(in.pixels, b.Pixels)
	}
	in.pending.Add(1)
	err = in.e.ask(in.loadFunc, in.reply)
	if err != nil {
		in.e.stick(err)
		in.pending.Done()
		if release != nil {
			release()
		}
		return in.e.failed()
	}
	in.e.waiter.loads <- load{in, release}
	return nil
}

// put copies numbers as they are in memory.
func put[T int32 | float32](to []byte, from []T) {
	if len(from) > 0 {
		copy(to, unsafe.Slice((*byte)(unsafe.Pointer(&from[0])), 4*len(from)))
	}
}

// enqueue starts the copy and what makes numbers of it, by the owner. After an error the
// batch's memory is no longer read.
func (in *input) enqueue() (err error) {
	defer func() {
		if err != nil {
			_ = in.e.copy.Synchronize() // what it says is the error, or follows from it
		}
	}()
	e := in.e
	if err := in.free.Record(e.compute); err != nil {
		return fmt.Errorf("loading a batch: CUDA says %w", err)
	}
	if err := e.copy.Wait(in.free, 0); err != nil {
		return fmt.Errorf("loading a batch: CUDA says %w", err)
	}
	from, err := e.begin(e.copy)
	if err != nil {
		return err
	}
	if len(in.pixels) > 0 {
		if err := cu.MemcpyHtoDAsync(in.raw, unsafe.Pointer(&in.pixels[0]), int64(len(in.pixels)), e.copy); err != nil {
			return fmt.Errorf("copying a batch: CUDA says %w", err)
		}
	}
	rest := in.at.shift
	if err := cu.MemcpyHtoDAsync(in.raw+cu.DevicePtr(rest), unsafe.Pointer(&in.host[rest]), int64(in.at.end-rest), e.copy); err != nil {
		return fmt.Errorf("copying a batch: CUDA says %w", err)
	}
	if err := e.end(from, e.copy, copyTrack, "copy of a batch"); err != nil {
		return err
	}
	s, x := in.spec, in.x.Shape
	part := func(wanted bool, at int) cu.DevicePtr {
		if !wanted {
			return 0
		}
		return in.raw + cu.DevicePtr(at)
	}
	width := 0
	if s.MeanImage != nil {
		width = s.MeanImage.W
	}
	l := elements("load_images", "Load", in.x.Name, s.N*s.H*s.W)
	l.pointer(at(in.x)).pointer(in.x.Mem.(*buffer).four).pointer(at(in.labels)).pointer(in.raw).pointer(part(in.has.shift, in.at.shift)).
		pointer(part(true, in.at.origin)).pointer(part(in.has.flip, in.at.flip)).pointer(part(true, in.at.labels)).pointer(in.mean).
		ints(width, s.N, in.n, s.H, s.W, x.H, x.W, s.Top, s.Left).
		floats(s.Mean[0], s.Mean[1], s.Mean[2], s.Scale[0], s.Scale[1], s.Scale[2]).ints(flag(s.BGR))
	if err := e.start(&l, e.copy); err != nil {
		return err
	}
	if err := in.loaded.Record(e.copy); err != nil {
		return fmt.Errorf("loading a batch: CUDA says %w", err)
	}
	return nil
}

// Tensors gives the images and labels to what is queued from now on, which waits on the
// card until they are there.
func (in *input) Tensors() (x, labels *net.Tensor, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed || in.e.closed {
		return nil, nil, fmt.Errorf("cuda: the input is closed")
	}
	if err := in.e.failed(); err != nil {
		return nil, nil, err
	}
	if err := in.e.ask(in.takeFunc, in.reply); err != nil {
		in.e.stick(err)
		return nil, nil, in.e.failed()
	}
	return in.x, in.labels, nil
}

func (in *input) take() error {
	if err := in.e.compute.Wait(in.loaded, 0); err != nil {
		return fmt.Errorf("waiting for a batch: CUDA says %w", err)
	}
	return nil
}

// N is how many rows were loaded.
func (in *input) N() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.n
}

// Close waits for the load under way. The card's memory lasts as long as the engine.
func (in *input) Close() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return nil
	}
	in.closed = true
	in.pending.Wait()
	in.e.pinned.Free(in.host)
	in.host = nil
	return in.e.ask(func() error {
		err := cu.DestroyEvent(&in.free)
		if err == nil {
			err = cu.DestroyEvent(&in.loaded)
		}
		if err != nil && in.e.failed() == nil {
			return fmt.Errorf("cuda: closing an input: CUDA says %w", err)
		}
		return nil
	}, in.reply)
}

// waiter gives batches back when they have been copied. It waits on a thread of its own,
// so that nobody else has to.
type waiter struct {
	loads chan load
	ended sync.WaitGroup
}

type load struct {
	in      *input
	release func()
}

func newWaiter(ctx cu.CUContext) *waiter {
	w, reply := &waiter{loads: make(chan load, 4)}, make(chan error)
	w.ended.Go(func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		set := cu.SetCurrentContext(ctx)
		for l := range w.loads {
			err := set
			if err == nil {
				err = l.in.loaded.Synchronize()
			}
			if err != nil {
				err = fmt.Errorf("loading a batch: %w", told(err))
				l.in.e.stick(l.in.e.ask(func() error { return err }, reply)) // the owner knows whom to blame
			}
			if l.release != nil {
				l.giveBack()
			}
			l.in.pending.Done()
		}
	})
	return w
}

// giveBack turns a panic of the owner of a batch into an error.
func (l *load) giveBack() {
	defer func() {
		if v := recover(); v != nil {
			l.in.e.fail("giving a batch back: panic: %v", v)
		}
	}()
	l.release()
}

func (w *waiter) close() {
	close(w.loads)
	w.ended.Wait()
}
