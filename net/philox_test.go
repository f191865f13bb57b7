package net_test

import (
	"math"
	"testing"

	"sluice/net"
)

// TestPhilox holds the known answers of the Random123 library (kat_vectors).
func TestPhilox(t *testing.T) {
	for _, c := range []struct {
		counter [4]uint32
		key     [2]uint32
		want    [4]uint32
	}{
		{[4]uint32{}, [2]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{
			[4]uint32{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, [2]uint32{0xffffffff, 0xffffffff},
			[4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
		},
		{
			[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0},
			[4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1},
		},
	} {
		if got := net.Philox(c.counter, c.key); got != c.want {
			t.Errorf("Philox(%x, %x) = %x, want %x", c.counter, c.key, got, c.want)
		}
	}
}

// A mask is the same whatever parts it is computed in, and keeps the fraction
// that it is asked to.
func TestDropoutMask(t *testing.T) {
	const n = 100_000
	key := net.RandomKey{Seed: 1, Step: 2, Layer: 3}
	for _, keep := range []float32{0.25, 0.5, 0.9, 1} {
		mask := make([]float32, n)
		net.DropoutMask(mask, 0, keep, key)
		kept := 0
		for _, v := range mask {
			if v != 0 {
				kept++
				if v != 1/keep {
					t.Fatalf("keep %g: a mask of %g", keep, v)
				}
			}
		}
		p := float64(keep)
		if off := math.Abs(float64(kept) - n*p); off > 4*math.Sqrt(n*p*(1-p)) {
			t.Errorf("keep %g: kept %d of %d", keep, kept, n)
		}
		for _, from := range []int{1, 2, 3, 4, 1001} {
			part := make([]float32, 103)
			net.DropoutMask(part, from, keep, key)
			for i, v := range part {
				if v != mask[from+i] {
					t.Fatalf("keep %g: element %d differs when the mask begins at %d", keep, from+i, from)
				}
			}
		}
	}
}

// Masks of other steps, layers and seeds have nothing to do with each other: half
// of the elements agree.
func TestDropoutStreams(t *testing.T) {
	const n = 40_000
	base := net.RandomKey{Seed: 1, Step: 2, Layer: 3}
	mask := func(k net.RandomKey) []float32 {
		m := make([]float32, n)
		net.DropoutMask(m, 0, 0.5, k)
		return m
	}
	want := mask(base)
	for _, other := range []net.RandomKey{
		{Seed: 2, Step: 2, Layer: 3}, {Seed: 1, Step: 3, Layer: 3}, {Seed: 1, Step: 2, Layer: 4},
		{Seed: 1 << 32, Step: 2, Layer: 3}, {Seed: 1, Step: 2 + 1<<32, Layer: 3},
	} {
		agree := 0
		for i, v := range mask(other) {
			if v == want[i] {
				agree++
			}
		}
		if math.Abs(float64(agree)-n/2) > 4*math.Sqrt(n)/2 {
			t.Errorf("%+v agrees with %+v in %d of %d elements", other, base, agree, n)
		}
	}
}

func BenchmarkDropoutMask(b *testing.B) {
	mask := make([]float32, 1<<16)
	b.SetBytes(4 << 16)
	for b.Loop() {
		net.DropoutMask(mask, 0, 0.5, net.RandomKey{Seed: 1})
	}
}
