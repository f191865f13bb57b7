// Package host computes networks on the CPU.
//
// # Layout
//
// Activations are NHWC with the zero border of Spec.Halo physically around each
// image, so that a convolution reads its window in long runs without asking
// where the image ends. Weights are cut into panels of as many output channels
// as a register tile has lanes, [group][O/lanes][kh][kw][I][lanes], tails filled
// with zeros: a vector of outputs for every place of the window. A dense layer's
// matrix is the panel of a convolution as large as its input, and serves all
// three passes as it lies.
//
// # Kernels
//
// All multiply-adds are done by the two register tiles of package simd: Product
// (rows of activations times a panel, for forward and data gradients) and Outer
// (sums of outer products, for weight gradients), in AVX-512, AVX2 or plain Go.
// What lies around them only chooses addresses, the same at every level but for
// the size of the tiles. Activations are read where they lie; bias and ReLU are
// part of Product.
//
// Blocks are chosen so that what is used again stays in a core's second cache:
// a convolution takes one image after another and walks through it for one panel
// after another.
//
// # Winograd
//
// Convolutions with a window of 3 or 5 are computed by Winograd's algorithm where a
// count of the work says that it pays (Engine.form), in all three passes: patches of
// the image become planes, which take the place of pixels in Product and Outer, and the
// planes of the sums become outputs (simd.Winograd). Those of the weights are made anew
// for every pass, or kept where no step changes them. The three forms are F(4,3),
// F(5,3) and F(3,5): AlexNet's maps of 13 and 27 pixels are 3 and 9 tiles of the last
// two, which need 0.29 and 0.22 of the direct multiplications. The points they
// evaluate at, 7/8, 1/4, 2, their negatives and infinity, round no more than those
// of F(4,3) usually do, and a sum is cut at 128 products: 1.3e-6 to 2.5e-6 of the
// numbers' size in all, where the direct way has 5e-7.
//
// A convolution with a stride is one of stride 1 over cells of stride x stride pixels,
// whose numbers are one pixel's channels: AlexNet's first, 11 x 11 over 3 channels by 4,
// is one of 3 x 3 over 48. Cells are read where they lie, too. The gradient of its input
// is computed directly.
//
// # Order of sums
//
// Work is cut into tasks by the geometry alone, never by the number of threads,
// and no two tasks add to the same number. So results do not depend on threads.
// They do depend on the level, by rounding: the sizes of tiles and blocks differ,
// and only plain Go rounds each product.
package host
