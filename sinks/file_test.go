package sinks

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestReplaceFileWritesWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.bin")
	for _, content := range []string{"first", "second, longer"} {
		err := replaceFile(path, func(w io.Writer) error {
			_, err := io.WriteString(w, content)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		wantFile(t, path, content)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm()&0o044 != 0o044&^umask(t) {
		t.Errorf("mode %v: others cannot read it", info.Mode())
	}
	wantOnly(t, filepath.Dir(path), "a.bin")
}

// A disk that fills up half way leaves the file from before, and nothing else.
func TestReplaceFileKeepsTheOldOneOnError(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"full disk", &os.PathError{Op: "write", Path: "data/.a.bin123", Err: syscall.ENOSPC}, "a.bin: no space left on device; free some space"},
		{"quota", syscall.EDQUOT, "a.bin: disk quota exceeded; free some space"},
		{"other", errors.New("encoder broke"), "a.bin: encoder broke"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.bin")
			if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
				t.Fatal(err)
			}
			err := replaceFile(path, func(w io.Writer) error {
				if _, err := io.WriteString(w, "half"); err != nil {
					return err
				}
				return tt.err
			})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, tt.err) && !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			if strings.Contains(strings.ReplaceAll(err.Error(), path, ""), "123") {
				t.Errorf("error %v names the temporary file", err)
			}
			wantFile(t, path, "old")
			wantOnly(t, filepath.Dir(path), "a.bin")
		})
	}
}

func TestReplaceFileWhereNothingCanBeWritten(t *testing.T) {
	dir := t.TempDir()
	write := func(io.Writer) error { t.Error("there is nothing to write to"); return nil }

	missing := filepath.Join(dir, "missing", "a.bin")
	if err := replaceFile(missing, write); err == nil || !strings.Contains(err.Error(), "cannot write "+missing) || !strings.Contains(err.Error(), "the folder is missing") {
		t.Errorf("missing folder: %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(filepath.Join(file, "a.bin"), write); err == nil || !strings.Contains(err.Error(), "a.bin: not a directory") {
		t.Errorf("a file for a folder: %v", err)
	}
	if os.Geteuid() == 0 {
		return // who may write everywhere
	}
	locked := filepath.Join(dir, "locked")
	if err := os.Mkdir(locked, 0o555); err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(filepath.Join(locked, "a.bin"), write); err == nil || !strings.Contains(err.Error(), "make the folder writable") {
		t.Errorf("locked folder: %v", err)
	}
}

func TestNamesStayInTheRunFolder(t *testing.T) {
	for _, name := range []string{"", ".", "../a", "/etc/a", "a/../../b"} {
		if err := inRunFolder("file", name); err == nil {
			t.Errorf("%q is taken for a name in the run folder", name)
		}
		if _, err := NewMetrics(MetricsOptions{File: name}); err == nil {
			t.Errorf("metrics takes the name %q", name)
		}
	}
	if err := inRunFolder("file", "sub/a.bin"); err != nil {
		t.Error(err)
	}
}

func umask(t *testing.T) os.FileMode {
	t.Helper()
	m := syscall.Umask(0)
	syscall.Umask(m)
	return os.FileMode(m)
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s holds %q, want %q", path, got, want)
	}
}

// wantOnly holds a folder to the files named: no temporary one is left.
func wantOnly(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("the folder holds %q, want %q", got, names)
	}
}
