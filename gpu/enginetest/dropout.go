package enginetest

import "sluice/net"

// dropoutTruth is the mask of n elements in NCHW order, divided by keep.
func dropoutTruth(n int, keep float32, key net.RandomKey) []float64 {
	mask := make([]float32, n)
	net.DropoutMask(mask, 0, keep, key)
	return wide(mask)
}
