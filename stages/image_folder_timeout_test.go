package stages

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
)

// hanging is a folder of three files of which 1.jpg, like any file of a dead drive, is not read before release.
func hanging(t *testing.T, timeout time.Duration) (f *ImageFolder, release func()) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"0.jpg", "1.jpg", "2.jpg"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f = must[*ImageFolder](t)(NewImageFolder(ImageFolderOptions{Dir: dir, MaxBytes: 100, Timeout: timeout}))
	hold := make(chan struct{})
	before := runtime.NumGoroutine()
	f.read = func(path string, buf []byte, limit int64) ([]byte, error) {
		data, err := readBounded(path, buf, limit)
		if strings.HasSuffix(path, "1.jpg") {
			<-hold
			// The buffer is this read's alone by now: the race detector would tell.
			clear(data)
		}
		return data, err
	}
	return f, func() {
		close(hold)
		for range 1000 {
			if runtime.NumGoroutine() <= before {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
	}
}

// A file that hangs is an error that names it, in time; its place reads the next file into memory of its own.
func TestReadTimeout(t *testing.T) {
	f, release := hanging(t, 20*time.Millisecond)
	s := pipeline.NewSample(1, "image_folder", pipeline.Key{})
	s.Bytes = make([]byte, 0, 100)
	err := f.Read(t.Context(), 1, s)
	if err == nil || !strings.Contains(err.Error(), "1.jpg was not read within timeout: 20ms") || s.Name != "1.jpg" || len(s.Bytes) != 0 {
		t.Errorf("%q, %d bytes, %v", s.Name, len(s.Bytes), err)
	}
	f.opt.Timeout = time.Minute
	if err := f.Read(t.Context(), 2, s); err != nil || string(s.Bytes) != "2.jpg" {
		t.Errorf("%q, %v", s.Bytes, err)
	}
	release()
	if string(s.Bytes) != "2.jpg" {
		t.Errorf("the read that hung wrote to the next one's memory: %q", s.Bytes)
	}
}

// A run that ends does not wait for a file that hangs.
func TestReadHangsAndTheRunEnds(t *testing.T) {
	f, release := hanging(t, time.Hour)
	defer release()
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(10*time.Millisecond, func() { cancel(errors.New("the user has stopped it")) })
	s := pipeline.NewSample(1, "image_folder", pipeline.Key{})
	if err := f.Read(ctx, 1, s); err == nil || err.Error() != "the user has stopped it" {
		t.Errorf("got %v", err)
	}
}

// However many files hang, their goroutines are bounded.
func TestReadsThatHangAreBounded(t *testing.T) {
	f, release := hanging(t, time.Millisecond)
	before := runtime.NumGoroutine()
	var last error
	for range maxReads + 20 {
		s := pipeline.NewSample(1, "image_folder", pipeline.Key{})
		last = f.Read(t.Context(), 1, s)
	}
	if n := runtime.NumGoroutine() - before; n > maxReads {
		t.Errorf("%d goroutines hang", n)
	}
	if last == nil || !strings.Contains(last.Error(), "as 64 earlier reads still hang") {
		t.Errorf("got %v", last)
	}
	release()
	s := pipeline.NewSample(1, "image_folder", pipeline.Key{})
	f.opt.Timeout = time.Minute
	if err := f.Read(t.Context(), 0, s); err != nil {
		t.Errorf("when they are over: %v", err)
	}
}

func TestTimeoutIsNotNegative(t *testing.T) {
	if _, err := NewImageFolder(ImageFolderOptions{Dir: t.TempDir(), MaxBytes: 1, Timeout: -1}); err == nil || !strings.Contains(err.Error(), "timeout must be 0s or more") {
		t.Errorf("got %v", err)
	}
}
