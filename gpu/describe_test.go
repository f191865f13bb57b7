package gpu

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sluice/net"
	"sluice/pipeline"
	"sluice/sinks"
)

func TestDescribe(t *testing.T) {
	dir := t.TempDir()
	keep := must(sinks.NewCheckpoints(sinks.CheckpointsOptions{EverySteps: 3, Keep: 9}))
	l := line(t, dir, 1, trainStage(t, smallNet+"epochs: 2", nil), "train", weightsSink(t), pipeline.NamedSink{Name: "checkpoints", Sink: keep})
	l.Epochs, l.Validation, l.Env.Epochs = 2, validation(), 2
	l.Env.ValidationPreprocessing = "- decode: {}\n- center_crop:\n    size: 16\n"
	if err := l.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "weights.safetensors")
	d, err := Inspect(file)
	if err != nil {
		t.Fatal(err)
	}
	if d.Kind != "weights" || d.Parameters != 1763 || !slices.Equal(d.Classes, classes) || d.Image.Width != side || d.Samples != l.Env.ValidationPreprocessing {
		t.Errorf("described as %+v", d)
	}
	want := []LayerDescription{
		{"conv1", "conv", [3]int{8, 16, 16}, 224, 55296},
		{"pool1", "max_pool", [3]int{8, 8, 8}, 0, 0},
		{"dropout1", "dropout", [3]int{8, 8, 8}, 0, 0},
		{"fc2", "dense", [3]int{3, 1, 1}, 1539, 1536},
		{"softmax1", "softmax", [3]int{3, 1, 1}, 0, 0},
	}
	if !slices.Equal(d.Layers, want) {
		t.Errorf("layers %+v, want %+v", d.Layers, want)
	}
	if at := d.Training; at.Epoch != 1 || at.Step != 10 || at.Seed != "5" || at.Top1 == nil || at.Epochs != 0 {
		t.Errorf("training %+v", at)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, sum, err := readHashed(file); err != nil || d.SHA256 != sum || d.Bytes != int64(len(data)) || len(d.Tensors) != 4 || d.Tensors[0].Name != "conv1.weight" || !slices.Equal(d.Tensors[0].Shape, []int{8, 3, 3, 3}) {
		t.Errorf("%s, %d bytes, tensors %+v, want %s", d.SHA256, d.Bytes, d.Tensors, sum)
	}
	// Describe says the same without reading the tensors.
	light, err := Describe(file)
	if err != nil {
		t.Fatal(err)
	}
	d.SHA256, d.Bytes, d.Tensors = "", 0, nil
	if !reflect.DeepEqual(light, d) {
		t.Errorf("Describe says %+v, want %+v", light, d)
	}
	// The fingerprint is that of features made with the same images.
	e := env(8)
	e.Preprocessing = l.Env.ValidationPreprocessing
	x := extractStage(t, file, func(o *ExtractOptions) { o.Logits = true })
	prepare(t, x, e)
	if v, _ := x.schema.Metadata().GetValue("preprocessing"); v != d.Preprocessing {
		t.Errorf("features have the fingerprint %s, weights %s", v, d.Preprocessing)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}

	checkpoint := filepath.Join(dir, net.CheckpointDir, "step-3.safetensors")
	c, err := Inspect(checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	if at := c.Training; c.Kind != "checkpoint" || at.Step != 3 || at.Epoch != 0 || at.Position != 24 || at.Epochs != 2 || at.LR != 0.05 || len(c.Tensors) != 8 {
		t.Errorf("%s: training %+v, %d tensors", c.Kind, at, len(c.Tensors))
	}
	data, err = os.ReadFile(checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	if err := os.WriteFile(checkpoint, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Inspect(checkpoint); err == nil || !strings.Contains(err.Error(), checkpoint+": damaged") {
		t.Errorf("a damaged checkpoint gives %v", err)
	}
}

func TestDescribeOfOtherFiles(t *testing.T) {
	dir := t.TempDir()
	foreign := filepath.Join(dir, "foreign.safetensors")
	f, err := os.Create(foreign)
	if err != nil {
		t.Fatal(err)
	}
	if err := net.WriteSafetensors(f, []net.NamedTensor{{Name: "features.0.weight", Dims: []int{2, 3}, Data: make([]float32, 6)}}, map[string]string{"format": "pt"}); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := Inspect(foreign)
	if err != nil || d.Kind != "tensors" || d.Parameters != 6 || len(d.Tensors) != 1 || d.Metadata["format"] != "pt" {
		t.Errorf("%+v (%v)", d, err)
	}
	if _, err := Describe(foreign); err == nil || !strings.Contains(err.Error(), `does not say its "net"`) {
		t.Errorf("Describe gives %v", err)
	}
	for _, file := range []string{dir, filepath.Join(dir, "missing")} {
		if _, err := Describe(file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("Describe gives %v", err)
		}
		if _, err := Inspect(file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("Inspect gives %v", err)
		}
	}
}
