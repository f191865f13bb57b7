//go:build !noasm

package simd

func winoImage(l Level, side int) func(*uintptr) {
	switch l {
	case AVX512:
		return map[int]func(*uintptr){6: avx512WinoImage6, 7: avx512WinoImage7}[side]
	case AVX2:
		return map[int]func(*uintptr){6: avx2WinoImage6, 7: avx2WinoImage7}[side]
	}
	return genericImage(side)
}

func winoSpread(l Level, k, side int) func(*uintptr) {
	switch l {
	case AVX512:
		return map[[2]int]func(*uintptr){
			{3, 6}: avx512WinoSpread3to6, {4, 6}: avx512WinoSpread4to6, {3, 7}: avx512WinoSpread3to7, {5, 7}: avx512WinoSpread5to7,
		}[[2]int{k, side}]
	case AVX2:
		return map[[2]int]func(*uintptr){
			{3, 6}: avx2WinoSpread3to6, {4, 6}: avx2WinoSpread4to6, {3, 7}: avx2WinoSpread3to7, {5, 7}: avx2WinoSpread5to7,
		}[[2]int{k, side}]
	}
	return genericSpread(k, side)
}

func winoGather(l Level, side, k int) func(*uintptr) {
	switch l {
	case AVX512:
		return map[[2]int]func(*uintptr){
			{6, 3}: avx512WinoGather6to3, {6, 4}: avx512WinoGather6to4, {7, 3}: avx512WinoGather7to3, {7, 5}: avx512WinoGather7to5,
		}[[2]int{side, k}]
	case AVX2:
		return map[[2]int]func(*uintptr){
			{6, 3}: avx2WinoGather6to3, {6, 4}: avx2WinoGather6to4, {7, 3}: avx2WinoGather7to3, {7, 5}: avx2WinoGather7to5,
		}[[2]int{side, k}]
	}
	return genericGather(side, k)
}
