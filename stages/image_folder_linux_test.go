package stages

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"sluice/pipeline"
)

// The superuser may read everything, so as such the calling thread reads as
// nobody: what TestImageFolderUnreadable shows elsewhere, and a file.
func TestImageFolderUnreadableToNobody(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only the superuser can read as another; TestImageFolderUnreadable runs instead")
	}
	dir := tree(t, "a/0.jpg", "b/0.jpg")
	for d := dir; d != filepath.Clean(os.TempDir()) && d != filepath.Dir(d); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	asNobody := func(f func()) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		const nobody = 65534
		if err := syscall.Setfsuid(nobody); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := syscall.Setfsuid(0); err != nil {
				panic(err) // the thread is of no use to others
			}
		}()
		f()
	}
	names := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "permission denied") || !strings.Contains(err.Error(), what) {
			t.Errorf("got %v, want permission denied and %q", err, what)
		}
	}

	file := filepath.Join(dir, "a", "0.jpg")
	if err := os.Chmod(file, 0); err != nil {
		t.Fatal(err)
	}
	f := folder(t, ImageFolderOptions{Dir: dir, MaxBytes: 100})
	asNobody(func() {
		names("0.jpg", f.Read(t.Context(), 0, pipeline.NewSample(1, "image_folder", pipeline.Key{})))
	})

	if err := os.Chmod(filepath.Join(dir, "b"), 0); err != nil {
		t.Fatal(err)
	}
	asNobody(func() {
		_, err := NewImageFolder(ImageFolderOptions{Dir: dir, MaxBytes: 100})
		names(filepath.Join(dir, "b"), err)
	})
}
