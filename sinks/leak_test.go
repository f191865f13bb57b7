package sinks

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain finds goroutines that are left behind, as after an error.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
