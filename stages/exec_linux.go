package stages

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownGroup makes a program the first of a process group of its own, so that it can be
// killed with all that it starts, and lets the kernel kill it should we be killed.
func ownGroup(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func killGroup(p *os.Process) { _ = unix.Kill(-p.Pid, unix.SIGKILL) } // fails only if it is gone

// widen makes a pipe hold a megabyte, not 64 KiB: fewer turns of two programs a
// batch. Where the kernel does not allow it, it stays as it was.
func widen(f *os.File) {
	c, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = c.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, 1<<20) })
}
