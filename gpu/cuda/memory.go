//go:build cuda && linux

package cuda

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"gorgonia.org/cu"

	"sluice/net"
)

// align is what an allocation of the driver has, and so has each tensor.
const align = 256

// buffer is the Mem of a tensor: numbers in N x H x W x C or O x H x W x C order, 16-bit
// places of an Index.
type buffer struct {
	e  *Engine
	at cu.DevicePtr
	// four is, of an input, the same images with a fourth channel of zeros, or 0. Both are
	// written by Load, and by nothing else.
	four cu.DevicePtr
}

func at(t *net.Tensor) cu.DevicePtr { return t.Mem.(*buffer).at }

// mostElements is what kernels count in 32 bits, also in a last block that reaches beyond.
const mostElements = math.MaxInt32 - 1<<14

// bytesOf is how much memory a tensor takes.
func bytesOf(s net.Spec) (int, error) {
	d := s.Shape
	n := 1
	for _, d := range [...]int{d.N, d.C, d.H, d.W} {
		if d < 1 {
			return 0, fmt.Errorf("tensor %q has the empty shape %v", s.Name, s.Shape)
		}
		if d > mostElements/n {
			return 0, fmt.Errorf("tensor %q of shape %v is too large for the card's kernels", s.Name, s.Shape)
		}
		n *= d
	}
	switch s.Kind {
	case net.Map, net.Matrix, net.Vector:
	case net.Filter:
		if g := s.FilterGroups(); g < 1 || d.N%g != 0 {
			return 0, fmt.Errorf("tensor %q of %d outputs cannot have %d groups", s.Name, d.N, g)
		}
	case net.Index:
		return (2*n + align - 1) / align * align, nil
	default:
		return 0, fmt.Errorf("tensor %q is of the unknown kind %d", s.Name, s.Kind)
	}
	return (4*n + align - 1) / align * align, nil
}

func (e *Engine) layout(specs []net.Spec) (places []net.Place, total int, err error) {
	sizes := make([]int, len(specs))
	for i, s := range specs {
		if sizes[i], err = bytesOf(s); err != nil {
			return nil, 0, err
		}
	}
	places, total = net.Arena(specs, sizes)
	return places, total, nil
}

// Size is the bytes of all tensors; 0 for specs that Alloc refuses.
func (e *Engine) Size(specs []net.Spec) int64 {
	_, total, err := e.layout(specs)
	if err != nil {
		return 0
	}
	return int64(total)
}

// Alloc makes tensors, sharing memory where lifetimes do not meet.
func (e *Engine) Alloc(specs []net.Spec) ([]*net.Tensor, error) { return e.alloc(specs, 1) }

// alloc is Alloc of tensors that there will be so many times, which is for its advice alone.
func (e *Engine) alloc(specs []net.Spec, times int) ([]*net.Tensor, error) {
	if err := e.failed(); err != nil {
		return nil, err
	}
	places, total, err := e.layout(specs)
	if err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	tensors := make([]*net.Tensor, len(specs))
	var short *outOfMemory
	err = e.call(func() error {
		had := len(e.arenas)
		err := e.place(specs, places, total, tensors)
		if !errors.As(err, &short) {
			return err
		}
		// All of it is not there, not the tensor that was too much.
		for _, p := range e.arenas[had:] {
			if err := cu.MemFree(p); err != nil {
				return fmt.Errorf("freeing: CUDA says %w", err)
			}
		}
		e.arenas = e.arenas[:had]
		short.asked = int64(total)
		if free, _, infoErr := cu.MemInfo(); infoErr == nil {
			short.free = free
		}
		return err
	})
	if errors.As(err, &short) {
		e.advise(short, slices.Repeat([][]net.Spec{specs}, times), 0)
	}
	if err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	e.held, e.heldBytes = append(e.held, slices.Clone(specs)), e.heldBytes+int64(total)
	return tensors, nil
}

// place allocates the tensors of Alloc, by the owner.
func (e *Engine) place(specs []net.Spec, places []net.Place, total int, tensors []*net.Tensor) error {
	var arena cu.DevicePtr
	var err error
	if !e.separate && total > 0 {
		if arena, err = e.zeroed(total); err != nil {
			return err
		}
	}
	for i, s := range specs {
		m := &buffer{e: e, at: arena + cu.DevicePtr(places[i].Offset)}
		if e.separate {
			if m.at, err = e.zeroed(exact(s)); err != nil {
				return err
			}
		}
		tensors[i] = &net.Tensor{Spec: s, Mem: m}
	}
	return nil
}

