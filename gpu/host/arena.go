package host

import (
	"fmt"
	"math"

	"sluice/gpu/host/simd"
	"sluice/net"
)

// align is in floats: a tensor begins on a cache line.
const align = 16

// slack is how many floats lie behind the last tensor: kernels read all lanes of
// a panel, and throw away those beyond the last channel.
const slack = 64

// layout places tensors in two arenas, of floats and of 16-bit window positions of max
// pooling, and gives their sizes. Panels are as wide as the tiles of the level.
func layout(specs []net.Spec, level simd.Level) (places []net.Place, floats, indices int, err error) {
	places = make([]net.Place, len(specs))
	for _, arena := range []struct {
		indices bool
		size    *int
	}{{false, &floats}, {true, &indices}} {
		var of, sizes []int
		var in []net.Spec
		for i, s := range specs {
			if (s.Kind == net.Index) != arena.indices {
				continue
			}
			n, err := elements(s, level)
			if err != nil {
				return nil, 0, 0, err
			}
			of, in, sizes = append(of, i), append(in, s), append(sizes, (n+align-1)/align*align)
		}
		placed, size := net.Arena(in, sizes)
		for k, p := range placed {
			places[of[k]] = p
		}
		*arena.size = size
	}
	return places, floats, indices, nil
}

// elements is how many numbers the layout of s takes.
func elements(s net.Spec, level simd.Level) (int, error) {
	sh := s.Shape
	if sh.N < 1 || sh.C < 1 || sh.H < 1 || sh.W < 1 {
		return 0, fmt.Errorf("cpu: tensor %q has the empty shape %v", s.Name, sh)
	}
	dims := [4]int{sh.N, sh.H, sh.W, sh.C}
	switch s.Kind {
	case net.Map:
		if s.Halo < 0 || s.Halo > math.MaxInt32 {
			return 0, fmt.Errorf("cpu: tensor %q has a halo of %d", s.Name, s.Halo)
		}
		dims[1] += 2 * s.Halo
		dims[2] += 2 * s.Halo
	case net.Filter, net.Matrix:
		g := s.FilterGroups()
		if g < 1 || sh.N%g != 0 {
			return 0, fmt.Errorf("cpu: tensor %q of %d outputs cannot have %d groups", s.Name, sh.N, g)
		}
		t := simd.TilesFor(level, sh.N/g)
		dims[0] = panels(sh.N/g, t) * g * t.Lanes
	case net.Vector, net.Index:
	default:
		return 0, fmt.Errorf("cpu: tensor %q is of the unknown kind %d", s.Name, s.Kind)
	}
	n := 1
	for _, d := range dims {
		if d > (math.MaxInt-align)/8/n {
			return 0, fmt.Errorf("cpu: tensor %q of shape %v is too large for memory", s.Name, sh)
		}
		n *= d
	}
	return n, nil
}

// Size is the bytes of both arenas and of the scratch memory of convolutions; 0 for
// specs that Alloc refuses.
func (e *Engine) Size(specs []net.Spec) int64 {
	p := e.winoPlan(specs)
	_, floats, indices, err := layout(append(specs[:len(specs):len(specs)], p.specs...), e.level)
	if err != nil {
		return 0
	}
	return 4*int64(floats+p.shared+len(e.workers)*(p.buf+p.alt)) + 2*int64(indices)
}

// memory is the Mem of a tensor.
type memory struct {
	e       *Engine
	f       []float32
	idx     []uint16
	shared  bool      // its halo is dirty before each use
	scratch []float32 // for computing it, or for its planes
	planes  planesOf  // the weights' planes that scratch holds
}

// planesOf is what planes of weights were made for; zero: none.
type planesOf struct {
	form   *simd.Winograd
	stride int
}

// Alloc makes tensors, sharing memory where lifetimes do not meet.
func (e *Engine) Alloc(specs []net.Spec) (tensors []*net.Tensor, err error) {
	if e.err != nil {
		return nil, e.err
	}
	p := e.winoPlan(specs)
	places, floats, indices, err := layout(append(specs[:len(specs):len(specs)], p.specs...), e.level)
	if err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil { // make: too large
			tensors, err = nil, fmt.Errorf("cpu: allocating %d bytes: %v", 4*int64(floats)+2*int64(indices), p)
		}
	}()
	arena, marks := make([]float32, floats+slack), make([]uint16, indices)
	tensors = make([]*net.Tensor, len(specs))
	for i, s := range specs {
		m := &memory{e: e, shared: places[i].Shared}
		n, _ := elements(s, e.level)
		from := places[i].Offset
		if s.Kind == net.Index {
			m.idx = marks[from : from+n : from+n]
		} else {
			m.f = arena[from : from+n : from+n]
		}
		tensors[i] = &net.Tensor{Spec: s, Mem: m}
	}
	for i, at := range places[len(specs):] {
		n, _ := elements(p.specs[i], e.level)
		tensors[p.of[i]].Mem.(*memory).scratch = arena[at.Offset : at.Offset+n : at.Offset+n]
	}
	need(&e.scratch, p.shared)
	e.reserve(p.buf, p.alt)
	return tensors, nil
}
