package host_test

import (
	"testing"

	"sluice/gpu/enginetest"
	"sluice/gpu/host"
	"sluice/net"
)

func TestEngine(t *testing.T) {
	enginetest.Run(t, func() net.Engine { return host.New(2) })
}

func FuzzGeometry(f *testing.F) {
	enginetest.Fuzz(f, func() net.Engine { return host.New(2) })
}
