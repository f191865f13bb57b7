package pipeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// stallAfter is how long the pool stays empty, with nobody at work, before the
// run is taken for stuck.
const stallAfter = 30 * time.Second

// A pool is a fixed number of batch buffers. It is an Arrow allocator, so that
// the last Release of a record puts its buffer back; having no buffer is what
// holds the line back.
type pool struct {
	mem   memory.Allocator
	size  int
	n     int
	free  chan []byte
	stall time.Duration
	watch *watch
	// poison overwrites what is put back, so that a test sees who reads it later.
	poison bool

	mu     sync.Mutex
	held   map[*byte]string // buffers on their way: whom each was handed to last
	closed bool
}

var _ memory.Allocator = (*pool)(nil)

// newPool makes n buffers of size bytes each. w knows who may give one back.
func newPool(mem memory.Allocator, n, size int, w *watch) *pool {
	p := &pool{mem: mem, size: size, n: n, free: make(chan []byte, n), stall: stallAfter, watch: w, held: map[*byte]string{}}
	for range n {
		p.free <- mem.Allocate(size)
	}
	return p
}

// get waits for a buffer. It fails when ctx ends, and when no buffer comes back
// although nobody is at work who could give one back.
func (p *pool) get(ctx context.Context) (*memory.Buffer, error) {
	select {
	case b := <-p.free: // no timer in the common case
		return p.lend(b), nil
	default:
	}
	timer := time.NewTicker(max(p.stall/looks, 1))
	defer timer.Stop()
	_, seen := p.watch.look()
	for quiet := 0; ; {
		select {
		case b := <-p.free:
			return p.lend(b), nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-timer.C:
			busy, now := p.watch.look()
			if now != seen || len(busy) > 0 {
				seen, quiet = now, 0
			} else if quiet++; quiet >= looks {
				return nil, fmt.Errorf("no batch buffer came back in %v, and nobody is at work: of %d, %s; a stage that keeps batches longer than its call must say how many (Holds), and release them",
					p.stall, p.n, p.holders())
			}
		}
	}
}

func (p *pool) lend(b []byte) *memory.Buffer {
	p.mu.Lock()
	p.held[&b[0]] = "the batcher"
	p.mu.Unlock()
	return memory.NewBufferWithAllocator(b, p)
}

// handed notes that a record goes to a stage or sink.
func (p *pool) handed(rec arrow.Record, to string) {
	at := rec.Schema().FieldIndices("image")
	if len(at) != 1 {
		return
	}
	data := rec.Column(at[0]).Data()
	if len(data.Children()) != 1 {
		return
	}
	bufs := data.Children()[0].Buffers()
	if len(bufs) != 2 || bufs[1] == nil || bufs[1].Len() == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if start := &bufs[1].Bytes()[0]; p.held[start] != "" {
		p.held[start] = to
	}
}

// holders says who has how many of the buffers: "train 2, metrics 1".
func (p *pool) holders() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	count := map[string]int{}
	for _, who := range p.held {
		count[who]++
	}
	var list []string
	for _, who := range slices.Sorted(maps.Keys(count)) {
		list = append(list, fmt.Sprintf("%s holds %d", who, count[who]))
	}
	return strings.Join(list, ", ")
}

// idle is how many buffers are in the pool.
func (p *pool) idle() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n - len(p.held)
}

// close gives the memory back, that of buffers still held as they come. It
// must not run together with get.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	for len(p.free) > 0 {
		p.mem.Free(<-p.free)
	}
}

// Free puts a buffer back.
func (p *pool) Free(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held[&b[0]] == "" {
		panic("pipeline: a batch was released more often than it was retained")
	}
	if p.poison {
		for i := range b {
			b[i] = 0xDB
		}
	}
	delete(p.held, &b[0])
	if p.closed {
		p.mem.Free(b)
		return
	}
	p.free <- b // never blocks: there is room for all n
}

// Allocate panics: the number of buffers is fixed, and get waits for one.
func (p *pool) Allocate(int) []byte { panic("pipeline: the pool of batch buffers does not grow") }

// Reallocate panics, as Allocate does.
func (p *pool) Reallocate(int, []byte) []byte {
	panic("pipeline: the pool of batch buffers does not grow")
}
