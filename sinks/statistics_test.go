package sinks

import (
	"bytes"
	"image/png"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"sluice/augment"
	"sluice/net"
	"sluice/pipeline"
)

func someStatistics(t *testing.T) *pipeline.Statistics {
	t.Helper()
	pca, err := augment.NewPCA([3][3]float64{{0.08, 0.07, 0.06}, {0.07, 0.09, 0.05}, {0.06, 0.05, 0.1}})
	if err != nil {
		t.Fatal(err)
	}
	return &pipeline.Statistics{
		Images: 7, W: 2, H: 1, MeanImage: []float32{1, 2.25, 3.5, 254.9, 5, 6}, Mean: [3]float32{128.1, 3, 4}, PCA: pca,
	}
}

func TestStatisticsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s.safetensors")
	want := someStatistics(t)
	for range 2 { // the second without a mean image, in the place of the first
		if err := WriteStatistics(file, want, map[string]string{"source": "x"}); err != nil {
			t.Fatal(err)
		}
		got, err := ReadStatistics(file)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) || got.Sum() != want.Sum() {
			t.Errorf("%+v was written, and %+v read", want, got)
		}
		m, err := net.ReadMean(file)
		if err != nil {
			t.Fatal(err)
		}
		mean := &net.MeanImage{H: want.H, W: want.W, Pixels: want.MeanImage}
		if want.MeanImage == nil {
			mean = &net.MeanImage{H: 1, W: 1, Pixels: want.Mean[:]}
		}
		if !reflect.DeepEqual(m, mean) {
			t.Errorf("a network reads %+v, want %+v", m, mean)
		}
		want.W, want.H, want.MeanImage = 0, 0, nil
	}
}

func TestStatisticsFileMistakes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s.safetensors")
	tensor := func(name string, dims ...int) net.NamedTensor {
		n := 1
		for _, d := range dims {
			n *= d
		}
		return net.NamedTensor{Name: name, Dims: dims, Data: make([]float32, n)}
	}
	images := map[string]string{"images": "3"}
	whole := []net.NamedTensor{tensor("mean_channels", 3), tensor("eigenvalues", 3), tensor("eigenvectors", 3, 3)}
	for _, c := range []struct {
		says    string
		tensors []net.NamedTensor
		meta    map[string]string
	}{
		{"how many images", whole, nil},
		{"eigenvectors", whole[:2], images},
		{"eigenvalues", []net.NamedTensor{whole[0], tensor("eigenvalues", 4), whole[2]}, images},
		{"height x width", append([]net.NamedTensor{tensor("mean", 6)}, whole...), images},
	} {
		var b bytes.Buffer
		if err := net.WriteSafetensors(&b, c.tensors, c.meta); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadStatistics(file); err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), file) {
			t.Errorf("the error does not name the file and %q: %v", c.says, err)
		}
	}
	if err := os.WriteFile(file, []byte("no tensors"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadStatistics(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file of something else: %v", err)
	}
}

func TestDrawMean(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mean.png")
	s := someStatistics(t)
	if err := DrawMean(file, s); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	for x, want := range [][3]uint32{{1, 2, 4}, {255, 5, 6}} {
		r, g, b, _ := img.At(x, 0).RGBA()
		if got := [3]uint32{r >> 8, g >> 8, b >> 8}; got != want {
			t.Errorf("pixel %d is %v, want %v", x, got, want)
		}
	}
	s.MeanImage = nil
	if err := DrawMean(filepath.Join(t.TempDir(), "none.png"), s); err == nil {
		t.Error("a mean image that is not there was drawn")
	}
}
