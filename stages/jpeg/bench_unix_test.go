//go:build unix

package jpeg

import "syscall"

// cpuSeconds is the processor time of this process, which a busy machine lengthens less than
// that of the clock.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
