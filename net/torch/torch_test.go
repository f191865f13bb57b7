package torch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/net"
	"sluice/net/nettest"
)

// Files of testdata are made by scripts/goldens_import.py.

// nearTo compares logits with what PyTorch computed, which a file has.
func nearTo(t *testing.T, got []float32, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var want []float64
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d logits, want %d", len(got), len(want))
	}
	for i := range want {
		if d := math.Abs(float64(got[i]) - want[i]); !(d < 1e-4) {
			t.Errorf("logit %d is %g, want %g", i, got[i], want[i])
		}
	}
}

// Every form of torchvision's file gives PyTorch's logits, and so does what goes
// back.
func TestAlexNet(t *testing.T) {
	for _, file := range []string{"alexnet.pth", "alexnet_legacy.pth", "alexnet.safetensors"} {
		t.Run(file, func(t *testing.T) {
			state, err := ReadState(filepath.Join("testdata", file))
			if err != nil {
				t.Fatal(err)
			}
			g, tensors, err := AlexNet(state)
			if err != nil {
				t.Fatal(err)
			}
			plan, err := g.Def().Plan(1, AlexNetSide, AlexNetSide, 0)
			if err != nil {
				t.Fatal(err)
			}
			picture := nettest.Picture(AlexNetSide, AlexNetSide)
			nearTo(t, nettest.Logits(t, nettest.NewReference(), plan, tensors, picture), "testdata/alexnet.json")

			back, err := AlexNetState(plan, tensors)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(back, state, func(a, b net.NamedTensor) bool {
				return a.Name == b.Name && slices.Equal(a.Dims, b.Dims) && slices.Equal(a.Data, b.Data)
			}) {
				t.Error("the state dict did not come back as it was")
			}
		})
	}
}

// Numbers of every kind, and views on others' storages, are those of the same
// tensor in plain float32.
func TestKinds(t *testing.T) {
	for _, file := range []string{"kinds.pth", "kinds_legacy.pth"} {
		state, err := ReadState(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]net.NamedTensor{}
		for _, s := range state {
			found[s.Name] = s
		}
		for _, name := range []string{"half", "bfloat16", "double", "turned", "part", "small", "parameter"} {
			got, want := found[name], found[name+".plain"]
			if len(want.Data) == 0 || !slices.Equal(got.Dims, want.Dims) || !slices.Equal(got.Data, want.Data) {
				t.Errorf("%s: %s is %v of %v, want %v of %v", file, name, got.Data, got.Dims, want.Data, want.Dims)
			}
		}
	}
}

func TestHalf(t *testing.T) {
	for bits, want := range map[uint16]float32{
		0x3c00: 1, 0xc000: -2, 0x7bff: 65504, 0x0001: 1. / (1 << 24), 0x83ff: -1023. / (1 << 24), 0x0400: 1. / (1 << 14),
		0x7c00: float32(math.Inf(1)), 0x8000: float32(math.Copysign(0, -1)),
	} {
		if got := half(bits); math.Float32bits(got) != math.Float32bits(want) {
			t.Errorf("%#04x is %g, want %g", bits, got, want)
		}
	}
	if v := half(0x7e00); v == v {
		t.Errorf("0x7e00 is %g, want no number", v)
	}
}

// What is no state dict of floats says what it is.
func TestOtherFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, err := os.ReadFile("testdata/alexnet.pth")
	if err != nil {
		t.Fatal(err)
	}
	legacy, err := os.ReadFile("testdata/alexnet_legacy.pth")
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"testdata/integers.pth":                                  `tensor "steps": its numbers are of a LongStorage`,
		"testdata/module.pth":                                    "class torch.nn.modules.linear.Linear, and only state dicts are read: save model.state_dict()",
		"testdata/protocol4.pth":                                 "pickled by protocol 4 or later",
		write("empty.pth", ""):                                   "is neither a file of torch.save nor safetensors",
		write("text.pth", "These are no weights at all."):        "is neither a file of torch.save nor safetensors",
		write("half.pth", string(good[:len(good)/2])):            "not a valid zip file",
		write("half_legacy.pth", string(legacy[:len(legacy)/2])): "numbers",
		write("start_legacy.pth", string(legacy[:300])):          "the file ends within a pickled object",
		filepath.Join(dir, "none.pth"):                           "no such file",
	} {
		_, err := ReadState(file)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: error %v, want %q", file, err, want)
		}
	}
}

