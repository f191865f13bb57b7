//go:build !noasm

package simd

func widths(l Level) []width {
	switch l {
	case AVX512:
		return avx512Widths
	case AVX2:
		return avx2Widths
	}
	return genericWidths
}

// Narrow tiles load as often for fewer lanes; wide ones have fewer rows, which
// divide a line of pixels less evenly.
var (
	avx512Widths = []width{{&avx512x32, 100}, {&avx512x48, 103}, {&avx512x16, 130}}
	avx2Widths   = []width{{&avx2x16, 100}}
)

var avx512x16 = Tiles{
	Rows: 14, Lanes: 16,
	product: []func(*uintptr){
		avx512Product1x16, avx512Product2x16, avx512Product3x16, avx512Product4x16, avx512Product5x16, avx512Product6x16, avx512Product7x16,
		avx512Product8x16, avx512Product9x16, avx512Product10x16, avx512Product11x16, avx512Product12x16, avx512Product13x16, avx512Product14x16,
	},
	outer: []func(*uintptr){
		avx512Outer1x16, avx512Outer2x16, avx512Outer3x16, avx512Outer4x16, avx512Outer5x16, avx512Outer6x16, avx512Outer7x16,
		avx512Outer8x16, avx512Outer9x16, avx512Outer10x16, avx512Outer11x16, avx512Outer12x16, avx512Outer13x16, avx512Outer14x16,
	},
}

var avx512x32 = Tiles{
	Rows: 14, Lanes: 32,
	product: []func(*uintptr){
		avx512Product1x32, avx512Product2x32, avx512Product3x32, avx512Product4x32, avx512Product5x32, avx512Product6x32, avx512Product7x32,
		avx512Product8x32, avx512Product9x32, avx512Product10x32, avx512Product11x32, avx512Product12x32, avx512Product13x32, avx512Product14x32,
	},
	outer: []func(*uintptr){
		avx512Outer1x32, avx512Outer2x32, avx512Outer3x32, avx512Outer4x32, avx512Outer5x32, avx512Outer6x32, avx512Outer7x32,
		avx512Outer8x32, avx512Outer9x32, avx512Outer10x32, avx512Outer11x32, avx512Outer12x32, avx512Outer13x32, avx512Outer14x32,
	},
}

var avx512x48 = Tiles{
	Rows: 9, Lanes: 48,
	product: []func(*uintptr){
		avx512Product1x48, avx512Product2x48, avx512Product3x48, avx512Product4x48, avx512Product5x48, avx512Product6x48, avx512Product7x48,
		avx512Product8x48, avx512Product9x48,
	},
	outer: []func(*uintptr){
		avx512Outer1x48, avx512Outer2x48, avx512Outer3x48, avx512Outer4x48, avx512Outer5x48, avx512Outer6x48, avx512Outer7x48,
		avx512Outer8x48, avx512Outer9x48,
	},
}

var avx2x16 = Tiles{
	Rows: 6, Lanes: 16,
	product: []func(*uintptr){
		avx2Product1x16, avx2Product2x16, avx2Product3x16, avx2Product4x16, avx2Product5x16, avx2Product6x16,
	},
	outer: []func(*uintptr){
		avx2Outer1x16, avx2Outer2x16, avx2Outer3x16, avx2Outer4x16, avx2Outer5x16, avx2Outer6x16,
	},
}

// peakVectors is how many vectors a round of a peak loop multiplies and adds.
const peakVectors = 210

func peakLoop(l Level) (loop func(rounds int), flops float64) {
	switch l {
	case AVX512:
		return avx512Peak, 2 * 16 * peakVectors
	case AVX2:
		return avx2Peak, 2 * 8 * peakVectors
	}
	return nil, 0
}
