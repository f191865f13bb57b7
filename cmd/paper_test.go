package cmd_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An experiment differs from the file that it is compared with only in the lines
// that say so: it is worth nothing if the recipe, too, has moved.
func TestPaperExperiments(t *testing.T) {
	const folder = "../examples/paper"
	recipe := func(name string) []string {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		_, from, ok := strings.Cut(string(data), "\nseed:") // what it is and its name come before
		if !ok {
			t.Fatalf("%s has no seed", name)
		}
		return strings.Split(from, "\n")
	}
	files, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, f := range files {
		base := "base.yaml"
		switch name := f.Name(); {
		case filepath.Ext(name) != ".yaml", name == base, name == "alexnet.yaml", name == "figure1_relu.yaml", name == "peer.yaml", name == "peer_alexnet.yaml":
			continue
		case name == "figure1_tanh.yaml":
			base = "figure1_relu.yaml"
		case name == "peer_direct.yaml", name == "peer_beside.yaml":
			base = "peer.yaml"
		case strings.HasPrefix(name, "peer_alexnet_"):
			base = "peer_alexnet.yaml"
		}
		compared++
		want, got := recipe(base), recipe(f.Name())
		if len(got) != len(want) {
			t.Errorf("%s has %d lines from seed on, %s %d: put a comment in the place of what is left out", f.Name(), len(got), base, len(want))
			continue
		}
		marked := 0
		for i, line := range got {
			if strings.Contains(line, "# here:") {
				marked++
				if line == want[i] {
					t.Errorf("%s: %q is marked and is as in %s", f.Name(), line, base)
				}
			} else if line != want[i] {
				t.Errorf("%s: %q is %q in %s, and does not say # here:", f.Name(), line, want[i], base)
			}
		}
		if marked == 0 {
			t.Errorf("%s differs from %s in nothing", f.Name(), base)
		}
	}
	if compared < 14 {
		t.Errorf("%d experiments in %s", compared, folder)
	}
}
