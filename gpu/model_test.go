package gpu

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/net"
)

// tinyModel is a network that weights are made for by hand.
func tinyModel() *Model {
	input := net.InputOptions{Scale: net.Triple{1, 1, 1}, Channels: "rgb"}
	dense := net.NewDense(2)
	dense.Activation = net.None
	g := net.Graph{Input: input, Layers: []net.Node{{Name: "fc", Layer: dense}, {Name: "softmax", Layer: net.SoftmaxLayer{}}}}
	return &Model{
		Net: g.Def(), Height: 2, Width: 1, Classes: []string{"a", "b"}, Samples: "- decode: {}\n",
		Tensors: []net.NamedTensor{
			{Name: "fc.weight", Role: net.RoleWeight, Dims: []int{2, 6}, Data: make([]float32, 12)},
			{Name: "fc.bias", Role: net.RoleWeight, Dims: []int{2}, Data: []float32{1, 2}},
		},
	}
}

// What is written reads as it was.
func TestModelAsFile(t *testing.T) {
	m := tinyModel()
	var out bytes.Buffer
	if err := m.Write(&out, "1.2.3"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "weights.safetensors")
	if err := os.WriteFile(path, out.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	got, err := ReadModel(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.Height != 2 || got.Width != 1 || strings.Join(got.Classes, " ") != "a b" || got.Samples != m.Samples || len(got.Tensors) != 2 {
		t.Errorf("read %+v", got)
	}
	var again bytes.Buffer
	if err := got.Write(&again, "1.2.3"); err != nil || !bytes.Equal(again.Bytes(), out.Bytes()) {
		t.Errorf("written again it is another file (%v)", err)
	}
}

// Weights that do not fit, or are no numbers, are not written.
func TestModelMistakes(t *testing.T) {
	for want, change := range map[string]func(m *Model){
		`tensor "fc.bias": number 1 is NaN`: func(m *Model) { m.Tensors[1].Data[1] = float32(math.NaN()) },
		`missing: "fc.bias" (weight)`:       func(m *Model) { m.Tensors = m.Tensors[:1] },
		"there are 3 classes":               func(m *Model) { m.Classes = []string{"a", "b", "c"} },
		`tensor "fc.weight" (weight) has shape [2 6] with 12 numbers, the network needs [2 12]`: func(m *Model) { m.Width = 2 },
	} {
		m := tinyModel()
		change(m)
		var out bytes.Buffer
		if err := m.Write(&out, ""); err == nil || !strings.Contains(err.Error(), want) || out.Len() > 0 {
			t.Errorf("error %v after %d bytes, want %q", err, out.Len(), want)
		}
	}
	path := filepath.Join(t.TempDir(), "other.safetensors")
	var out bytes.Buffer
	if err := net.WriteSafetensors(&out, tinyModel().Tensors, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, out.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{path, path + ".none"} {
		if _, err := ReadModel(file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: error %v", file, err)
		}
	}
}
