package cmd

import (
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
	if err := os.Truncate(k.file, 100); err != nil {
		t.Fatal(err)
	}
	if _, again := take(); !strings.Contains(told.String(), "taking them again") || !reflect.DeepEqual(again, first) {
		t.Errorf("after damage they differ, or are not taken anew: %q", told.String())
	}
	if _, again := take(); told.Len() > 0 || !reflect.DeepEqual(again, first) {
		t.Errorf("the damaged file was not replaced: %q", told.String())
	}
}
