package gpu

import (
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"sluice/pipeline/config"
)

func TestPrecision(t *testing.T) {
	const file = "net: alexnet\nepochs: 1\n"
	for text, want := range map[string]Precision{file: FP32, file + "precision: fp32": FP32, file + "precision: tf32": TF32} {
		o := trainOptions(t, text)
		if o.Precision != want {
			t.Errorf("%q gives %v, want %v", text, o.Precision, want)
		}
		// It is in the resolved YAML, and so among what changes the numbers of a run.
		out, err := yaml.Marshal(map[string]any{"batches": []any{map[string]any{"train": o}}})
		if err != nil {
			t.Fatal(err)
		}
		var doc yaml.Node
		if err := yaml.Unmarshal(out, &doc); err != nil {
			t.Fatal(err)
		}
		if lines := flatten(nil, "", doc.Content[0]); !slices.Contains(lines, `batches.0.train.precision: "`+want.String()+`"`) {
			t.Errorf("what changes the numbers has no precision:\n%s", strings.Join(lines, "\n"))
		}
	}
	for _, name := range []string{"bf16", "FP32", "[fp32]"} {
		doc, err := config.Parse("test.yaml", []byte(file+"precision: "+name))
		if err != nil {
			t.Fatal(err)
		}
		var o TrainOptions
		if err := doc.Decode(&o); err == nil || !strings.Contains(err.Error(), "test.yaml:3:12: precision must be fp32 or tf32, is ") {
			t.Errorf("precision %s: error %v", name, err)
		}
	}
}

// What an engine cannot do is refused where it is opened, at the option.
func TestPrecisionOfTheCPU(t *testing.T) {
	s := trainStage(t, smallNet+"epochs: 1\nprecision: tf32", nil)
	e, err := s.newEngine(env(6))
	if testDevice() == CUDA {
		if err != nil || !strings.Contains(e.Name(), "tf32") {
			t.Fatalf("a card refuses tf32: %v", err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		return
	}
	if err == nil || !strings.Contains(err.Error(), "precision") || !strings.Contains(err.Error(), "set precision: fp32") {
		t.Errorf("tf32 on the CPU: error %v", err)
	}
}
