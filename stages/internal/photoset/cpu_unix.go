//go:build unix

package photoset

import "syscall"

// CPUSeconds is the time that this process has computed, on all cores; it grows with no other's load.
func CPUSeconds() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
