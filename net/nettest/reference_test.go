package nettest_test

import (
	"testing"

	"sluice/net"
	"sluice/net/nettest"
)

func TestGolden(t *testing.T) {
	nettest.Golden(t, func() net.Engine { return nettest.NewReference() }, 1e-6)
}
