//go:build unix

package cmd_test

import "syscall"

// cpuSeconds is the time that this process has computed, on all cores, whatever else runs.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
