//go:build !unix

package jpeg

import (
	"bytes"
	"testing"
)

// endOfMemory gives a function that copies bytes to memory of their own, as there is none to end at here.
func endOfMemory(testing.TB, int) func(data []byte) []byte {
	return func(data []byte) []byte { return bytes.Clone(data) }
}
