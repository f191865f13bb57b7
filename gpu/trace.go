package gpu

import (
	"fmt"
	"time"

	"sluice/net"
	"sluice/pipeline"
)

// opened is an engine that a stage has opened, made to compute in a precision, and to
// tell the run's trace what its device does if it can.
func opened(env *pipeline.Env, p Precision, e net.Engine, err error) (net.Engine, error) {
	if err != nil {
		return nil, err
	}
	if err := p.with(e); err != nil {
		return nil, err
	}
	t, ok := e.(interface {
		Trace(span func(track, name string, from, to time.Time)) error
	})
	if !ok || env.Trace == nil {
		return e, nil
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
