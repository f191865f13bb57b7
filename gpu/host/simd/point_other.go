//go:build noasm || !amd64

package simd

// PointsOf gives the loops of a level.
func PointsOf(Level) *Points { return &genericPoints }
