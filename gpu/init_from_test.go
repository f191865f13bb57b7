package gpu

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/memory"

	"sluice/net"
	"sluice/pipeline"
)

// deepNet has two convolutions, and layers between them that keep something for
// going backward.
const deepNet = `
net:
  input: {mean: [120, 120, 120], scale: 0.02}
  layers:
    - conv: {name: conv1, out: 8, size: 3, padding: 1}
    - max_pool: {size: 2, stride: 2}
    - conv: {name: conv2, out: 6, size: 3}
    - dropout: {rate: 0.25}
    - dense: {name: fc3, out: 10}
    - dense: {name: fc4}
    - softmax
`

// pretrained writes the weights of deepNet after some steps, as a run does, and
// gives the file and what is in it. edit may change both before.
func pretrained(t *testing.T, edit func(tensors []net.NamedTensor, meta map[string]string) []net.NamedTensor) (string, map[string][]float32) {
	t.Helper()
	var out outbox
	run(t, trainStage(t, deepNet+"epochs: 1", nil), env(6), 3, 1, out.emit)
	if edit != nil {
		out.weights = edit(out.weights, out.meta)
	}
	file := filepath.Join(t.TempDir(), "weights.safetensors")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := net.WriteSafetensors(f, out.weights, out.meta); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	values := map[string][]float32{}
	for _, w := range out.weights {
		values[w.Name] = w.Data
	}
	return file, values
}

// begun is a stage that has been prepared, with the weights that it begins with and
// what it said.
func begun(t *testing.T, text string, edit func(*pipeline.Env)) (s *Train, weights map[string][]float32, said []string) {
	t.Helper()
	s = trainStage(t, text, nil)
	e := env(6)
	e.Warn = func(text string) { said = append(said, text) }
	if edit != nil {
		edit(e)
	}
	prepare(t, s, e)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, weightsOf(t, s), said
}

func weightsOf(t *testing.T, s *Train) map[string][]float32 {
	t.Helper()
	all, err := s.net.Snapshot(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	weights := map[string][]float32{}
	for _, w := range all {
		weights[w.Name] = w.Data
	}
	return weights
}

// Layers come from the file, or are as in a run from scratch, as they are told; and
// those that are frozen stay so while the others learn.
func TestInitFrom(t *testing.T) {
	file, old := pretrained(t, nil)
	_, scratch, _ := begun(t, deepNet+"epochs: 1", nil)
	four := append(slices.Clone(classes), "lines")
	for _, c := range []struct {
		name, layers     string
		fresh, frozen    []string
		edit             func(*pipeline.Env)
		sentence, inText string
	}{
		{name: "all", sentence: "init_from: took conv1, conv2, fc3, fc4 from FILE"},
		{name: "told", layers: `{conv1: freeze, "fc*": fresh, fc3: take}`, fresh: []string{"fc4"}, frozen: []string{"conv1"},
			sentence: "init_from: took conv1, conv2, fc3 from FILE; frozen: conv1; fresh: fc4 (as it is told); not used: fc4.weight, fc4.bias",
			inText:   "  fc4         fresh: as it is told\n"},
		{name: "nothing", layers: `{"*": fresh}`, fresh: []string{"conv1", "conv2", "fc3", "fc4"},
			sentence: "init_from: took nothing from FILE; fresh: conv1 (as it is told), conv2 (as it is told), fc3 (as it is told), fc4 (as it is told); " +
				"not used: conv1.weight, conv1.bias, conv2.weight, conv2.bias, fc3.weight, fc3.bias, fc4.weight, fc4.bias"},
		{name: "other classes", edit: func(e *pipeline.Env) { e.Classes = []string{"across", "dots", "down"} }, fresh: []string{"fc4"},
			sentence: "init_from: took conv1, conv2, fc3 from FILE; fresh: fc4 (the file's classes are others); not used: fc4.weight, fc4.bias"},
		{name: "more classes", layers: `{"conv?": freeze, fc3: {lr: 0.5}}`, edit: func(e *pipeline.Env) { e.Classes = four }, fresh: []string{"fc4"}, frozen: []string{"conv1", "conv2"},
			sentence: "init_from: took conv1, conv2, fc3 from FILE; frozen: conv1, conv2; fresh: fc4 (fc4.weight is 3 x 10 in the file and 4 x 10 here); not used: fc4.weight, fc4.bias",
			inText:   "  conv2       taken; frozen\n  fc3         taken; learning rate times 0.5\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			init := "init_from: " + file
			if c.layers != "" {
				init = "init_from: {file: " + file + ", layers: " + c.layers + "}"
			}
			s, got, said := begun(t, deepNet+"epochs: 1\n"+init, c.edit)
			if want := strings.Replace(c.sentence, "FILE", file, 1); len(said) != 1 || said[0] != want {
				t.Errorf("said %q, want %q", said, want)
			}
			p, err := s.Plan(s.env)
			if err != nil || !strings.Contains(p.Text, "begins with "+file+"\n") || !strings.Contains(p.Text, c.inText) {
				t.Errorf("check says (%v)\n%s\nwithout %q", err, p.Text, c.inText)
			}
			for name, w := range got {
				layer, _, _ := strings.Cut(name, ".")
				want := old[name]
				if slices.Contains(c.fresh, layer) {
					if want = scratch[name]; len(s.env.Classes) > 3 {
						continue // wider
					}
				}
				if !slices.Equal(w, want) {
					t.Errorf("%s begins with other numbers", name)
				}
			}
			for n := range 3 {
				process(t, s, batch(memory.DefaultAllocator, 0, n, 6*n, 6, nil), discard)
			}
			for name, w := range weightsOf(t, s) {
				layer, _, _ := strings.Cut(name, ".")
				if same := slices.Equal(w, got[name]); same != slices.Contains(c.frozen, layer) {
					t.Errorf("%s after two steps: unchanged %v", name, same)
				}
			}
		})
	}
}

