package simd

import (
	"fmt"
	"strings"
)

// Level is a set of instructions.
type Level int

// The levels, each faster than the one before.
const (
	Generic Level = iota // plain Go
	AVX2                 // with FMA
	AVX512               // F, BW, DQ and VL
)

var levelNames = [...]string{"generic", "avx2", "avx512"}

func (l Level) String() string { return levelNames[l] }

// Levels lists what this machine and build have, the slowest first.
func Levels() []Level {
	levels := []Level{Generic}
	for l := AVX2; l <= best(); l++ {
		levels = append(levels, l)
	}
	return levels
}

// Choose gives the level called name, and the best one for an empty name. The
// CPU engine calls it with the environment's SLUICE_CPU.
func Choose(name string) (Level, error) {
	if name == "" {
		return best(), nil
	}
	for _, l := range Levels() {
		if name == l.String() {
			return l, nil
		}
	}
	for _, n := range levelNames {
		if name == n {
			return 0, fmt.Errorf("this machine or build has no %s, only %s", name, strings.Trim(fmt.Sprint(Levels()), "[]"))
		}
	}
	return 0, fmt.Errorf("there is no CPU level %q, only %s", name, strings.Join(levelNames[:], ", "))
}
