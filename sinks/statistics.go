package sinks

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"
	"slices"
	"strconv"

	"github.com/disintegration/imaging"

	"sluice/net"
	"sluice/pipeline"
)

// Names of the tensors and the metadata of a file of statistics.
const (
	eigenvaluesName  = "eigenvalues"
	eigenvectorsName = "eigenvectors"
	imagesKey        = "images"
	sumKey           = "sum" // of all numbers, see pipeline.Statistics.Sum
)

// WriteStatistics writes a safetensors file, whole or not at all:
//
//	mean           height x width x 3, RGB, levels of 0..255; not there where the images differ in size
//	mean_channels  3
//	eigenvalues    3, of the covariance of RGB on 0..1, the greatest first
//	eigenvectors   3 x 3: rows R, G, B; column i belongs to eigenvalue i
//
// Its metadata has the number of images, a checksum of all numbers, and what is in about.
func WriteStatistics(file string, s *pipeline.Statistics, about map[string]string) error {
	var tensors []net.NamedTensor
	add := func(name string, dims []int, data []float32) {
		tensors = append(tensors, net.NamedTensor{Name: name, Role: net.RoleWeight, Dims: dims, Data: data})
	}
	if s.MeanImage != nil {
		add(net.MeanName, []int{s.H, s.W, 3}, s.MeanImage)
	}
	add(net.ChannelMeanName, []int{3}, s.Mean[:])
	var values, vectors []float32
	for i, v := range s.PCA.Values {
		values = append(values, float32(v))
		for _, e := range s.PCA.Vectors[i] {
			vectors = append(vectors, float32(e))
		}
	}
	add(eigenvaluesName, []int{3}, values)
	add(eigenvectorsName, []int{3, 3}, vectors)
	meta := map[string]string{imagesKey: strconv.Itoa(s.Images), sumKey: s.Sum()}
	for k, v := range about {
		meta[k] = v
	}
	return replaceFile(file, func(w io.Writer) error { return net.WriteSafetensors(w, tensors, meta) })
}

// ReadStatistics reads what WriteStatistics wrote. It holds the numbers to the checksum,
// where there is one: other programs may write such files as well.
func ReadStatistics(file string) (*pipeline.Statistics, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	tensors, meta, err := net.ReadSafetensors(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	s := &pipeline.Statistics{}
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%s: %w; make it anew with the stats command", file, fmt.Errorf(format, args...))
	}
	if s.Images, err = strconv.Atoi(meta[imagesKey]); err != nil || s.Images < 1 {
		return nil, bad("it does not say of how many images it has statistics")
	}
	find := func(name string, dims ...int) []float32 {
		i := slices.IndexFunc(tensors, func(t net.NamedTensor) bool { return t.Name == name })
		if i < 0 || dims != nil && !slices.Equal(tensors[i].Dims, dims) {
			err = bad("it has no %q of %v numbers", name, dims)
			return make([]float32, 9)
		}
		return tensors[i].Data
	}
	copy(s.Mean[:], find(net.ChannelMeanName, 3))
	for i, v := range find(eigenvaluesName, 3)[:3] {
		s.PCA.Values[i] = float64(v)
	}
	for i, v := range find(eigenvectorsName, 3, 3)[:9] {
		s.PCA.Vectors[i/3][i%3] = float64(v)
	}
	if err != nil {
		return nil, err
	}
	for _, t := range tensors {
		if t.Name == net.MeanName {
			if len(t.Dims) != 3 || t.Dims[2] != 3 {
				return nil, bad("its %q has the shape %v, and it is height x width x 3", t.Name, t.Dims)
			}
			s.H, s.W, s.MeanImage = t.Dims[0], t.Dims[1], t.Data
		}
		for _, v := range t.Data {
			if v-v != 0 { // true of NaN and of the infinities only
				return nil, bad("a number of %q is %g", t.Name, v)
			}
		}
	}
	if sum, ok := meta[sumKey]; ok && sum != s.Sum() {
		return nil, bad("its checksum is not that of its numbers, so it is damaged")
	}
	return s, nil
}

// DrawMean draws the mean image as a PNG file, whole or not at all. It is an error
// if there is none.
func DrawMean(file string, s *pipeline.Statistics) error {
	if s.MeanImage == nil {
		return fmt.Errorf("cannot draw %s: the images differ in size, so they have no mean image", file)
	}
	img := imaging.New(s.W, s.H, color.Black)
	for i := range s.W * s.H {
		p := s.MeanImage[3*i:]
		level := func(v float32) uint8 { return uint8(min(max(v+0.5, 0), 255)) }
		img.Set(i%s.W, i/s.W, color.NRGBA{level(p[0]), level(p[1]), level(p[2]), 255})
	}
	return replaceFile(file, func(w io.Writer) error { return png.Encode(w, image.Image(img)) })
}
