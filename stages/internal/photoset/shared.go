package photoset

import (
	"os"
	"path/filepath"
	"testing"
)

// Shared is a folder of ../shared/data beside the module. Where it is not there the
// test is skipped, and twin says which tests stand in for it.
func Shared(t testing.TB, path, twin string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			found := filepath.Join(dir, "../shared/data", path)
			if _, err := os.Stat(found); err != nil {
				t.Skipf("%s is not there; %s", found, twin)
			}
			return found
		}
	}
	t.Fatal("no go.mod above the test")
	return ""
}
