package net

import "math/bits"

// Philox is the counter-based generator Philox 4x32-10 (Salmon, Moraes, Dror and
// Shaw: Parallel Random Numbers: As Easy as 1, 2, 3; SC 2011): four random words
// that are a pure function of counter and key.
func Philox(counter [4]uint32, key [2]uint32) [4]uint32 {
	const (
		m0, m1 = 0xD2511F53, 0xCD9E8D57
		w0, w1 = 0x9E3779B9, 0xBB67AE85
	)
	for range 10 {
		hi0, lo0 := bits.Mul32(m0, counter[0])
		hi1, lo1 := bits.Mul32(m1, counter[2])
		counter = [4]uint32{hi1 ^ counter[1] ^ key[0], lo1, hi0 ^ counter[3] ^ key[1], lo0}
		key[0] += w0
		key[1] += w1
	}
	return counter
}

// RandomKey names a stream of random words. Word i of it is word i%4 of
//
//	Philox(counter {i/4, Layer, Step low, Step high}, key {Seed low, Seed high})
//
// which every engine computes alike, so that a network's dropout depends neither
// on the engine nor on the order of its work. A stream has 2^34 words.
type RandomKey struct {
	Seed  uint64
	Step  uint64
	Layer uint32
}

// Block is words 4*i to 4*i+3 of the stream.
func (k RandomKey) Block(i uint32) [4]uint32 {
	return Philox(
		[4]uint32{i, k.Layer, uint32(k.Step), uint32(k.Step >> 32)},
		[2]uint32{uint32(k.Seed), uint32(k.Seed >> 32)})
}

// KeepLimit is what dropout compares with: an element is kept if its word is
// below it.
func KeepLimit(keep float32) uint64 { return uint64(float64(keep) * (1 << 32)) }

// DropoutMask fills mask for elements first, first+1, ... of the NCHW order:
// 1/keep where the element is kept, else 0.
func DropoutMask(mask []float32, first int, keep float32, key RandomKey) {
	limit, scale := KeepLimit(keep), 1/keep
	for i := 0; i < len(mask); {
		at := first + i
		words := key.Block(uint32(at / 4))
		for _, word := range words[at%4:] {
			if i == len(mask) {
				break
			}
			mask[i] = 0
			if uint64(word) < limit {
				mask[i] = scale
			}
			i++
		}
	}
}
