package gpu

import (
	"fmt"
	"time"

	"sluice/net"
	"sluice/pipeline"
)

// tracer is an engine that tells by itself what its device does, and when.
type tracer interface {
	Trace(span func(track, name string, from, to time.Time)) error
}

// opened is an engine that a stage has opened, made to compute in a precision, and to
// tell the run's trace what its device does if it can.
func opened(env *pipeline.Env, p Precision, e net.Engine, err error) (net.Engine, error) {
	if err != nil {
		return nil, err
	}
	if err := p.with(e); err != nil {
		return nil, err
	}
	t, ok := e.(tracer)
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

// traced has the run's trace told, of an engine that does not tell by itself, of each pass of
// each layer of a network and of each batch that is loaded for it.
func traced(env *pipeline.Env, e net.Engine, n *net.Network, f *feed) {
	if _, ok := e.(tracer); ok || env.Trace == nil {
		return
	}
	layers := n.Plan().Layers
	n.Watch(func(layer int, p net.Pass, began time.Time) {
		env.Trace("cpu: layers", layers[layer].Name+" "+p.String(), began, time.Now())
	})
	f.trace = func(step int, began time.Time) {
		env.Trace("cpu: loads", fmt.Sprintf("load %d", step), began, time.Now())
	}
}
