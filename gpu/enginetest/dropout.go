package enginetest

import (
	"math/rand/v2"
	"testing"

	"sluice/net"
)

// dropoutTruth is the mask of n elements in NCHW order, divided by keep.
func dropoutTruth(n int, keep float32, key net.RandomKey) []float64 {
	mask := make([]float32, n)
	net.DropoutMask(mask, 0, keep, key)
	return wide(mask)
}

// testDropoutOfParts shows that a batch drops what its images would drop at their places in a
// larger one: elements are counted in NCHW order from the first image on, so that image n of
// N x C x H x W begins at n*C*H*W, on whichever device it is computed.
func testDropoutOfParts(t *testing.T, newEngine func() net.Engine) {
	e := open(t, newEngine)
	key := net.RandomKey{Seed: 5, Step: 6, Layer: 7}
	for _, s := range []net.Shape{{N: 6, C: 7, H: 3, W: 5}, {N: 6, C: 13, H: 1, W: 1}} {
		ts := alloc(t, e, mapSpec("whole", s.N, s.C, s.H, s.W, 1))
		x := normal(rand.New(rand.NewPCG(1, 1)), s.Len())
		e.Upload(ts[0], x)
		e.Dropout(ts[0], ts[0], 0.5, key)
		got := get(e, ts[0])
		for n, image := 0, s.Image(); n < s.N; n++ {
			mask := make([]float32, image)
			net.DropoutMask(mask, n*image, 0.5, key)
			for i, m := range mask {
				mask[i] = m * x[n*image+i]
			}
			compare(t, "an image of a part", got[n*image:][:image], wide(mask), 0)
		}
	}
	sync(t, e)
}
