package pipeline

import (
	"math/bits"
	"math/rand/v2"
)

// An order is the order of one epoch: a permutation of [0, n) of which any place
// is computed by itself, so that a run can start anywhere without replaying.
//
// The permutation is a balanced Feistel network over the smallest even number
// of bits that holds n, keyed by ChaCha8; a value outside [0, n) is sent through
// again until it falls inside (cycle walking: Black and Rogaway, "Ciphers with
// Arbitrary Finite Domains", 2002). It needs no memory, and less than four turns
// on average.
type order struct {
	n    int
	half uint // bits of each half
	keys [feistelRounds]uint64
}

const (
	feistelRounds = 8
	// minHalf keeps tiny datasets well mixed: a network over very few bits reaches
	// only some of the permutations.
	minHalf = 4
)

// newOrder is the order of n samples; unshuffled, it is the source's own.
func newOrder(seed uint64, epoch, n int, shuffle bool) order {
	o := order{n: n}
	if !shuffle || n < 2 {
		return o
	}
	o.half = max(minHalf, uint(bits.Len(uint(n-1))+1)/2)
	r := rand.NewChaCha8(randKey(seed, Key{Epoch: epoch}, labelHash("epoch order")))
	for i := range o.keys {
		o.keys[i] = r.Uint64()
	}
	return o
}

// at is the index of the sample at place pos of the epoch, 0 <= pos < n.
func (o *order) at(pos int) int {
	if o.half == 0 {
		return pos
	}
	mask := uint64(1)<<o.half - 1
	x := uint64(pos)
	for {
		left, right := x>>o.half, x&mask
		for _, k := range o.keys {
			left, right = right, left^mix(right^k)&mask
		}
		x = left<<o.half | right
		if x < uint64(o.n) {
			return int(x)
		}
	}
}

// mix is the finalizer of SplitMix64 (Steele, Lea and Flood, "Fast Splittable
// Pseudorandom Number Generators", 2014): every bit of z moves every bit out.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
