//go:build noasm || !amd64

package simd

// TilesOf gives the register tiles of a level; nil for Generic, whose loops are
// the engine's own.
func TilesOf(Level) *Tiles { return nil }
