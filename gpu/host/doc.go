// Package host computes networks on the CPU, in plain Go.
//
// # Layout
//
// Activations are NHWC with the zero border of Spec.Halo physically around each
// image, so that a convolution reads its window in long runs without asking
// where the image ends. Weights are cut into panels of 4 output channels,
// [group][O/4][kh][kw][I][4], tails filled with zeros: one vector of 4 outputs
// for every place of the window. A dense layer's matrix is the panel of a
// convolution as large as its input, and serves all three passes as it lies.
//
// # Kernels
//
// All multiply-adds are done by two small functions in kernel.go: tile (rows of
// activations times a panel, for forward and data gradients) and outer (packed
// pixels times packed pixels, for weight gradients). What lies around them only
// chooses addresses. Products are rounded before they are added, float32(x*y)+z,
// so that processors with and without fused multiply-add give the same bits;
// on amd64 that costs nothing.
//
// # Order of sums
//
// Work is cut into tasks by the geometry alone, never by the number of threads,
// and no two tasks add to the same number. So results do not depend on threads.
package host
