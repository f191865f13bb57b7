//go:build !noasm

package simd

// PointsOf gives the loops of a level.
func PointsOf(l Level) *Points {
	switch l {
	case AVX512:
		return &avx512Points
	case AVX2:
		return &avx2Points
	}
	return &genericPoints
}

var avx512Points = Points{
	add: avx512Add, reluGrad: avx512ReLUGrad, tanhGrad: avx512TanhGrad, tanh: avx512Tanh, sgd: avx512SGD, squareSum: avx512SquareSum,
	squares: avx512Squares, norm: avx512Norm, ratios: avx512Ratios, normGrad: avx512NormGrad,
	pool: avx512Pool, poolArg: avx512PoolArg, poolGrad: avx512PoolGrad, mean: avx512Mean,
	dropout: func(y, x []float32, block, layer uint32, step, seed uint64, limit uint32, scale float32) {
		whole := len(y) &^ 31
		avx512Dropout(y[:whole], x, block, layer, step, seed, limit, scale)
		dropout(y[whole:], x[whole:], block+uint32(whole/4), layer, step, seed, limit, scale)
	},
	affine: wholeAffine, affineImage: wholeAffineImage, // which are faster than memory
}

// AVX2 cannot mask 16-bit numbers, so that the last channels are left to Go.
var avx2Points = Points{
	add: avx2Add, reluGrad: avx2ReLUGrad, tanhGrad: avx2TanhGrad, tanh: avx2Tanh, sgd: avx2SGD, squareSum: avx2SquareSum,
	squares: avx2Squares, norm: avx2Norm, ratios: avx2Ratios, normGrad: avx2NormGrad,
	pool: func(y, x []float32, c, pixel, n, rows, cols, row, step int) {
		whole := c &^ 7
		avx2Pool(y, x, whole, pixel, n, rows, cols, row, step)
		if whole < c {
			pool(y[whole:], x[whole:], c-whole, pixel, n, rows, cols, row, step)
		}
	},
	poolArg: func(y []float32, arg []uint16, x []float32, c, pixel, n, rows, cols, row, step, place, size int) {
		whole := c &^ 7
		avx2PoolArg(y, arg, x, whole, pixel, n, rows, cols, row, step, place, size)
		if whole < c {
			poolArg(y[whole:], arg[whole:], x[whole:], c-whole, pixel, n, rows, cols, row, step, place, size)
		}
	},
	poolGrad: func(dx, dy []float32, arg []uint16, c, pixel, n, rows, cols, row, rowArg, step, place, stride, size int) {
		whole := c &^ 7
		avx2PoolGrad(dx, dy, arg, whole, pixel, n, rows, cols, row, rowArg, step, place, stride, size)
		if whole < c {
			poolGrad(dx[whole:], dy[whole:], arg[whole:], c-whole, pixel, n, rows, cols, row, rowArg, step, place, stride, size)
		}
	},
	mean: avx2Mean,
	dropout: func(y, x []float32, block, layer uint32, step, seed uint64, limit uint32, scale float32) {
		whole := len(y) &^ 15
		avx2Dropout(y[:whole], x, block, layer, step, seed, limit, scale)
		dropout(y[whole:], x[whole:], block+uint32(whole/4), layer, step, seed, limit, scale)
	},
	affine: wholeAffine, affineImage: wholeAffineImage,
}

func wholeAffine(dst []float32, src []byte, mean, shift, scale []float32, order []byte) {
	whole := len(dst) - len(dst)%(3*affinePixels)
	avx2Affine(dst[:whole], src, mean, shift, scale, order)
	affine(dst[whole:], src[whole:], mean, shift, scale, order)
}

func wholeAffineImage(dst []float32, src []byte, mean, shift, scale []float32, order []byte) {
	whole := len(dst) - len(dst)%(3*affinePixels)
	avx2AffineImage(dst[:whole], src, mean, shift, scale, order)
	affineImage(dst[whole:], src[whole:], mean[whole:], shift, scale, order)
}
