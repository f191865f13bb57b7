//go:build !unix

package jpeg

func cpuSeconds() float64 { return 0 }
