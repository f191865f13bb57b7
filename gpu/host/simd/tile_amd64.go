//go:build !noasm

package simd

// TilesOf gives the register tiles of a level; nil for Generic, whose loops are
// the engine's own.
func TilesOf(l Level) *Tiles {
	switch l {
	case AVX512:
		return &avx512Tiles
	case AVX2:
		return &avx2Tiles
	}
	return nil
}

var avx512Tiles = Tiles{
	Rows: 14, Lanes: 32,
	product: []func(*uintptr){
		avx512Product1, avx512Product2, avx512Product3, avx512Product4, avx512Product5, avx512Product6, avx512Product7, avx512Product8, avx512Product9, avx512Product10, avx512Product11, avx512Product12, avx512Product13, avx512Product14,
	},
	outer: []func(*uintptr){
		avx512Outer1, avx512Outer2, avx512Outer3, avx512Outer4, avx512Outer5, avx512Outer6, avx512Outer7, avx512Outer8, avx512Outer9, avx512Outer10, avx512Outer11, avx512Outer12, avx512Outer13, avx512Outer14,
	},
}

var avx2Tiles = Tiles{
	Rows: 6, Lanes: 16,
	product: []func(*uintptr){
		avx2Product1, avx2Product2, avx2Product3, avx2Product4, avx2Product5, avx2Product6,
	},
	outer: []func(*uintptr){
		avx2Outer1, avx2Outer2, avx2Outer3, avx2Outer4, avx2Outer5, avx2Outer6,
	},
}