// A layer's rate is the solver's, times its own, times that of init_from.
func TestInitFromMultipliesRates(t *testing.T) {
	file, _ := pretrained(t, nil)
	moved := func(lr string) (sum float64) {
		s, before, _ := begun(t, strings.Replace(deepNet, "rate: 0.25", "rate: 0", 1)+
			"epochs: 1\nsolver: {weight_decay: 0}\ninit_from: {file: "+file+", layers: {conv2: {lr: "+lr+"}}}", nil)
		for n := range 2 {
			process(t, s, batch(memory.DefaultAllocator, 0, n, 6*n, 6, nil), discard)
		}
		for i, v := range weightsOf(t, s)["conv2.weight"] {
			sum += math.Abs(float64(v - before["conv2.weight"][i]))
		}
		return sum
	}
	one, tenth, none := moved("1"), moved("0.1"), moved("0")
	if none != 0 || math.Abs(tenth-one/10) > 1e-3*one || one == 0 {
		t.Errorf("conv2 moved by %g, at a tenth of the rate by %g, at none by %g", one, tenth, none)
	}
}

func TestInitFromRefusesWhatDoesNotFit(t *testing.T) {
	file, _ := pretrained(t, nil)
	other, _ := pretrained(t, func(tensors []net.NamedTensor, meta map[string]string) []net.NamedTensor {
		for i := range tensors {
			tensors[i].Name = "x" + tensors[i].Name
		}
		return tensors
	})
	broken, _ := pretrained(t, func(tensors []net.NamedTensor, meta map[string]string) []net.NamedTensor {
		tensors[0].Data[3] = float32(math.NaN())
		return tensors
	})
	noise := filepath.Join(t.TempDir(), "noise")
	if err := os.WriteFile(noise, []byte("no weights at all"), 0o666); err != nil {
		t.Fatal(err)
	}
	wider := strings.Replace(deepNet, "out: 6", "out: 7", 1)
	for _, c := range []struct{ net, init, want string }{
		{deepNet, "missing.safetensors", "init_from cannot be read: open missing.safetensors"},
		{deepNet, noise, "is this a safetensors file?"},
		{deepNet, other, "nothing in " + other + " matches the network: it has xconv1.bias, xconv1.weight"},
		{wider, "{file: " + file + ", layers: {conv2: take}}", "conv2 cannot be taken from " + file + ": conv2.weight is 6 x 8 x 3 x 3 in the file and 7 x 8 x 3 x 3 here"},
		{deepNet, "{file: " + file + ", layers: {cnov1: take}}", `no layer with parameters is named "cnov1"; did you mean "conv1"?`},
		{deepNet, "{file: " + file + `, layers: {"*1": take, "conv*": freeze}}`, `"*1" and "conv*" both match conv1, and say different things`},
		{deepNet, "{file: " + file + ", layers: {\"*\": freeze}}", "nothing to learn: every layer with parameters is frozen"},
		{deepNet, broken, "number 3 of conv1.weight is NaN"},
	} {
		s := trainStage(t, c.net+"epochs: 1\ninit_from: "+c.init, nil)
		err := s.Prepare(t.Context(), env(6))
		if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "init_from: ", "init_from "), c.want) && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.init, err, c.want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for text, want := range map[string]string{
		"{file: x, layers: {\"[\": take}}":             `"[" is no pattern`,
		"{file: x, layers: {conv1: {lr: -1}}}":         "the lr of conv1 must not be negative, is -1",
		"{file: x, layers: {conv1: {start: thaw}}}":    `the start of conv1 must be take, freeze or fresh, is "thaw"`,
		"{file: \"\", layers: {conv1: {start: take}}}": "names no file",
	} {
		if _, err := NewTrain(trainOptions(t, deepNet+"epochs: 1\ninit_from: "+text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}

// A file that was trained on pixels of another scale is taken, and that is said.
func TestInitFromTellsOfAnotherInput(t *testing.T) {
	file, _ := pretrained(t, nil)
	_, _, said := begun(t, strings.Replace(deepNet, "scale: 0.02", "scale: 1", 1)+"epochs: 1\ninit_from: "+file, nil)
	if len(said) != 1 || !strings.HasSuffix(said[0], "; its input had scale [0.02 0.02 0.02] ([1 1 1] here), so what was learnt may not fit the pixels") {
		t.Errorf("said %q", said)
	}
}