// exact is the bytes of a tensor without alignment.
func exact(s net.Spec) int {
	if s.Kind == net.Index {
		return ceil(2*s.Shape.Len(), 4) * 4 // whole words, as they are copied
	}
	return 4 * s.Shape.Len()
}

// zeroed allocates, by the owner. What it gives is freed by release.
func (e *Engine) zeroed(bytes int) (cu.DevicePtr, error) {
	p, err := e.allocate(bytes)
	if err != nil {
		return 0, err
	}
	e.arenas = append(e.arenas, p)
	if err := cu.MemsetD8Async(p, 0, int64(bytes), e.compute); err != nil {
		return 0, fmt.Errorf("clearing %d bytes: CUDA says %w", bytes, err)
	}
	return p, nil
}

func (e *Engine) allocate(bytes int) (cu.DevicePtr, error) {
	p, err := cu.MemAlloc(int64(bytes))
	if err == cu.OutOfMemory {
		free, total, infoErr := cu.MemInfo()
		if infoErr != nil {
			return 0, fmt.Errorf("allocating %d bytes: CUDA says %w", bytes, err)
		}
		return 0, &outOfMemory{asked: int64(bytes), free: free, total: total}
	}
	if err != nil {
		return 0, fmt.Errorf("allocating %d bytes: CUDA says %w", bytes, err)
	}
	return p, nil
}

// outOfMemory says how much there is, and what would fit.
type outOfMemory struct {
	asked, free, total int64
	batch, fits        int // images of the batch that was asked for, and of one that would fit
}

func (o *outOfMemory) Error() string {
	const mib = 1 << 20
	s := fmt.Sprintf("out of memory: %.1f MiB are wanted, %.1f of the card's %.1f MiB are free", float64(o.asked)/mib, float64(o.free)/mib, float64(o.total)/mib)
	switch {
	case o.batch <= 1:
		return s
	case o.fits > 0:
		return fmt.Sprintf("%s; a batch of %d instead of %d would fit: set batch: {size: %d}", s, o.fits, o.batch, o.fits)
	}
	return s + "; no batch would fit"
}

// advise says which batch would fit: of all that there is and the wanted tensors, beside so
// many bytes.
func (e *Engine) advise(short *outOfMemory, wanted [][]net.Spec, beside int64) {
	short.batch, short.fits = e.batchThatFits(slices.Concat(e.held, wanted), short.free+e.heldBytes-beside)
}

// batchThatFits is the batch of these tensors, and the largest whose tensors would take
// at most so many bytes. Tensors of a group may share memory.
func (e *Engine) batchThatFits(groups [][]net.Spec, free int64) (batch, fits int) {
	for _, specs := range groups {
		for _, s := range specs {
			if s.Kind == net.Map {
				batch = max(batch, s.Shape.N)
			}
		}
	}
	for low, high := 0, batch; low < high; {
		n := (low + high + 1) / 2
		var size int64
		for _, specs := range groups {
			scaled := slices.Clone(specs)
			for i, s := range scaled {
				if (s.Kind == net.Map || s.Kind == net.Index) && s.Shape.N == batch {
					scaled[i].Shape.N = n
				}
			}
			size += e.Size(scaled)
		}
		if size <= free {
			low, fits = n, n
		} else {
			high = n - 1
		}
	}
	return batch, fits
}

// scratch is memory for what one op leaves there and nobody reads after it.
type scratch struct {
	memory cu.DevicePtr
	bytes  int
}

// scratchBytes bounds the parts of one product.
const scratchBytes = 64 << 20

// need gives at least so many bytes of s. It waits for the card only where there is less
// yet, in a first step.
func (e *Engine) need(s *scratch, bytes int) (cu.DevicePtr, bool) {
	if bytes <= s.bytes {
		return s.memory, true
	}
	err := e.call(func() error {
		if err := e.land(); err != nil {
			return err
		}
		if s.memory != 0 {
			if err := cu.MemFree(s.memory); err != nil {
				return fmt.Errorf("freeing: CUDA says %w", err)
			}
		}
		*s = scratch{}
		p, err := e.allocate(bytes)
		if err == nil {
			*s = scratch{p, bytes}
		}
		return err
	})
	if short := (*outOfMemory)(nil); errors.As(err, &short) {
		e.advise(short, nil, int64(bytes))
	}
	if err != nil {
		e.stick(err)
	}
	return s.memory, err == nil
}
