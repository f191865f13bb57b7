//go:build !noasm

package nearest

import "sluice/gpu/host/simd"

// distancesOf gives the loop of a level.
func distancesOf(l simd.Level) func(dst, rows, query []float32) {
	switch l {
	case simd.AVX512:
		return whole(avx512Distances)
	case simd.AVX2:
		return whole(avx2Distances)
	}
	return distances
}

// whole makes of a loop over whole blocks one over any width.
func whole(loop func(dst, rows, query []float32, stride int)) func(dst, rows, query []float32) {
	return func(dst, rows, query []float32) {
		width := len(query)
		n := width &^ (block - 1)
		rows = rows[:len(dst)*width]
		if n == 0 || len(dst) == 0 {
			distances(dst, rows, query)
			return
		}
		loop(dst, rows, query[:n], width)
		if n == width {
			return
		}
		for i := range dst {
			dst[i] += square(rows[i*width+n:][:width-n], query[n:])
		}
	}
}
