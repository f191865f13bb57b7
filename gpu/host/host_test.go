package host_test

import (
	"os"
	"testing"

	"sluice/gpu/enginetest"
	"sluice/gpu/host"
	"sluice/gpu/host/simd"
	"sluice/net"
)

// newEngine is of the level that SLUICE_CPU says, like gpu.Open's.
func newEngine() net.Engine {
	level, err := simd.Choose(os.Getenv("SLUICE_CPU"))
	if err != nil {
		panic(err)
	}
	return host.New(0, level)
}

// eachLevel runs f at every level that this machine has.
func eachLevel(t *testing.T, f func(t *testing.T, newEngine func() net.Engine)) {
	for _, level := range simd.Levels() {
		t.Run(level.String(), func(t *testing.T) {
			f(t, func() net.Engine { return host.New(2, level) })
		})
	}
}

func BenchmarkTrainStep(b *testing.B) { enginetest.TrainStep(b, newEngine) }
func BenchmarkInfer(b *testing.B)     { enginetest.Infer(b, newEngine) }
func BenchmarkConv(b *testing.B)      { enginetest.Conv(b, newEngine) }
func BenchmarkDense(b *testing.B)     { enginetest.Dense(b, newEngine) }
func BenchmarkMemory(b *testing.B)    { enginetest.Memory(b, newEngine) }

func TestEngine(t *testing.T) { eachLevel(t, enginetest.Run) }

func FuzzGeometry(f *testing.F) { enginetest.Fuzz(f, newEngine) }
