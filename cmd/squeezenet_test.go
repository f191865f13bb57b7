package cmd

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"sluice/gpu"
	"sluice/net"
	"sluice/net/nettest"
)

// scoresAndFeatures is what examples/squeezenet gives of an image: the scores of
// the classes, and the mean of each channel of fire9.
func scoresAndFeatures(t *testing.T, m *gpu.Model, data []float32, pixels []byte) []float32 {
	t.Helper()
	plan, err := m.Plan(1)
	if err != nil {
		t.Fatal(err)
	}
	e, err := gpu.Open(gpu.CPU, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if data != nil {
		e = given{e, data}
	}
	out := nettest.Outputs(t, e, plan, m.Tensors, pixels, "pool_final", "fire9")
	all := out[0]
	shape, err := plan.Out("fire9")
	if err != nil {
		t.Fatal(err)
	}
	for c := range shape.C {
		sum := 0.
		for _, v := range out[1][c*shape.H*shape.W:][:shape.H*shape.W] {
			sum += float64(v)
		}
		all = append(all, float32(sum/float64(shape.H*shape.W)))
	}
	return all
}

// given is an engine whose inputs hold numbers that are given, whatever image is
// loaded: there is no picture of those that the weights came with.
type given struct {
	net.Engine
	data []float32
}

func (g given) NewInput(s net.InputSpec) (net.Input, error) {
	in, err := g.Engine.NewInput(s)
	return givenInput{in, g}, err
}

type givenInput struct {
	net.Input
	given given
}

func (in givenInput) Tensors() (x, labels *net.Tensor, err error) {
	if x, labels, err = in.Input.Tensors(); err == nil {
		in.given.Upload(x, in.given.data)
	}
	return x, labels, err
}

func compare(t *testing.T, got []float32, want []float64, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d numbers, want %d", len(got), len(want))
	}
	for i := range want {
		if d := math.Abs(float64(got[i]) - want[i]); !(d <= tolerance) {
			t.Fatalf("number %d is %g, want %g", i, got[i], want[i])
		}
	}
}

// The network of examples/squeezenet with an eighth of its channels gives what
// PyTorch computes (scripts/goldens_import.py), and its features are extracted by
// the commands of the README.
func TestSqueezeNetSmall(t *testing.T) {
	text, err := os.ReadFile("../examples/squeezenet/net.yaml")
	if err != nil {
		t.Fatal(err)
	}
	narrow := regexp.MustCompile(`out: \d+`).ReplaceAllFunc(text, func(out []byte) []byte {
		n, err := strconv.Atoi(string(out[len("out: "):]))
		if err != nil {
			t.Fatal(err)
		}
		return strconv.AppendInt([]byte("out: "), int64(n/8), 10)
	})
	dir := t.TempDir()
	file := filepath.Join(dir, "net.yaml")
	if err := os.WriteFile(file, narrow, 0o666); err != nil {
		t.Fatal(err)
	}
	extract, err := filepath.Abs("../examples/squeezenet/extract.yaml")
	if err != nil {
		t.Fatal(err)
	}
	state, err := filepath.Abs("testdata/squeezenet/squeezenet.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("testdata/squeezenet/scores.json")
	if err != nil {
		t.Fatal(err)
	}
	var want []float64
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	run := func(args ...string) {
		t.Helper()
		root := newRoot()
		root.SetArgs(args)
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		if err := root.ExecuteContext(t.Context()); err != nil {
			t.Fatalf("pipeline %v: %v", args, err)
		}
	}
	run("import", state, "--net", file, "-o", "squeezenet.safetensors")
	m, err := gpu.ReadModel("squeezenet.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	compare(t, scoresAndFeatures(t, m, nil, nettest.Picture(227, 227)), want, 3e-4) // of numbers up to 400

	run("run", extract, "--quiet", "--set", "source={shapes: {samples: 8}}", "--set", "samples.resize.shorter=256")
	info, err := os.Stat("runs/squeezenet/features/part-00000/fire9.npy")
	if err != nil || info.Size() != 128+8*64*4 {
		t.Errorf("the features of 8 images: %v, %v", info, err)
	}
}

// With the weights and the input of shared/data/weights the network gives the
// output that came with them.
func TestSqueezeNet(t *testing.T) {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	var folder string
	for {
		folder = filepath.Join(dir, "../shared/data/weights")
		if _, err := os.Stat(folder); err == nil {
			break
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Skip("no ../shared/data/weights beside the project: TestSqueezeNetSmall is of the same network, narrower")
		}
		dir = up
	}
	in := importer{file: filepath.Join(folder, "squeezenet_v1.0_caffe_bgr.safetensors"), net: "../examples/squeezenet/net.yaml"}
	m, err := in.read(true)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.finish(m, ""); err != nil {
		t.Fatal(err)
	}
	var want []float64
	for _, v := range float32s(t, filepath.Join(folder, "sq_test_out.f32")) {
		want = append(want, float64(v))
	}
	compare(t, scoresAndFeatures(t, m, float32s(t, filepath.Join(folder, "sq_test_in.f32")), make([]byte, 227*227*3)), want, 1e-4)
}

func float32s(t *testing.T, file string) []float32 {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float32, len(data)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return out
}