// A state dict that does not fit names the tensors, by torchvision's names.
func TestAlexNetMistakes(t *testing.T) {
	state, err := ReadState("testdata/alexnet.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(s []net.NamedTensor) []net.NamedTensor) error {
		_, _, err := AlexNet(f(slices.Clone(state)))
		return err
	}
	for want, f := range map[string]func(s []net.NamedTensor) []net.NamedTensor{
		"there are no tensors": func(s []net.NamedTensor) []net.NamedTensor { return nil },
		`none of the tensors is of torchvision's AlexNet; the first is "conv1.weight"`: func(s []net.NamedTensor) []net.NamedTensor {
			s[0].Name = "conv1.weight"
			return s[:1]
		},
		"and 7 mistakes more":                   func(s []net.NamedTensor) []net.NamedTensor { return s[:1] },
		`tensor "features.0.weight" is missing`: func(s []net.NamedTensor) []net.NamedTensor { return s[1:] },
		`tensor "features.7.weight" is none of torchvision's AlexNet`: func(s []net.NamedTensor) []net.NamedTensor {
			s[0].Name = "features.7.weight"
			return s
		},
		`tensor "features.3.weight" has shape [8 6 3 3], and [8 6 5 5] would fit`: func(s []net.NamedTensor) []net.NamedTensor {
			s[2].Dims = []int{8, 6, 3, 3}
			return s
		},
		`tensor "classifier.6.weight" has shape []`: func(s []net.NamedTensor) []net.NamedTensor {
			s[14].Dims = nil
			return s
		},
	} {
		if err := change(f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// Only torchvision's network has a form there.
func TestAlexNetStateMistakes(t *testing.T) {
	conv := func(out, size, stride, padding int) net.Layer {
		c := net.NewConv(out, size)
		c.Stride, c.Padding = stride, padding
		return c
	}
	input := net.InputOptions{Scale: net.Triple{1, 1, 1}, Channels: "rgb"}
	for want, g := range map[string]net.Graph{
		`layer "second" is not as in torchvision's`: {Input: input, Layers: []net.Node{
			{Name: "first", Layer: conv(4, 11, 4, 2)}, {Name: "second", Layer: net.MaxPoolLayer{Size: 2, Stride: 2}},
			{Layer: net.NewDense(0)}, {Layer: net.SoftmaxLayer{}},
		}},
		`layer "first" is not as in torchvision's`: {Input: input, Layers: []net.Node{
			{Name: "first", Layer: conv(4, 11, 2, 2)}, {Layer: net.NewDense(0)}, {Layer: net.SoftmaxLayer{}},
		}},
		"takes RGB images of 224 x 224 without padding": {Input: net.InputOptions{Scale: net.Triple{1, 1, 1}, Channels: "bgr"}, Layers: []net.Node{
			{Layer: net.NewDense(0)}, {Layer: net.SoftmaxLayer{}},
		}},
	} {
		plan, err := g.Def().Plan(1, 224, 224, 3)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := AlexNetState(plan, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// FuzzReadState: whatever a file holds, reading it ends with tensors or an error,
// and takes no more memory than a few times its size.
func FuzzReadState(f *testing.F) {
	files, err := filepath.Glob("testdata/*.pth")
	if err != nil || len(files) < 5 {
		f.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	// Lengths that a file claims and does not have.
	for _, op := range []string{"\x8e\xff\xff\xff\xff\xff\x7f\x00\x00", "\x8d\x00\x00\x00\x00\x00\x01\x00\x00", "X\xff\xff\xff\x7f", "\x95\x00\x00\x00\x00\x00\x01\x00\x00"} {
		f.Add([]byte("\x80\x02\x8a\x0a" + op))
		f.Add([]byte("\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + "\x80\x02" + op))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tensors, err := readState(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		for _, x := range tensors {
			n := 1
			for _, d := range x.Dims {
				n *= d
			}
			if n != len(x.Data) {
				t.Error(fmt.Sprint(x.Name, " has ", len(x.Data), " numbers of ", x.Dims))
			}
		}
	})
}
