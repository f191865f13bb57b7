package cmd

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func readRecord(t *testing.T, dir string) runRecord {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, runFile))
	if err != nil {
		t.Fatal(err)
	}
	var r runRecord
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRunDirKeepsTheRunBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "runs", "x")
	for i := range 3 {
		d, err := openRunDir(path, []byte("name: x\n"), runRecord{Name: "x", Seed: uint64(i), Status: "running"})
		if err != nil {
			t.Fatal(err)
		}
		if got := readRecord(t, path); got.Seed != uint64(i) || got.Status != "running" {
			t.Errorf("run %d: %+v", i, got)
		}
		if err := d.finish("failed", errors.New("no luck")); err != nil {
			t.Fatal(err)
		}
		if got := readRecord(t, path); got.Status != "failed" || got.Error != "no luck" || got.Finished == nil {
			t.Errorf("run %d, after it: %+v", i, got)
		}
	}
	for dir, seed := range map[string]uint64{path + ".1": 0, path + ".2": 1, path: 2} {
		if got := readRecord(t, dir); got.Seed != seed {
			t.Errorf("%s is of seed %d, want %d", dir, got.Seed, seed)
		}
	}
}

func TestRunDirRefuses(t *testing.T) {
	root := t.TempDir()
	mine := filepath.Join(root, "mine")
	if err := os.MkdirAll(mine, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(mine, "notes.txt"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := openRunDir(mine, nil, runRecord{}); err == nil || !strings.Contains(err.Error(), "no run.json") {
		t.Errorf("a folder that is not of a run: %v", err)
	}
	if _, err := openRunDir(filepath.Join(mine, "notes.txt", "run"), nil, runRecord{}); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("a file in the place of a folder: %v", err)
	}

	busy := filepath.Join(root, "busy")
	d, err := openRunDir(busy, nil, runRecord{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openRunDir(busy, nil, runRecord{}); err == nil || !strings.Contains(err.Error(), "another run") {
		t.Errorf("a folder of a run that goes on: %v", err)
	}
	if err := d.finish("done", nil); err != nil {
		t.Fatal(err)
	}
}

// A run that was killed before it wrote its record does not stand in the way of
// the next.
func TestRunDirKilledAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, ".run.json123456")
	if err := os.WriteFile(left, []byte(`{"na`), 0o666); err != nil {
		t.Fatal(err)
	}
	d, err := openRunDir(dir, nil, runRecord{Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.finish("done", nil); err != nil {
		t.Fatal(err)
	}
	if got := readRecord(t, dir); got.Seed != 7 {
		t.Errorf("the record is of seed %d, want 7", got.Seed)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("what the killed run left is still there")
	}
}
