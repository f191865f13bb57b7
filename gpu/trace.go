package gpu

import (
	"fmt"
	"time"

	"sluice/net"
	"sluice/pipeline"
)

// tracing has an engine that can tell what its device does tell it to the run's trace.
func tracing(env *pipeline.Env, e net.Engine, err error) (net.Engine, error) {
	t, ok := e.(interface {
		Trace(span func(track, name string, from, to time.Time)) error
	})
	if err != nil || !ok || env.Trace == nil {
		return e, err
	}
	if err := t.Trace(env.Trace); err != nil {
		_ = e.Close() // after a worse error
		return nil, err
	}
	return e, nil
}

// traceSpan is a stretch of a stage's time for the run's trace, until what it gives is called.
func traceSpan(env *pipeline.Env, track, what string, n int) (end func()) {
	if env.Trace == nil {
		return func() {}
	}
	began := time.Now()
	return func() { env.Trace(track, fmt.Sprintf("%s %d", what, n), began, time.Now()) }
}
