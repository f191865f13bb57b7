package caffe

import (
	"fmt"
	"os"
)

// ReadMean reads a mean image (.binaryproto, 3 x H x W, blue first) and gives its
// mean a channel: red, green, blue, in levels 0..255. That is what Caffe's own
// classify.py subtracts.
func ReadMean(file string) ([3]float32, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return [3]float32{}, err
	}
	t, err := blob(data)
	if err != nil {
		return [3]float32{}, fmt.Errorf("%s: the mean image: %w", file, err)
	}
	dims := t.Dims
	if len(dims) == 4 && dims[0] == 1 {
		dims = dims[1:]
	}
	if len(dims) != 3 || dims[0] != 3 || len(t.Data) == 0 {
		return [3]float32{}, fmt.Errorf("%s: a mean image has the shape 3 x H x W, and this is of %v", file, t.Dims)
	}
	var mean [3]float32
	area := len(t.Data) / 3
	for c := range mean {
		sum := 0.
		for _, v := range t.Data[c*area:][:area] {
			sum += float64(v)
		}
		mean[2-c] = float32(sum / float64(area))
	}
	return mean, nil
}
