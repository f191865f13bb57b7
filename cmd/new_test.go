package cmd

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What new writes compiles, without a network.
func TestNewModules(t *testing.T) {
	checkout, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	for _, kind := range newKinds {
		name := "my_" + kind
		if out, err := runNew("--sluice", checkout, kind, name); err != nil {
			t.Fatalf("%s: %v\n%s", kind, err, out)
		}
		c := exec.Command("go", "vet", "./...") // compiles it and its test, and links neither: CI runs them
		c.Dir = name
		c.Env = append(os.Environ(), "GOPROXY=off", "GOFLAGS=-mod=readonly", "GOWORK=off")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: go vet: %v\n%s", kind, err, out)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	checkout, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.Mkdir("taken", 0o777); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--sluice", checkout, "stage", "taken"}, "is there already"},
		{[]string{"--sluice", checkout, "stge", "mine"}, `cannot write a "stge"`},
		{[]string{"--sluice", checkout, "stage", "../mine"}, "small letters"},
		{[]string{"--sluice", checkout, "stage", "Mine"}, "small letters"},
		{[]string{"--sluice", checkout, "stage", "mine_"}, "small letters"},
		{[]string{"--sluice", checkout, "layer", "conv"}, "a layer called conv already"},
		{[]string{"--sluice", dir, "stage", "mine"}, "no checkout of Sluice"},
		{[]string{"stage", "mine"}, "--sluice DIR"},
		{[]string{"stage"}, "NAME"},
	} {
		if _, err := runNew(c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("new %q: %v, want %q", c.args, err, c.want)
		}
	}
	if left, err := os.ReadDir("."); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func runNew(args ...string) (string, error) {
	var out bytes.Buffer
	c := newRoot()
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(append([]string{"new"}, args...))
	err := c.Execute()
	return out.String(), err
}
