package sinks

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"

	"sluice/pipeline/config"
)

// replaceFile gives path what write writes, whole or not at all: into a
// temporary file of the same folder, synced, renamed, and the folder synced too,
// so that a crash at any instant leaves the old file or the new one. After an
// error, which names path, the old file is as it was and nothing else remains.
func replaceFile(path string, write func(w io.Writer) error) error {
	dir := filepath.Dir(path)
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithPermissions(0o644))
	if err != nil {
		return fileError(path, err)
	}
	// A no-op once the file has its name.
	defer func() { _ = f.Cleanup() }()
	// Only an io.Writer: an encoder must not close the file before it is synced.
	if err := write(struct{ io.Writer }{f}); err != nil {
		return fileError(path, err)
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return fileError(path, err)
	}
	return syncFolder(dir, path)
}

// syncFolder makes the rename of path last.
func syncFolder(dir, path string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fileError(path, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fileError(path, err)
	}
	return nil
}

// fileError names the file that was wanted, not the temporary one, and says what
// to do where that is known.
func fileError(path string, err error) error {
	advice := ""
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		advice = "; free some space, or run in a folder of another disk"
	case errors.Is(err, fs.ErrPermission):
		advice = "; make the folder writable, or run in another one"
	case errors.Is(err, fs.ErrNotExist):
		advice = "; the folder is missing"
	}
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err
	}
	return fmt.Errorf("cannot write %s: %w%s", path, err, advice)
}

// inRunFolder checks the name of a file that a sink is to write in the run
// folder.
func inRunFolder(option, name string) error {
	if !filepath.IsLocal(name) || filepath.Clean(name) == "." {
		return config.Fieldf(option, "must be a file inside the run folder, is %q; give a plain name", name)
	}
	switch filepath.ToSlash(filepath.Clean(name)) {
	case "run.json", "resolved.yaml":
		return config.Fieldf(option, "must not be %s, which says what the run was made of; give another name", name)
	}
	return nil
}
