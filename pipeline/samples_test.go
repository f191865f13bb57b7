package pipeline

import (
	"strings"
	"testing"
)

func TestParseSamples(t *testing.T) {
	chain, frame, err := ParseSamples("weights", "- spec_keep: {}\n- spec_crop:\n    size: 8\n- spec_crop:\n    size: 6\n")
	if err != nil || len(chain) != 3 || chain[2].Label != "spec_crop#2" || frame.W != 6 || frame.H != 6 {
		t.Errorf("%+v, %+v (%v)", chain, frame, err)
	}
	if got, err := ResolveSamples("weights", "- spec_keep\n- spec_crop: {size: 6}\n"); err != nil || got != "- spec_keep: {}\n- spec_crop:\n    size: 6\n" {
		t.Errorf("resolved to %q (%v)", got, err)
	}
	if _, err := ResolveSamples("weights", "- spec_crop\n"); err == nil || !strings.Contains(err.Error(), "size") {
		t.Errorf("a missing option gives %v", err)
	}
	for text, want := range map[string]string{
		"- spec_corp: {size: 8}\n": `unknown sample stage "spec_corp"; did you mean "spec_crop"?`,
		"- spec_keep\n":            "images differ in size",
		"- {\n":                    "weights:",
		"":                         "samples has no value",
	} {
		if _, _, err := ParseSamples("weights", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gives %v, want %q", text, err, want)
		}
	}
}
