package net_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"sluice/net"
)

func someTensors() []net.NamedTensor {
	big := make([]float32, 300_000) // more than one chunk
	for i := range big {
		big[i] = float32(i)
	}
	return []net.NamedTensor{
		{Name: "conv1.weight", Role: net.RoleWeight, Dims: []int{2, 1, 1, 2}, Data: []float32{1, -2, float32(math.Inf(1)), 1e-45}},
		{Name: "conv1.bias", Role: net.RoleWeight, Dims: []int{2}, Data: []float32{0.5, math.MaxFloat32}},
		{Name: "fc.weight", Role: net.RoleWeight, Dims: []int{3, 100_000}, Data: big},
		{Name: "conv1.bias", Role: net.RoleMomentum, Dims: []int{2}, Data: []float32{3, 4}},
		{Name: "empty", Role: net.RoleWeight, Dims: []int{0, 5}},
	}
}

func written(t testing.TB, tensors []net.NamedTensor, meta map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := net.WriteSafetensors(&b, tensors, meta); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSafetensors(t *testing.T) {
	meta := map[string]string{"classes": `["a", "ü"]`, "net": "alexnet: {}\n"}
	for _, m := range []map[string]string{meta, nil} {
		data := written(t, someTensors(), m)
		if n := binary.LittleEndian.Uint64(data); n%8 != 0 {
			t.Errorf("the tensors begin at %d, not a multiple of 8", 8+n)
		}
		// One byte at a time, as a slow disk gives them.
		for _, r := range []io.Reader{bytes.NewReader(data), &slow{data}} {
			tensors, got, err := net.ReadSafetensors(r)
			if err != nil {
				t.Fatal(err)
			}
			if !sameTensors(tensors, someTensors()) || !maps.Equal(got, m) {
				t.Errorf("read %d tensors and %v", len(tensors), got)
			}
		}
		if got, err := net.ReadSafetensorsMetadata(bytes.NewReader(data)); err != nil || !maps.Equal(got, m) {
			t.Errorf("metadata %v, %v", got, err)
		}
		if again := written(t, someTensors(), m); !bytes.Equal(again, data) {
			t.Error("the same tensors make another file")
		}
	}
}

// slow gives few bytes at a time.
type slow struct{ data []byte }

func (s *slow) Read(p []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 1001)], s.data)
	s.data = s.data[n:]
	return n, nil
}

// file makes a file of a header and n bytes.
func file(header string, n int) []byte {
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(out, header...), make([]byte, n)...)
}

func TestSafetensorsMistakes(t *testing.T) {
	good := written(t, someTensors()[:2], map[string]string{"a": "b"})
	tensor := func(dtype, shape string, from, to int) string {
		return fmt.Sprintf(`{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`, dtype, shape, from, to)
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":             {nil, "ends before its header"},
		"half a length":       {good[:5], "ends before its header"},
		"half a header":       {good[:40], "ends after 32 of the header's"},
		"half a tensor":       {good[:len(good)-1], `ends in tensor "conv1.bias"`},
		"no second tensor":    {good[:len(good)-8], `ends in tensor "conv1.bias"`},
		"too long":            {append(slices.Clone(good), 0), "after the last tensor"},
		"a picture":           {[]byte("\xff\xd8\xff\xe0\x00\x10JFIF....."), "is this a safetensors file?"},
		"no JSON":             {file("hello wo", 0), "is no JSON object"},
		"a list":              {file("[1, 2]  ", 0), "is no JSON object"},
		"cut JSON":            {file(`{"a":   `, 0), "header"},
		"two objects":         {file(`{}{}`, 0), "something follows"},
		"twice":               {file(`{"a":`+tensor("F32", "[1]", 0, 4)+`,"a":`+tensor("F32", "[1]", 4, 8)+`}`, 8), `"a" is there twice`},
		"metadata of numbers": {file(`{"__metadata__":{"a":1}}`, 0), "__metadata__"},
		"half":                {file(`{"a":`+tensor("F16", "[2]", 0, 4)+`}`, 4), `its type is "F16"`},
		"gap":                 {file(`{"a":`+tensor("F32", "[1]", 4, 8)+`}`, 8), "without a gap"},
		"overlap":             {file(`{"a":`+tensor("F32", "[1]", 0, 4)+`,"b":`+tensor("F32", "[1]", 0, 4)+`}`, 8), "without a gap"},
		"wrong length":        {file(`{"a":`+tensor("F32", "[3]", 0, 8)+`}`, 8), "without a gap"},
		"no offsets":          {file(`{"a":{"dtype":"F32","shape":[0]}}`, 0), "without a gap"},
		"negative":            {file(`{"a":`+tensor("F32", "[-1]", 0, 4)+`}`, 4), "is impossible"},
		"overflow":            {file(`{"a":`+tensor("F32", "[4294967296,4294967296,2]", 0, 0)+`}`, 4), "is impossible"},
		"many dimensions":     {file(`{"a":`+tensor("F32", "[1,1,1,1,1,1,1,1,1]", 0, 4)+`}`, 4), "9 dimensions"},
	} {
		_, _, err := net.ReadSafetensors(bytes.NewReader(c.data))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
	_, _, err := net.ReadSafetensors(io.MultiReader(bytes.NewReader(good[:len(good)-3]), broken{}))
	if !errors.Is(err, errBroken) {
		t.Errorf("a broken disk gives %v", err)
	}
}

var errBroken = errors.New("broken")

type broken struct{}

func (broken) Read([]byte) (int, error)  { return 0, errBroken }
func (broken) Write([]byte) (int, error) { return 0, errBroken }

// A header that claims terabytes costs nothing.
func TestSafetensorsMemory(t *testing.T) {
	hostile := map[string][]byte{
		"tensor": file(`{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}`, 5000),
		"header": append(binary.LittleEndian.AppendUint64(nil, 16<<20), '{'),
	}
	for name, data := range hostile {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, _, err := net.ReadSafetensors(bytes.NewReader(data)); err == nil {
			t.Errorf("%s: no error", name)
		}
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
			t.Errorf("%s: %d bytes for a file of %d", name, used, len(data))
		}
	}
}

