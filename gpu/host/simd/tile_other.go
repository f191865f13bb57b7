//go:build noasm || !amd64

package simd

func widths(Level) []width { return genericWidths }

func peakLoop(Level) (loop func(rounds int), flops float64) { return nil, 0 }
