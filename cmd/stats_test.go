package cmd

import (
	"bytes"
	"os"
	"reflect"
	"strings"
	"testing"

	"sluice/pipeline"
	_ "sluice/stages"
)

// TestKeeper: what was taken once is found again, and taken anew if it is damaged.
func TestKeeper(t *testing.T) {
	dir := t.TempDir()
	var told strings.Builder
	take := func() (*keeper, *pipeline.Statistics) {
		t.Helper()
		told.Reset()
		spec, err := pipeline.Parse("test.yaml", []byte("name: x\nsource: {shapes: {samples: 20}}\nsamples: [decode, {resize: {size: [16, 16]}}]\nbatch: {size: 4}\n"), nil)
		if err != nil {
			t.Fatal(err)
		}
		k := &keeper{dir: dir, told: &told}
		s, err := k.ofSource(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		return k, s
	}
	k, first := take()
	if !strings.Contains(told.String(), "taking") || first.Images != 20 || first.W != 16 {
		t.Errorf("%d images, %q", first.Images, told.String())
	}
	if _, again := take(); told.Len() > 0 || !reflect.DeepEqual(again, first) {
		t.Errorf("the second time they differ, or are taken anew: %q", told.String())
	}
	whole, err := os.ReadFile(k.file)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)-4] ^= 1 // the last bit of a number
	for what, damaged := range map[string][]byte{"cut short": whole[:100], "a bit flipped": flipped, "empty": nil} {
		if err := os.WriteFile(k.file, damaged, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, again := take(); !strings.Contains(told.String(), "taking them again") || !reflect.DeepEqual(again, first) {
			t.Errorf("%s: they differ, or are not taken anew: %q", what, told.String())
		}
	}
	if _, again := take(); told.Len() > 0 || !reflect.DeepEqual(again, first) {
		t.Errorf("the damaged file was not replaced: %q", told.String())
	}
}
