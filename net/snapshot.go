package net

import (
	"context"
	"errors"
	"sync"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// A Snapshot is one piece of host memory for a copy of a network's parameters.
// Records are made over it without another copy; while one of them is held the
// memory is theirs, and the next Take waits. So whoever writes a record in the
// background bounds how far it can fall behind.
type Snapshot struct {
	net      *Network
	momentum bool
	all      []float32
	tensors  []NamedTensor // one after the other in all
	weights  int           // how many of them are no momentum

	mu   sync.Mutex
	lent int           // records
	back chan struct{} // has one element when lent has become 0
}

// NewSnapshot makes the memory for every weight, and every momentum if asked.
func (n *Network) NewSnapshot(momentum bool) (*Snapshot, error) {
	if momentum && !n.train {
		return nil, errors.New("a network made for inference has no momentum")
	}
	s := &Snapshot{net: n, momentum: momentum, back: make(chan struct{}, 1)}
	var sizes []int
	total := 0
	for _, q := range n.params {
		sizes = append(sizes, q.spec.Shape.Len())
		total += q.spec.Shape.Len()
	}
	weights := len(sizes)
	if t, ok := n.plan.meanTensor(); ok {
		sizes = append(sizes, len(t.Data))
		total += len(t.Data)
		weights++
	}
	for q := range n.trained() {
		if momentum {
			sizes = append(sizes, q.spec.Shape.Len())
			total += q.spec.Shape.Len()
		}
	}
	s.weights = weights
	s.all = make([]float32, total)
	rest := s.all
	for _, size := range sizes {
		s.tensors = append(s.tensors, NamedTensor{Data: rest[:size:size]})
		rest = rest[size:]
	}
	return s, nil
}

// Take waits until the records made before are released, or ctx ends, and copies
// the parameters: the weights first, then the momentum. What it gives is valid
// until the next Take.
func (s *Snapshot) Take(ctx context.Context) ([]NamedTensor, error) {
	for {
		s.mu.Lock()
		lent := s.lent
		s.mu.Unlock()
		if lent == 0 {
			break
		}
		select {
		case <-s.back:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	var err error
	s.tensors, err = s.net.Snapshot(s.tensors, s.momentum)
	return s.tensors, err
}

// Weights makes a record of the weights that were taken, see TensorsRecord.
func (s *Snapshot) Weights(meta map[string]string) arrow.Record {
	return s.record(s.weights, meta)
}

// Record makes a record of all that was taken.
func (s *Snapshot) Record(meta map[string]string) arrow.Record {
	return s.record(len(s.tensors), meta)
}

func (s *Snapshot) record(n int, meta map[string]string) arrow.Record {
	tensors := s.tensors[:n]
	if !nativeLittle {
		return TensorsRecord(tensors, meta)
	}
	total := 0
	for _, t := range tensors {
		total += len(t.Data)
	}
	s.mu.Lock()
	s.lent++
	s.mu.Unlock()
	data := memory.NewBufferWithAllocator(arrow.Float32Traits.CastToBytes(s.all[:total]), (*lender)(s))
	defer data.Release()
	return tensorsRecord(tensors, data, meta)
}

// lender is how the last release of a record gives a Snapshot its memory back.
type lender Snapshot

func (l *lender) Free([]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lent--; l.lent == 0 {
		select {
		case l.back <- struct{}{}:
		default: // told already, and nobody has waited since
		}
	}
}

func (l *lender) Allocate(int) []byte { panic("net: the memory of a snapshot does not grow") }

func (l *lender) Reallocate(int, []byte) []byte {
	panic("net: the memory of a snapshot does not grow")
}
