//go:build cuda && linux

package cuda

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unsafe"

	"gorgonia.org/cu"
)

type pointer = unsafe.Pointer

// mostBlocks is what a card takes of blocks in the second and third dimension of a grid.
const mostBlocks = 1<<16 - 1

// maxArgs is more than any kernel has.
const maxArgs = 28

// launch is one kernel to be launched.
type launch struct {
	kernel     string
	op, tensor string // whose it is, for errors
	grid       [3]int
	threads    int
	shared     int             // bytes of memory of a block that the launch gives
	args       [maxArgs]uint64 // a cell each: cu reads 8 bytes of every argument
	n          int
}

// The arguments of a kernel, in its order.

func (l *launch) pointer(p cu.DevicePtr) *launch {
	l.args[l.n] = uint64(p)
	l.n++
	return l
}

func (l *launch) ints(values ...int) *launch {
	for _, v := range values {
		l.args[l.n] = uint64(uint32(int32(v)))
		l.n++
	}
	return l
}

func (l *launch) words(values ...uint32) *launch {
	for _, v := range values {
		l.args[l.n] = uint64(v)
		l.n++
	}
	return l
}

func (l *launch) floats(values ...float32) *launch {
	for _, v := range values {
		l.args[l.n] = uint64(math.Float32bits(v))
		l.n++
	}
	return l
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

// elements is a launch over count numbers, one a thread, or more of them on the largest.
func elements(kernel, op string, tensor string, count int) launch {
	const threads, most = 256, 1 << 15
	return launch{kernel: kernel, op: op, tensor: tensor, threads: threads, grid: [3]int{max(1, min(most, (count+threads-1)/threads)), 1, 1}}
}

// do queues a launch.
func (e *Engine) do(l launch) { e.queue <- command{launch: l} }

// launched launches, by the owner; not if the step was cancelled or something failed.
func (e *Engine) launched(l *launch) {
	if e.err.Load() != nil || e.step.Err() != nil {
		return
	}
	if err := e.start(l, e.compute); err != nil {
		e.stick(e.blame(err))
		return
	}
	if err := e.flight.add(l, e.compute); err != nil {
		e.stick(e.blame(err))
	}
}

// start is the launch itself.
func (e *Engine) start(l *launch, s cu.Stream) error {
	f, ok := e.kernels[l.kernel]
	if !ok {
		return fmt.Errorf("%s: there is no kernel %s", l.op, l.kernel)
	}
	if l.grid[1] > mostBlocks || l.grid[2] > mostBlocks {
		return fmt.Errorf("%s: %d x %d x %d blocks are more than a card takes (%d in the second and third): the layer is too wide, or has too many groups",
			l.String(), l.grid[0], l.grid[1], l.grid[2], mostBlocks)
	}
	from, err := e.begin(s)
	if err != nil {
		return err
	}
	copy(e.cells[:], l.args[:l.n])
	if err := f.Launch(l.grid[0], l.grid[1], l.grid[2], l.threads, 1, 1, l.shared, s, e.pointers[:l.n]); err != nil {
		return fmt.Errorf("launching %s: %w", l.String(), told(err))
	}
	if e.oneByOne {
		if err := s.Synchronize(); err != nil {
			return fmt.Errorf("%s: %w", l.String(), told(err))
		}
	}
	track := computeTrack
	if s == e.copy {
		track = copyTrack
	}
	if e.tracer == nil {
		return nil // before a name is made
	}
	return e.end(from, s, track, fmt.Sprintf("%s %s (%s)", l.op, l.tensor, l.kernel))
}

// told says that it is CUDA who says so.
func told(err error) error { return fmt.Errorf("CUDA says %w", err) }

// String says whose launch it is.
func (l *launch) String() string {
	return fmt.Sprintf("%s of %q (kernel %s)", l.op, l.tensor, l.kernel)
}

// blame tells whose fault it may be that the context was lost. CUDA gives such an error to
// whatever it is asked next, be it the launch of another kernel: all that were launched
// and not known to have ended are named. By the owner.
func (e *Engine) blame(err error) error {
	if err == nil || !slices.ContainsFunc(losses, func(loss error) bool { return errors.Is(err, loss) }) {
		return err
	}
	err = fmt.Errorf("%w; the context is lost, and with it this engine", err)
	if e.oneByOne {
		return err
	}
	return fmt.Errorf("%w; the fault is in one of the kernels launched last, in their order: %s(SLUICE_CUDA_SYNC=1 tells which)", err, e.flight.names())
}

// losses are the errors after which CUDA's context can no longer be used.
var losses = []error{
	cu.IllegalAddress, cu.LaunchTimeout, cu.Assert, cu.HardwareStackError, cu.IllegalInstruction, cu.MisalignedAddress,
	cu.InvalidAddressSpace, cu.InvalidPc, cu.LaunchFailed, cu.EccUncorrectable, cu.NvlinkUncorrectable, cu.Unknown,
}

// flight is what is launched and not known to have ended: at most flights*flightSize
// kernels, so that a step that is cancelled ends soon, and an error is told of few.
type flight struct {
	ends     [flights]cu.Event
	launches [flights][flightSize]struct{ kernel, op, tensor string }
	in       [flights]int // launches of each
	now      int
}

const (
	flights    = 4
	flightSize = 4
)

func (f *flight) open() error {
	for i := range f.ends {
		var err error
		if f.ends[i], err = cu.MakeEvent(cu.DisableTiming | cu.BlockingSyncEvent); err != nil {
			return fmt.Errorf("an event: %w", err)
		}
	}
	return nil
}

func (f *flight) close() {
	for i := range f.ends {
		if f.ends[i] != (cu.Event{}) {
			_ = cu.DestroyEvent(&f.ends[i])
		}
	}
}

// add counts a launch, and waits for the oldest ones when there are too many.
func (f *flight) add(l *launch, s cu.Stream) error {
	at := &f.launches[f.now][f.in[f.now]]
	at.kernel, at.op, at.tensor = l.kernel, l.op, l.tensor
	if f.in[f.now]++; f.in[f.now] < flightSize {
		return nil
	}
	if err := f.ends[f.now].Record(s); err != nil {
		return told(err)
	}
	f.now = (f.now + 1) % flights
	if f.in[f.now] == flightSize {
		if err := f.ends[f.now].Synchronize(); err != nil {
			return told(err)
		}
	}
	f.in[f.now] = 0
	return nil
}

// landed forgets all launches: the stream has ended.
func (f *flight) landed() { f.in = [flights]int{} }

// names are the launches in flight, the oldest first. What loads a batch runs on the other
// stream, and is in flight at any time.
func (f *flight) names() string {
	var s strings.Builder
	for i := range flights {
		for _, l := range f.launches[(f.now+i)%flights][:f.in[(f.now+i)%flights]] {
			fmt.Fprintf(&s, "%s of %q (kernel %s), ", l.op, l.tensor, l.kernel)
		}
	}
	return s.String() + "or Load (kernel load_images) "
}

// entries are the names of a PTX text's kernels.
func entries(ptx string) []string {
	var names []string
	for rest := ptx; ; {
		_, after, ok := strings.Cut(rest, ".entry ")
		if !ok {
			return names
		}
		name, _, _ := strings.Cut(after, "(")
		names = append(names, name)
		rest = after
	}
}
