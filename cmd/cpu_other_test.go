//go:build !unix

package cmd_test

// cpuSeconds is 0: not known.
func cpuSeconds() float64 { return 0 }
