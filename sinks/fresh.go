package sinks

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// startAfresh readies files that are written only later: it removes what an
// earlier run left under their names, so that a run that writes none does not
// seem to have, and finds out now that a folder takes no file, not after hours.
func startAfresh(paths ...string) error {
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fileError(path, err)
		}
	}
	return probeAll(paths...)
}

// probeAll finds out whether the folders of paths take a file.
func probeAll(paths ...string) error {
	for _, path := range paths {
		if err := probe(path); err != nil {
			return err
		}
	}
	return nil
}

// probe finds out whether the folder of path takes a file.
func probe(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".probe-*")
	if err != nil {
		return fileError(path, err)
	}
	if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
		return fileError(path, err)
	}
	return nil
}
