//go:build unix

package jpeg

import (
	"os"
	"syscall"
	"testing"
)

// A file that ends where memory ends is read without a fault, whole or cut anywhere.
func TestEndOfMemory(t *testing.T) {
	page := os.Getpagesize()
	files := small(t)
	size := 0
	for _, data := range files {
		size = max(size, (len(data)+page-1)/page*page)
	}
	memory, err := syscall.Mmap(-1, 0, size+page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(memory)
	if err := syscall.Mprotect(memory[size:], syscall.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	var d Decoder
	for name, data := range files {
		for n := len(data); n > 0; n -= 1 + n/50 {
			end := memory[size-n : size]
			copy(end, data)
			if _, err := d.Decode(end, Options{Keep: true}); err != nil && n == len(data) {
				t.Errorf("%s: %v", name, err)
			}
			_, _ = DecodeConfig(end)
		}
	}
}
