//go:build cuda && linux

package cuda

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A program built with CUDA starts where there is no driver, or one that is no
// library at all, and says so.
func TestNoDriver(t *testing.T) {
	if os.Getenv("SLUICE_TEST_NO_DRIVER") != "" {
		_, err := Devices()
		if !errors.Is(err, ErrNoDevice) {
			t.Fatalf("without a driver Devices gives %v", err)
		}
		t.Log(err)
		return
	}
	noLibrary := t.TempDir() + "/libcuda.so"
	if err := os.WriteFile(noLibrary, []byte("this is text"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{
		"/nonexistent/libcuda.so.1": "no such file",
		noLibrary:                   noLibrary,
	} {
		c := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestNoDriver$", "-test.v")
		c.Env = append(os.Environ(), "SLUICE_TEST_NO_DRIVER=1", "SLUICE_LIBCUDA="+path)
		out, err := c.CombinedOutput()
		if err != nil || !strings.Contains(strings.ToLower(string(out)), strings.ToLower(says)) {
			t.Errorf("with the driver %s: %v\n%s", path, err, out)
		}
	}
}
