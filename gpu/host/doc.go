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
// # Order of sums
//
// Work is cut into tasks by the geometry alone, never by the number of threads,
// and no two tasks add to the same number. So results do not depend on threads.
// They do depend on the level, by rounding: the sizes of tiles and blocks differ,
// and only plain Go rounds each product.
package host
