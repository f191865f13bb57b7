package pipeline

import (
	"context"
	"testing"
)

type specShaky struct{ specCrop }

func (specShaky) Random() bool { return true }
func (s specShaky) Substitute() []Stand {
	return []Stand{{"spec_crop", sideOptions{s.size}}, {"spec_crop", sideOptions{s.size - 1}}}
}

type specNoise struct{}

func (specNoise) Random() bool                           { return true }
func (specNoise) Process(context.Context, *Sample) error { return nil }

func init() {
	RegisterSampleStage("spec_shaky", "test random crop", sideOptions{}, func(o sideOptions) (SampleStage, error) { return specShaky{specCrop{o.Size}}, nil })
	RegisterSampleStage("spec_noise", "test noise", struct{}{}, func(struct{}) (SampleStage, error) { return specNoise{}, nil })
}

// Where there is no validation to say how images are to be made without chance,
// the sample stages without what is random in them say it.
func TestPreprocessingWithoutValidation(t *testing.T) {
	const line = "name: x\nsource: spec_source\nsamples: [spec_noise, {spec_crop: {size: 8}}, {spec_shaky: {size: 6}}, spec_noise]\nbatch: {size: 4}\n"
	s, err := Parse("spec.yaml", []byte(line), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.env.ValidationPreprocessing, "- spec_crop:\n    size: 8\n- spec_crop:\n    size: 6\n- spec_crop:\n    size: 5\n"; got != want {
		t.Errorf("preprocessing %q, want %q", got, want)
	}
	s, err = Parse("spec.yaml", []byte(line+"validate: {source: spec_source, samples: [{spec_crop: {size: 6}}]}"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.env.ValidationPreprocessing, "- spec_crop:\n    size: 6\n"; got != want {
		t.Errorf("that of the validation is %q, want %q", got, want)
	}
}
