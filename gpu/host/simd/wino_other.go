//go:build noasm || !amd64

package simd

func winoImage(_ Level, side int) func(*uintptr) { return genericImage(side) }

func winoSpread(_ Level, k, side int) func(*uintptr) { return genericSpread(k, side) }

func winoGather(_ Level, side, k int) func(*uintptr) { return genericGather(side, k) }
