// Package gpu runs networks on devices: the double-buffered train and evaluate
// stages, which work on every engine, and the engines below it.
package gpu

import "sluice/net"

// Open gives the engine for a device: "cpu", "cuda", or "auto" (cuda where there
// is one). threads bounds the CPU engine's goroutines; 0 means all cores.
func Open(device string, threads int) (net.Engine, error) { panic("skeleton") }
