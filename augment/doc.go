// Package augment holds the pure pixel functions of Sluice: pending geometry (View)
// and its one rendering (Renderer), and the arithmetic of the classic
// augmentations (crop positions, mirror, PCA colour shift).
//
//	decoded picture ── View: orientation ▸ scaling ▸ window ▸ mirror ── Renderer ──▶ RGB
//
// A crop, a flip and a resize only edit a View. What is rendered in the end is
// the window alone, and it holds bit for bit the pixels that the same steps give
// when each of them is made on the whole picture.
//
// The functions do no I/O, start no goroutine, and use integer arithmetic only
// where pixels are computed, so every CPU gives the same bits: in AVX-512, AVX2 or plain Go, the best
// that there is or what the environment variable SLUICE_CPU names (avx512, avx2, generic).
//
// A picture that is scaled goes through three passes, row by row of the window, in the fixed point of axis.go:
//
//	planes of samples ── down: a few rows to one ── across: a few samples to one ── colour ──▶ a row of RGB
//
// Bilinear, the filter to train with, is what the assembly is for; bicubic and Lanczos are plain Go.
//
// The planes are those of an *image.YCbCr, each at its own resolution, or the channels of RGB pixels.
package augment
