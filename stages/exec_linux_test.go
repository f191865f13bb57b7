package stages

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// family waits for the numbers of a program and of its child.
func family(t *testing.T, file string) (program, child int) {
	t.Helper()
	for range 6000 {
		if text, err := os.ReadFile(file); err == nil {
			if n, _ := fmt.Sscan(string(text), &program, &child); n == 2 {
				return program, child
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the program did not start")
	return 0, 0
}

// gone waits for a process to be gone, or dead and not waited for.
func gone(t *testing.T, pid int) {
	t.Helper()
	for range 6000 {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return
		}
		var n int
		var name, state string
		if _, err := fmt.Sscan(string(text), &n, &name, &state); err == nil && state == "Z" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d is still there", pid)
	_ = syscall.Kill(pid, syscall.SIGKILL)
}

// A run that ends takes its programs with it, and what they have started.
func TestExecLeavesNoOrphan(t *testing.T) {
	file := filepath.Join(t.TempDir(), "numbers")
	x, _ := execOf(t, func(o *ExecOptions) { o.Timeout = time.Hour }, "family", file)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { _, err := through(ctx, x, batches(1, 4)); ended <- err }()
	program, child := family(t, file)
	cancel()
	if err := <-ended; err == nil {
		t.Error("a run that was stopped is none that has failed")
	}
	gone(t, program)
	gone(t, child)
}

// A run that is killed does so too: the kernel kills its own programs, and what they
// have started sees the end of its input, if that was theirs.
func TestExecOfKilledParent(t *testing.T) {
	t.Setenv(programVariable, "1")
	for _, kind := range []string{"family", "wrapper"} {
		file := filepath.Join(t.TempDir(), "numbers")
		parent := exec.Command(os.Args[0], "parent", kind, file)
		if err := parent.Start(); err != nil {
			t.Fatal(err)
		}
		program, child := family(t, file)
		if err := parent.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := parent.Wait(); err == nil {
			t.Error("the parent was not killed")
		}
		gone(t, program)
		if kind == "wrapper" {
			gone(t, child)
		} else { // this one reads no input
			_ = syscall.Kill(child, syscall.SIGKILL)
		}
	}
}
