package pipeline

import (
	"context"
	"errors"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/memory"
)

func TestPool(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	p := newPool(mem, 2, 64, newWatch())
	p.poison = true
	a, err := p.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p.idle() != 0 {
		t.Errorf("%d buffers are idle, want 0", p.idle())
	}
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := p.get(ctx); err != stop {
		t.Errorf("get from an empty pool: %v, want the context's cause", err)
	}
	bytes := a.Bytes()
	a.Retain()
	a.Release()
	if p.idle() != 0 {
		t.Error("a buffer came back before its last release")
	}
	a.Release()
	if p.idle() != 1 {
		t.Errorf("%d buffers are idle, want 1", p.idle())
	}
	if bytes[0] != 0xDB || bytes[63] != 0xDB {
		t.Error("a released buffer is not poisoned")
	}
	p.close()
	b.Release() // after close, straight to the memory
	mem.AssertSize(t, 0)
	defer func() {
		if recover() == nil {
			t.Error("a buffer could be released twice")
		}
	}()
	p.Free(bytes)
}
