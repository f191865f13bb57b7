// Package photoset finds the pictures that tests and benchmarks decode.
package photoset

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// Variable names the environment variable with a folder of photographs.
const Variable = "SLUICE_PHOTOS"

// Files reads the JPEGs under SLUICE_PHOTOS. Without it they are 16 that generate makes, in the sizes of ImageNet's. name
// says which.
func Files(b testing.TB, generate func(i, w, h int) []byte) (name string, files [][]byte) {
	b.Helper()
	dir := os.Getenv(Variable)
	if dir == "" {
		for i := range 16 {
			w, h := 500, 375
			if i%3 == 2 {
				w, h = h, w
			}
			files = append(files, generate(i, w, h))
		}
		return "generated", files
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.HasPrefix(data, []byte("\xff\xd8")) {
			files = append(files, data)
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	if len(files) == 0 {
		b.Fatalf("%s=%s has no JPEG", Variable, dir)
	}
	return "photos", files
}
