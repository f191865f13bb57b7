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
