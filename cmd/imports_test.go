package cmd

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mayImport is who may import whom, tests aside: a package or a folder ending in
// "/..." to the packages of the project that it may use, beyond those in its own
// internal folder. ARCHITECTURE.md says why. The command may use everything.
var mayImport = map[string][]string{
	// What helps to test an extension may use what it tests.
	"pipeline/pipelinetest": {"pipeline"},
	"net/nettest":           {"net"},

	"augment":         {},
	"pipeline/config": {},
	"pipeline":        {"augment", "pipeline/config"},
	"net":             {"pipeline/config"},
	"net/caffe":       {"net"},
	"net/onnx":        {"net"},
	"net/torch":       {"net"},
	"stages":          {"pipeline", "pipeline/config", "augment", "stages/jpeg"},
	"stages/...":      {},
	"gpu":             {"pipeline", "pipeline/config", "net", "gpu/host", "gpu/host/simd", "gpu/cuda"},
	"gpu/host":        {"net", "gpu/host/simd"},
	"gpu/cuda":        {"net", "gpu/cuda/kernels"},
	"gpu/...":         {"net"},
	"sinks":           {"pipeline", "pipeline/config", "net"},
	"sinks/nearest":   {"pipeline/config", "sinks", "gpu/host/simd"},
	"cmd":             {"pipeline", "pipeline/config", "net", "net/caffe", "net/onnx", "net/torch", "gpu", "stages", "sinks", "sinks/nearest"},
	"cmd/pipeline":    {"cmd", "stages", "sinks", "gpu"},
}

func rulesFor(pkg string) (allowed []string, ok bool) {
	if allowed, ok = mayImport[pkg]; ok {
		return allowed, true
	}
	for dir := path.Dir(pkg); dir != "."; dir = path.Dir(dir) {
		if allowed, ok = mayImport[dir+"/..."]; ok {
			return allowed, true
		}
	}
	return nil, false
}

func TestImportsPointOneWay(t *testing.T) {
	const root, module = "..", "sluice/"
	found := map[string]bool{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			// Folders that hold no package of this module.
			skip := file != root && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") ||
				slices.Contains([]string{"testdata", "examples", "runs", "bin"}, name))
			if skip {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(rel)
		if pkg == "." {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		if f.Name.Name == "main" && pkg != "cmd/pipeline" {
			return nil // a generator
		}
		found[pkg] = true
		allowed, ok := rulesFor(pkg)
		if !ok {
			t.Errorf("%s: no rule says what package %s may import; add it to mayImport and to ARCHITECTURE.md", file, pkg)
			return nil
		}
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if to, ours := strings.CutPrefix(imported, module); ours && !slices.Contains(allowed, to) && !strings.HasPrefix(to, pkg+"/internal/") {
				t.Errorf("%s: %s must not import %s (only %v)", file, pkg, to, allowed)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range []string{"augment", "pipeline", "pipeline/config", "net", "stages", "gpu", "sinks", "cmd"} {
		if !found[pkg] {
			t.Errorf("package %s was not found: does this test look in the right place?", pkg)
		}
	}
}
