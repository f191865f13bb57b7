package net_test

import (
	"math/rand/v2"
	"testing"

	"sluice/net"
)

// No two tensors that are alive together overlap, those that do are told so, and memory
// is shared.
func TestArena(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		specs, sizes := make([]net.Spec, 1+r.IntN(30)), []int(nil)
		sum := 0
		for i := range specs {
			specs[i].From = r.IntN(10)
			specs[i].To = specs[i].From + r.IntN(4)
			if r.IntN(6) == 0 {
				specs[i].From, specs[i].To = 0, -1
			}
			sizes = append(sizes, 1+r.IntN(100))
			sum += sizes[i]
		}
		places, size := net.Arena(specs, sizes)
		for i, a := range places {
			if a.Offset < 0 || a.Offset+sizes[i] > size {
				t.Fatalf("tensor %d of %d at %d is not within %d", i, sizes[i], a.Offset, size)
			}
			shared := false
			for j, b := range places {
				if i == j || a.Offset >= b.Offset+sizes[j] || b.Offset >= a.Offset+sizes[i] {
					continue
				}
				shared = true
				if s, o := specs[i], specs[j]; s.To < 0 || o.To < 0 || s.From <= o.To && o.From <= s.To {
					t.Fatalf("tensors %d and %d overlap while both are alive", i, j)
				}
			}
			if a.Shared != shared {
				t.Errorf("tensor %d is shared: %v, told: %v", i, shared, a.Shared)
			}
		}
		if size > sum {
			t.Errorf("%d is more than all tensors take, %d", size, sum)
		}
	}
	one := []net.Spec{{From: 0, To: 0}, {From: 1, To: 1}, {From: 2, To: 2}}
	if _, size := net.Arena(one, []int{7, 9, 8}); size != 9 {
		t.Errorf("three tensors one after another take %d, not the size of the largest", size)
	}
}