func TestSafetensorsWriteMistakes(t *testing.T) {
	for want, tensors := range map[string][]net.NamedTensor{
		`two tensors are called "a"`:          {{Name: "a", Dims: []int{0}}, {Name: "a", Dims: []int{0}}},
		`two tensors are called "a.momentum"`: {{Name: "a", Role: net.RoleMomentum, Dims: []int{0}}, {Name: "a.momentum", Dims: []int{0}}},
		"has 1 numbers":                       {{Name: "a", Dims: []int{2}, Data: []float32{1}}},
		`called "__metadata__"`:               {{Name: "__metadata__", Dims: []int{0}}},
	} {
		if err := net.WriteSafetensors(io.Discard, tensors, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if err := net.WriteSafetensors(broken{}, someTensors(), nil); !errors.Is(err, errBroken) {
		t.Errorf("a full disk gives %v", err)
	}
}

// FuzzSafetensors: any bytes end in an error, or in tensors that are written to
// the same tensors again, in memory bounded by the input.
func FuzzSafetensors(f *testing.F) {
	f.Add(written(f, someTensors()[:2], map[string]string{"a": "b"}))
	f.Add(file(`{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}`, 50))
	f.Add(file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a.momentum":{"dtype":"F32","shape":[],"data_offsets":[4,8]}}`, 8))
	f.Add(file("{}", 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		tensors, meta, err := net.ReadSafetensors(bytes.NewReader(data))
		if err != nil {
			return
		}
		again, metaAgain, err := net.ReadSafetensors(bytes.NewReader(written(t, tensors, meta)))
		if err != nil {
			t.Fatal(err)
		}
		if len(again) != len(tensors) || len(metaAgain) != len(meta) {
			t.Errorf("%d tensors, then %d", len(tensors), len(again))
		}
	})
}

// TestSafetensorsInPython loads a file with the reference library: names, shapes,
// sums, and that the file is no longer than its tensors. It needs a Python with
// torch and safetensors: python3, or the one that SLUICE_PYTHON names.
func TestSafetensorsInPython(t *testing.T) {
	python := os.Getenv("SLUICE_PYTHON")
	if python == "" {
		python = "python3"
	}
	if out, err := exec.CommandContext(t.Context(), python, "-c", "import safetensors.torch").CombinedOutput(); err != nil {
		t.Skipf("%s cannot import safetensors.torch (%v); set SLUICE_PYTHON to one that can\n%s", python, err, out)
	}
	plan, err := net.Preset("alexnet_small").Plan(1, 64, 64, 10)
	if err != nil {
		t.Fatal(err)
	}
	n, err := net.New(t.Context(), newReference(), plan, 1, true)
	if err != nil {
		t.Fatal(err)
	}
	tensors, err := n.Snapshot(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "weights.safetensors")
	if err := os.WriteFile(path, written(t, tensors, map[string]string{"classes": `["a", "b"]`}), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), python, "testdata/load_safetensors.py", path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		lines[name] = rest
	}
	for _, w := range tensors {
		name, sum := w.Name, 0.
		if w.Role == net.RoleMomentum {
			name += ".momentum"
		}
		for i, v := range w.Data {
			sum += float64(v) * float64(i%7+1) // so that order matters
		}
		dims := strings.ReplaceAll(strings.Trim(fmt.Sprint(w.Dims), "[]"), " ", "x")
		if want := fmt.Sprintf("torch.float32 %s %.6f", dims, sum); lines[name] != want {
			t.Errorf("%s: PyTorch has %q, want %q", name, lines[name], want)
		}
	}
	if len(lines) != len(tensors)+1 || lines["classes"] != `["a", "b"]` {
		t.Errorf("PyTorch has %d tensors and classes %q\n%s", len(lines)-1, lines["classes"], out)
	}
}
