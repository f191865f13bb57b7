package sinks

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A cautiousDisk is the real disk, and knows what a power cut may take from it: what
// was written to a file and not synced, and names that were given in a folder and not
// synced. After its n-th operation nothing works any more.
type cautiousDisk struct {
	realDisk
	n, calls int
	unsynced map[string]bool   // files, by the name that they have now
	renames  map[string]string // new name to the old one, since the folder was synced
	removed  map[string][]byte // since then
}

func (d *cautiousDisk) fails() error {
	if d.calls++; d.calls > d.n {
		return errCrash
	}
	return nil
}

func (d *cautiousDisk) CreateTemp(dir, pattern string) (diskFile, error) {
	if err := d.fails(); err != nil {
		return nil, err
	}
	f, err := d.realDisk.CreateTemp(dir, pattern)
	if err != nil {
		return nil, err
	}
	d.unsynced[f.Name()] = true
	return &cautiousFile{f, d}, nil
}

func (d *cautiousDisk) Rename(from, to string) error {
	if err := d.fails(); err != nil {
		return err
	}
	d.unsynced[to] = d.unsynced[from]
	delete(d.unsynced, from)
	d.renames[to] = from
	return d.realDisk.Rename(from, to)
}

func (d *cautiousDisk) Remove(path string) error {
	if err := d.fails(); err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	d.removed[path] = data
	return d.realDisk.Remove(path)
}

func (d *cautiousDisk) SyncDir(dir string) error {
	if err := d.fails(); err != nil {
		return err
	}
	clear(d.renames)
	clear(d.removed)
	return d.realDisk.SyncDir(dir)
}

type cautiousFile struct {
	diskFile
	disk *cautiousDisk
}

func (f *cautiousFile) Write(b []byte) (int, error) {
	if err := f.disk.fails(); err != nil {
		return 0, err
	}
	f.disk.unsynced[f.Name()] = true
	return f.diskFile.Write(b)
}

func (f *cautiousFile) Sync() error {
	if err := f.disk.fails(); err != nil {
		return err
	}
	f.disk.unsynced[f.Name()] = false
	return f.diskFile.Sync()
}

// cut does what a power cut may do: to the contents of files that were not synced,
// to names, both or neither.
func (d *cautiousDisk) cut(t *testing.T, contents, names bool) {
	t.Helper()
	var errs []error
	for path, lost := range d.unsynced {
		if _, err := os.Stat(path); err == nil && lost && contents {
			errs = append(errs, os.Truncate(path, 100))
		}
	}
	if names {
		for to, from := range d.renames {
			errs = append(errs, os.Rename(to, from))
		}
		for path, data := range d.removed {
			errs = append(errs, os.WriteFile(path, data, 0o666))
		}
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// Whenever the power is cut while a checkpoint is written, and whatever that takes
// of what was not synced, a whole one is there.
func TestCheckpointsSurviveAPowerCut(t *testing.T) {
	for n := 0; ; n++ {
		done := false
		for how := range 4 {
			dir := t.TempDir()
			s := openCheckpoints(t, dir, CheckpointsOptions{Keep: 1}, 0)
			if err := errors.Join(writeCheckpoint(s, 2, ""), s.wait(t.Context())); err != nil {
				t.Fatal(err)
			}
			d := &cautiousDisk{n: n, unsynced: map[string]bool{}, renames: map[string]string{}, removed: map[string][]byte{}}
			s.disk = d
			err := errors.Join(writeCheckpoint(s, 3, ""), s.Close())
			done = err == nil
			if !done && !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
			d.cut(t, how&1 != 0, how&2 != 0)
			name := fmt.Sprintf("after operation %d (contents lost %v, names %v)", n, how&1 != 0, how&2 != 0)
			at := newestWhole(t, dir)
			if at != 2 && at != 3 || done && at != 3 {
				files, _ := filepath.Glob(filepath.Join(dir, "checkpoints", "*"))
				t.Fatalf("%s the newest whole checkpoint is %d; there are %v", name, at, files)
			}
			again := openCheckpoints(t, dir, CheckpointsOptions{Keep: 1}, at)
			if err := errors.Join(writeCheckpoint(again, 4, ""), again.Close()); err != nil || newestWhole(t, dir) != 4 {
				t.Fatalf("%s, resumed: %v, the newest is %d", name, err, newestWhole(t, dir))
			}
		}
		if done {
			if n < 7 {
				t.Errorf("only %d operations were cut", n)
			}
			return
		}
	}
}
