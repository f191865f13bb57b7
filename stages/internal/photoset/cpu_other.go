//go:build !unix

package photoset

// CPUSeconds is 0: not known.
func CPUSeconds() float64 { return 0 }
