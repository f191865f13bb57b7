//go:build cuda && linux

package cuda

import (
	"testing"

	"sluice/gpu/enginetest"
	"sluice/net"
)

// newEngine makes an engine on the first card, which is the emulated one where
// make test-cuda runs.
func newEngine(t testing.TB) *Engine {
	t.Helper()
	devices, err := Devices()
	if err != nil {
		t.Skipf("there is nothing to run on: %v; make test-cuda has the emulated driver", err)
	}
	e, err := New(devices[0])
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEngine(t *testing.T) {
	enginetest.Run(t, func() net.Engine { return newEngine(t) })
}
