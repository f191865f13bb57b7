package host_test

import (
	"testing"

	"sluice/gpu/enginetest"
	"sluice/gpu/host"
	"sluice/net"
)

func newEngine() net.Engine { return host.New(0) }

func BenchmarkTrainStep(b *testing.B) { enginetest.TrainStep(b, newEngine) }
func BenchmarkInfer(b *testing.B)     { enginetest.Infer(b, newEngine) }
func BenchmarkConv(b *testing.B)      { enginetest.Conv(b, newEngine) }
func BenchmarkDense(b *testing.B)     { enginetest.Dense(b, newEngine) }
func BenchmarkMemory(b *testing.B)    { enginetest.Memory(b, newEngine) }

func TestEngine(t *testing.T) {
	enginetest.Run(t, func() net.Engine { return host.New(2) })
}

func FuzzGeometry(f *testing.F) {
	enginetest.Fuzz(f, func() net.Engine { return host.New(2) })
}
