//go:build cuda && linux

package cuda

// #include <cuda.h>
import "C"

import (
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"github.com/apache/arrow/go/v17/arrow/memory"

	"gorgonia.org/cu"
)

// Pinned is memory of the host that the card copies from by itself, while the program
// does something else. It is an Arrow allocator, for the buffers of batches. It outlives
// its engine: the context ends when all of it is back.
type Pinned struct {
	device  cu.Device
	context cu.CUContext

	mu     sync.Mutex
	lent   map[*byte]int // bytes, by where they begin
	closed bool
}

var _ memory.Allocator = (*Pinned)(nil)

// newPinned retains the context of a card for its memory.
func newPinned(dev cu.Device) (*Pinned, error) {
	ctx, err := dev.RetainPrimaryCtx()
	if err != nil {
		return nil, fmt.Errorf("its context: %w", err)
	}
	return &Pinned{device: dev, context: ctx, lent: map[*byte]int{}}, nil
}

// PoolMemory is pinned memory for the buffers of batches, which are then copied to the
// card without another copy before.
func (e *Engine) PoolMemory() memory.Allocator { return e.pinned }

// in runs f on a thread that the context is current on.
func (p *Pinned) in(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := cu.CurrentContext()
	if err != nil {
		before = cu.CUContext{}
	}
	if cu.SetCurrentContext(p.context) != nil {
		return // the card is lost, and its memory with it
	}
	f()
	_ = cu.SetCurrentContext(before)
}

// Allocate gives pinned memory, full of zeros; where there is no more of it, memory like
// any other, from which batches are copied twice.
func (p *Pinned) Allocate(size int) []byte {
	if size <= 0 {
		return []byte{}
	}
	var at unsafe.Pointer
	p.in(func() {
		if C.cuMemHostAlloc(&at, C.size_t(size), 0) != C.CUDA_SUCCESS { // cu has no such function
			at = nil
		}
	})
	if at == nil {
		return make([]byte, size)
	}
	b := unsafe.Slice((*byte)(at), size)
	clear(b)
	p.mu.Lock()
	p.lent[&b[0]] = size
	p.mu.Unlock()
	return b
}

// Reallocate is Allocate of another size, with what b holds.
func (p *Pinned) Reallocate(size int, b []byte) []byte {
	to := p.Allocate(size)
	copy(to, b)
	p.Free(b)
	return to
}

// Free takes back what Allocate gave.
func (p *Pinned) Free(b []byte) {
	if cap(b) == 0 {
		return
	}
	at := &b[:1][0]
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.lent[at]; !ok {
		return // the collector's
	}
	delete(p.lent, at)
	p.in(func() { _ = cu.MemFreeHost(unsafe.Pointer(at)) })
	p.end()
}

// holds says whether b lies in pinned memory.
func (p *Pinned) holds(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	begin := uintptr(unsafe.Pointer(&b[0]))
	p.mu.Lock()
	defer p.mu.Unlock()
	for at, size := range p.lent {
		if from := uintptr(unsafe.Pointer(at)); begin >= from && begin+uintptr(len(b)) <= from+uintptr(size) {
			return true
		}
	}
	return false
}

func (p *Pinned) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.end()
}

// end releases the context after the last piece of memory; p.mu is held.
func (p *Pinned) end() {
	if p.closed && len(p.lent) == 0 {
		_ = p.device.ReleasePrimaryCtx()
	}
}
