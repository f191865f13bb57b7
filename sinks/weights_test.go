package sinks

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sluice/net"
	"sluice/pipeline"
)

// tensors are some weights; each epoch has other ones.
func tensors(epoch int) []net.NamedTensor {
	scale := float32(epoch + 1)
	return []net.NamedTensor{
		{Name: "conv1.weight", Role: "weight", Dims: []int{2, 3, 1, 1}, Data: []float32{0, scale, -scale, scale / 3, 1e-30, -1e30}},
		{Name: "conv1.bias", Role: "weight", Dims: []int{2}, Data: []float32{scale, float32(math.SmallestNonzeroFloat32)}},
		{Name: "fc2.weight", Role: "weight", Dims: []int{2, 4}, Data: make([]float32, 8)},
	}
}

func weightsBatch(epoch int, more ...net.NamedTensor) *pipeline.Batch {
	meta := map[string]string{"classes": `["a","b"]`, "epoch": fmt.Sprint(epoch)}
	return &pipeline.Batch{Kind: pipeline.Weights, Epoch: epoch, Record: net.TensorsRecord(append(tensors(epoch), more...), meta)}
}

func weightsIn(t *testing.T, dir string, every, epochs int) *WeightsSink {
	t.Helper()
	s, err := NewWeights(WeightsOptions{File: "weights.safetensors", Every: every})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(t.Context(), &pipeline.Env{RunDir: dir, Epochs: epochs}); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWeightsRoundTrip(t *testing.T) {
	dir := t.TempDir()
	s := weightsIn(t, dir, 1, 3)
	for epoch := range 3 {
		b := weightsBatch(epoch)
		if err := s.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		b.Record.Release()
		wantWeights(t, filepath.Join(dir, "weights.safetensors"), epoch)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, dir, "weights.safetensors")
}

func TestWeightsEvery(t *testing.T) {
	dir := t.TempDir()
	s := weightsIn(t, dir, 2, 5)
	for epoch, want := range []int{-1, 1, 1, 3, 4} { // the epoch that the file is of
		b := weightsBatch(epoch)
		if err := s.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		b.Record.Release()
		path := filepath.Join(dir, "weights.safetensors")
		if _, err := os.Stat(path); (err == nil) != (want >= 0) {
			t.Fatalf("after epoch %d: %v", epoch, err)
		}
		if want >= 0 {
			wantWeights(t, path, want)
		}
	}
}

func TestWeightsOptions(t *testing.T) {
	if _, err := NewWeights(WeightsOptions{File: "../w", Every: 1}); err == nil || !strings.Contains(err.Error(), "file must be") {
		t.Errorf("a file outside: %v", err)
	}
	if _, err := NewWeights(WeightsOptions{File: "w", Every: 0}); err == nil || !strings.Contains(err.Error(), "every must be") {
		t.Errorf("every 0: %v", err)
	}
	s := weightsIn(t, t.TempDir(), 1, 1)
	for _, k := range []pipeline.Kind{pipeline.Samples, pipeline.Metrics, pipeline.Features, pipeline.Quarantine} {
		if s.Accepts(k) {
			t.Errorf("weights accepts %s", k)
		}
	}
	if !s.Accepts(pipeline.Weights) {
		t.Error("weights refuses weights")
	}
}

// A folder that takes no file is told before the run, one that is gone since
// then by the write; both name the file.
func TestWeightsWhereNothingCanBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	want := "cannot write " + filepath.Join(dir, "weights.safetensors")
	s, err := NewWeights(WeightsOptions{File: "weights.safetensors", Every: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(t.Context(), &pipeline.Env{RunDir: dir}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("before the run: %v", err)
	}
	b := weightsBatch(0)
	defer b.Record.Release()
	if err := s.Write(t.Context(), b); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("in the run: %v", err)
	}
}

// A new run does not cost the weights of the one before until it has its own.
func TestWeightsOfTheRunBeforeStay(t *testing.T) {
	dir := t.TempDir()
	b := weightsBatch(0)
	defer b.Record.Release()
	if err := weightsIn(t, dir, 1, 1).Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := weightsIn(t, dir, 1, 1).Close(); err != nil { // interrupted in its first epoch
		t.Fatal(err)
	}
	wantWeights(t, filepath.Join(dir, "weights.safetensors"), 0)
}

// The kernel refuses to write on in the middle of the weights, as on a full
// disk: the file before stays, and no partial one. A process of its own, because
// the limit is one of a process.
func TestWeightsWhenTheDiskFills(t *testing.T) {
	const variable = "SLUICE_TEST_SMALL_DISK"
	if dir := os.Getenv(variable); dir != "" {
		signal.Ignore(syscall.SIGXFSZ)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 64 << 10, Max: 64 << 10}); err != nil {
			t.Fatal(err)
		}
		b := weightsBatch(1, net.NamedTensor{Name: "large.weight", Role: "weight", Dims: []int{50, 1000}, Data: make([]float32, 50_000)})
		defer b.Record.Release()
		err := weightsIn(t, dir, 1, 2).Write(t.Context(), b)
		if !errors.Is(err, syscall.EFBIG) || !strings.Contains(err.Error(), filepath.Join(dir, "weights.safetensors")) {
			t.Errorf("error %v", err)
		}
		return
	}
	dir := t.TempDir()
	b := weightsBatch(0)
	defer b.Record.Release()
	if err := weightsIn(t, dir, 1, 2).Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWeightsWhenTheDiskFills$", "-test.v")
	child.Env = append(os.Environ(), variable+"="+dir)
	if out, err := child.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Fatalf("in the child: %v\n%s", err, out)
	}
	wantWeights(t, filepath.Join(dir, "weights.safetensors"), 0)
	wantOnly(t, dir, "weights.safetensors")
}

func wantWeights(t *testing.T, path string, epoch int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, meta, err := net.ReadSafetensors(f)
	if err != nil {
		t.Fatal(err)
	}
	if meta["epoch"] != fmt.Sprint(epoch) || meta["classes"] != `["a","b"]` {
		t.Errorf("metadata %v of epoch %d", meta, epoch)
	}
	byName := map[string]net.NamedTensor{}
	for _, g := range got {
		byName[g.Name] = g
	}
	for _, w := range tensors(epoch) {
		g := byName[w.Name]
		if fmt.Sprint(g.Dims) != fmt.Sprint(w.Dims) || len(g.Data) != len(w.Data) {
			t.Fatalf("%s is %v of %d numbers, want %v of %d", w.Name, g.Dims, len(g.Data), w.Dims, len(w.Data))
		}
		for i := range w.Data {
			if math.Float32bits(g.Data[i]) != math.Float32bits(w.Data[i]) {
				t.Errorf("%s[%d] is %g, want %g", w.Name, i, g.Data[i], w.Data[i])
			}
		}
	}
}
