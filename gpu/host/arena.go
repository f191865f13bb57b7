package host

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"sluice/gpu/host/simd"
	"sluice/net"
)

// align is in floats: a tensor begins on a cache line.
const align = 16

// slack is how many floats lie behind the last tensor: kernels read all lanes of
// a panel, and throw away those beyond the last channel.
const slack = 64

// meet says whether two tensors hold something at the same time.
func meet(a, b net.Spec) bool {
	return a.To < 0 || b.To < 0 || a.From <= b.To && b.From <= a.To
}

// place is where a tensor lies in its arena.
type place struct {
	offset, size int
	shared       bool // another tensor uses some of the same memory
}

// layout places tensors, the largest first, each at the lowest offset that no
// tensor living at the same time covers. It gives the sizes of the two arenas:
// floats, and 16-bit window positions of max pooling. Panels are as wide as the
// tiles of the level.
func layout(specs []net.Spec, level simd.Level) (places []place, floats, indices int, err error) {
	places = make([]place, len(specs))
	order := make([]int, len(specs))
	for i, s := range specs {
		order[i] = i
		n, err := elements(s, level)
		if err != nil {
			return nil, 0, 0, err
		}
		places[i].size = (n + align - 1) / align * align
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(places[j].size, places[i].size) })
	var taken []int // indices into specs, by offset
	for _, i := range order {
		p := &places[i]
		for _, j := range taken {
			q := places[j]
			if sameArena(specs[i], specs[j]) && meet(specs[i], specs[j]) && q.offset < p.offset+p.size {
				p.offset = max(p.offset, q.offset+q.size)
			}
		}
		at, _ := slices.BinarySearchFunc(taken, p.offset, func(j, offset int) int {
			return cmp.Compare(places[j].offset, offset+1)
		})
		taken = slices.Insert(taken, at, i)
		if specs[i].Kind == net.Index {
			indices = max(indices, p.offset+p.size)
		} else {
			floats = max(floats, p.offset+p.size)
		}
	}
	for i := range specs {
		for j := range i {
			a, b := &places[i], &places[j]
			if sameArena(specs[i], specs[j]) && a.offset < b.offset+b.size && b.offset < a.offset+a.size {
				a.shared, b.shared = true, true
			}
		}
	}
	return places, floats, indices, nil
}

func sameArena(a, b net.Spec) bool { return (a.Kind == net.Index) == (b.Kind == net.Index) }

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
		g := filterGroups(s)
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
	shared  bool           // its halo is dirty before each use
	scratch []float32      // for computing it, or for its planes
	planes  *simd.Winograd // the form of the weights' planes that scratch holds; nil: none
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
		m := &memory{e: e, shared: places[i].shared}
		n, _ := elements(s, e.level)
		from := places[i].offset
		if s.Kind == net.Index {
			m.idx = marks[from : from+n : from+n]
		} else {
			m.f = arena[from : from+n : from+n]
		}
		tensors[i] = &net.Tensor{Spec: s, Mem: m}
	}
	for i, at := range places[len(specs):] {
		tensors[p.of[i]].Mem.(*memory).scratch = arena[at.offset : at.offset+at.size : at.offset+at.size]
	}
	need(&e.scratch, p.shared)
	e.reserve(p.buf, p.alt)
	return tensors, nil
}
