package cmd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The stage of the README is built as it stands there and must be known to its
// program.
func TestReadmeStage(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: links a whole program; without -short it does")
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, code, ok := strings.Cut(string(readme), "```go\n")
	code, _, closed := strings.Cut(code, "```\n")
	if !ok || !closed {
		t.Fatal("README.md holds no Go program")
	}
	dir := t.TempDir()
	source, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "mine")
	if err := os.WriteFile(source, []byte(code), 0o666); err != nil {
		t.Fatal(err)
	}
	if formatted, err := exec.Command("gofmt", "-l", source).CombinedOutput(); err == nil && len(formatted) > 0 {
		t.Error("the README's program is not formatted")
	}
	build := exec.Command("go", "build", "-o", program, source)
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the README's program: %v\n%s", err, out)
	}
	out, err := exec.Command(program, "stages", "gray").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "amount") {
		t.Errorf("stages gray: %v\n%s", err, out)
	}
}
