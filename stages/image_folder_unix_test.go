//go:build unix

package stages

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sluice/pipeline"
)

// What is no regular file is left out; one that takes a file's place later is an error and no wait.
func TestImageFolderPipe(t *testing.T) {
	dir := tree(t, "a/0.jpg", "a/1.jpg")
	pipe := filepath.Join(dir, "a", "pipe.jpg")
	if err := syscall.Mkfifo(pipe, 0o644); err != nil {
		t.Skipf("no named pipes here: %v", err)
	}
	f := folder(t, ImageFolderOptions{Dir: dir})
	wantContents(t, f, "0 a/0.jpg", "0 a/1.jpg")
	if err := os.Rename(pipe, filepath.Join(dir, "a", "1.jpg")); err != nil {
		t.Fatal(err)
	}
	s := pipeline.NewSample(1, "image_folder", pipeline.Key{})
	if err := f.Read(t.Context(), 1, s); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("got %v", err)
	}
}

// Weights, which name the classes in JSON, could not name a class whose folder's name is no text; a
// file may have any name.
func TestImageFolderNamesThatAreNoText(t *testing.T) {
	dir := tree(t, "a/0.jpg", "b/0.jpg")
	if err := os.Rename(filepath.Join(dir, "a", "0.jpg"), filepath.Join(dir, "a", "\xff.jpg")); err != nil {
		t.Skipf("names must be text here: %v", err)
	}
	if f := folder(t, ImageFolderOptions{Dir: dir}); f.Len() != 2 || f.names[0] != "a/\xff.jpg" {
		t.Errorf("the files are %q", f.names)
	}
	if err := os.Rename(filepath.Join(dir, "b"), filepath.Join(dir, "\xc4pfel")); err != nil {
		t.Fatal(err)
	}
	if _, err := NewImageFolder(ImageFolderOptions{Dir: dir, MaxBytes: 1}); err == nil || !strings.Contains(err.Error(), `the class folder "\xc4pfel", whose name is not in UTF-8`) {
		t.Errorf("got %v", err)
	}
}
