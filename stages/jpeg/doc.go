// Package jpeg decodes JPEG files (ITU-T T.81) to planes at their own
// subsampling, fast and without allocation once a Decoder has seen pictures of the size.
//
// It takes baseline, extended sequential and progressive Huffman files of 8 bits a
// sample with one, three or four components, any sampling factors, scans that are
// interleaved or not, and restart intervals. What it does not take (arithmetic coding, 12 bits, lossless,
// hierarchical) it refuses by name with [ErrUnsupported], so that the caller can try another decoder.
//
// Damage is never silent: a [Damage] says what is wrong at which byte of the file and which MCU.
// With [Options].Keep the picture is given all the same, with what could be decoded.
//
// The way of a file through the package:
//
//	header.go       markers, tables, the frame: everything outside entropy-coded data
//	bits.go         one restart interval at a time, freed of stuffed bytes, read through 64 bits
//	huffman.go      a code, its value bits and its run of zeros in one lookup
//	sequential.go   baseline and extended: an MCU row of coefficients at a time
//	progressive.go  all coefficients of the picture, refined scan by scan
//	idct.go         coefficients to samples: 16 bit fixed point, the same bytes on every CPU
//	picture.go      the planes, and their view as an image.Image
//
// Samples are those of libjpeg's accurate integer transform ("islow"), bit for bit.
// A picture that needs converting (RGB, CMYK, odd sampling factors) takes the
// sample that covers a pixel, as image/jpeg does; no chroma is interpolated.
package jpeg
