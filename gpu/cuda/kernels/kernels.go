// Package kernels holds the PTX of the CUDA engine's kernels, and their source.
//
//	device.h       the words they are written in
//	gemm.h         what convolutions and dense layers multiply
//	gemm.cu        their products in float32
//	gemm_tf32.cu   and by tensor cores
//	windows.cu     pooling
//	lrn.cu         local response normalisation
//	softmax.cu     softmax with cross-entropy
//	points.cu      all that does little with each number
//	input.cu       bytes to the first activation
package kernels

import "embed"

//go:generate go -C _gen run .

//go:embed *.ptx
var files embed.FS

// PTX is the text of each file of kernels, by its name.
func PTX() map[string]string {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(err) // of a folder inside the program
	}
	texts := make(map[string]string, len(entries))
	for _, e := range entries {
		text, err := files.ReadFile(e.Name())
		if err != nil {
			panic(err)
		}
		texts[e.Name()] = string(text)
	}
	return texts
}
