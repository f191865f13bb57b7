package net

import (
	"cmp"
	"slices"
)

// Place is where a tensor lies in an arena.
type Place struct {
	Offset int
	// Shared says that another tensor lies there at another time.
	Shared bool
}

// meet says whether two tensors hold something at the same time.
func meet(a, b Spec) bool {
	return a.To < 0 || b.To < 0 || a.From <= b.To && b.From <= a.To
}

// Arena places tensors of these sizes in one piece of memory, the largest first, each at
// the lowest offset that no tensor alive at the same time covers; size is how much
// memory they take.
func Arena(specs []Spec, sizes []int) (places []Place, size int) {
	places = make([]Place, len(specs))
	order := make([]int, len(specs))
	for i := range specs {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(sizes[j], sizes[i]) })
	var taken []int // indices into specs, by offset
	for _, i := range order {
		p := &places[i]
		for _, j := range taken {
			if q := places[j]; meet(specs[i], specs[j]) && q.Offset < p.Offset+sizes[i] {
				p.Offset = max(p.Offset, q.Offset+sizes[j])
			}
		}
		at, _ := slices.BinarySearchFunc(taken, p.Offset, func(j, offset int) int {
			return cmp.Compare(places[j].Offset, offset+1)
		})
		taken = slices.Insert(taken, at, i)
		size = max(size, p.Offset+sizes[i])
	}
	for i := range specs {
		for j := range i {
			a, b := &places[i], &places[j]
			if a.Offset < b.Offset+sizes[j] && b.Offset < a.Offset+sizes[i] {
				a.Shared, b.Shared = true, true
			}
		}
	}
	return places, size
}
