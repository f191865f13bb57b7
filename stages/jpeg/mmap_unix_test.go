//go:build unix

package jpeg

import (
	"bytes"
	"os"
	"syscall"
	"testing"
)

// endOfMemory gives a function that copies bytes, at most size of them, to where memory ends: a read behind
// the copy, which the next call overwrites, is a fault.
func endOfMemory(t testing.TB, size int) func(data []byte) []byte {
	t.Helper()
	page := os.Getpagesize()
	size = (size + page - 1) / page * page
	memory, err := syscall.Mmap(-1, 0, size+page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Munmap(memory) })
	if err := syscall.Mprotect(memory[size:], syscall.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	return func(data []byte) []byte {
		if len(data) > size {
			return bytes.Clone(data)
		}
		end := memory[size-len(data) : size : size]
		copy(end, data)
		return end
	}
}

// A file that ends where memory ends is read without a fault, whole or cut anywhere.
func TestEndOfMemory(t *testing.T) {
	files := small(t)
	size := 0
	for _, data := range files {
		size = max(size, len(data))
	}
	end := endOfMemory(t, size)
	var d Decoder
	for name, data := range files {
		for n := len(data); n > 0; n -= 1 + n/50 {
			cut := end(data[:n])
			if _, err := d.Decode(cut, Options{Keep: true}); err != nil && n == len(data) {
				t.Errorf("%s: %v", name, err)
			}
			_, _ = DecodeConfig(cut)
		}
	}
}
