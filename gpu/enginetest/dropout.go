package enginetest

import "sluice/net"

// dropoutTruth is the mask of n elements in NCHW order, divided by keep.
func dropoutTruth(n int, keep float32, key net.RandomKey) []float64 {
	mask := make([]float64, n)
	for i := range mask {
		if float64(philox(key, uint64(i/4))[i%4]) < float64(keep)*(1<<32) {
			mask[i] = 1 / float64(keep)
		}
	}
	return mask
}
func philox(key net.RandomKey, block uint64) [4]uint32 {
	c := [4]uint32{uint32(block), key.Layer, uint32(key.Step), uint32(key.Step >> 32)}
	k0, k1 := uint32(key.Seed), uint32(key.Seed>>32)
	for range 10 {
		p, q := uint64(c[0])*0xD2511F53, uint64(c[2])*0xCD9E8D57
		c = [4]uint32{uint32(q>>32) ^ c[1] ^ k0, uint32(q), uint32(p>>32) ^ c[3] ^ k1, uint32(p)}
		k0, k1 = k0+0x9E3779B9, k1+0xBB67AE85
	}
	return c
}
