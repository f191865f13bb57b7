package simd

import "time"

// Peak measures how many multiply-adds a second (in GFLOP/s, two operations
// each) one core does at a level, as the best of a few short runs: on vector
// registers, with nothing to load or wait for. Plain Go has no such limit that
// its loops could be held to: 0.
func Peak(l Level) float64 {
	loop, flops := peakLoop(l)
	if loop == nil {
		return 0
	}
	const rounds = 20000
	best := 0.0
	for range 20 {
		start := time.Now()
		loop(rounds)
		best = max(best, float64(rounds)*flops/float64(time.Since(start).Nanoseconds()))
	}
	return best
}
