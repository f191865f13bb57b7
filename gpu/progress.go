package gpu

import (
	"encoding/json"
	"time"

	"sluice/net"
	"sluice/pipeline"
)

// span sums what happened between two moments.
type span struct {
	stats       net.Stats
	steps       int
	updates     int     // of the weights
	norm        float64 // sum of the gradients' norms at these
	wall        time.Duration
	input, sink time.Duration // of wall: waited for a batch, for the sinks
}

func (s *span) add(t span) {
	s.stats = sum(s.stats, t.stats)
	s.steps += t.steps
	s.updates += t.updates
	s.norm += t.norm
	s.wall += t.wall
	s.input += t.input
	s.sink += t.sink
}

// savedSpan is a span in a checkpoint.
type savedSpan struct {
	Stats   net.Stats     `json:"stats"`
	Steps   int           `json:"steps"`
	Updates int           `json:"updates"`
	Norm    float64       `json:"norm"`
	Wall    time.Duration `json:"wall"`
	Input   time.Duration `json:"input"`
	Sink    time.Duration `json:"sink"`
}

// MarshalJSON keeps a span in a checkpoint.
func (s span) MarshalJSON() ([]byte, error) {
	return json.Marshal(savedSpan{s.stats, s.steps, s.updates, s.norm, s.wall, s.input, s.sink})
}

// UnmarshalJSON reads it again.
func (s *span) UnmarshalJSON(text []byte) error {
	var v savedSpan
	err := json.Unmarshal(text, &v)
	*s = span{v.Stats, v.Steps, v.Updates, v.Norm, v.Wall, v.Input, v.Sink}
	return err
}

func sum(a, b net.Stats) net.Stats {
	return net.Stats{Rows: a.Rows + b.Rows, Loss: a.Loss + b.Loss, Top1: a.Top1 + b.Top1, Top5: a.Top5 + b.Top5}
}

// metric is the span's averages.
func (s span) metric(event string) pipeline.Metric {
	m := pipeline.Metric{Event: event}
	if n := float64(s.stats.Rows); n > 0 {
		m.Loss, m.Top1, m.Top5 = s.stats.Loss/n, float64(s.stats.Top1)/n, float64(s.stats.Top5)/n
	}
	if s.updates > 0 {
		m.GradNorm = s.norm / float64(s.updates)
	}
	if t := s.wall.Seconds(); t > 0 {
		m.ImagesPerSecond = float64(s.stats.Rows) / t
		m.InputWait, m.SinkWait = s.input.Seconds()/t, s.sink.Seconds()/t
	}
	return m
}

// meter is the clock of a stage: what the steps since the last metric, of this
// epoch and of the whole run come to. Time outside of steps (validation) is left
// out of all three.
type meter struct {
	began  time.Time // of the run
	start  time.Time // of window
	idle   time.Time // when the stage last returned to the engine
	window span
	epoch  span
	run    span
}

func (m *meter) begin() { *m = meter{began: time.Now()} }

// enter is to be called first in Process, leave last.
func (m *meter) enter() {
	now := time.Now()
	if m.start.IsZero() {
		m.start = now // filling the line before the first batch is no step
		return
	}
	if !m.idle.IsZero() {
		m.window.input += now.Sub(m.idle)
	}
}

func (m *meter) leave() { m.idle = time.Now() }

// step counts a computed batch.
func (m *meter) step(s net.Stats) {
	m.window.stats = sum(m.window.stats, s)
	m.window.steps++
}

// update counts a change of the weights by a gradient of that norm.
func (m *meter) update(norm float64) {
	m.window.updates++
	m.window.norm += norm
}

// cut ends the window and gives it.
func (m *meter) cut() span {
	now := time.Now()
	w := m.window
	w.wall += now.Sub(m.start)
	m.epoch.add(w)
	m.run.add(w)
	m.window, m.start = span{}, now
	return w
}

// endEpoch gives the epoch's sum, after cut, and begins another.
func (m *meter) endEpoch() span {
	e := m.epoch
	m.epoch = span{}
	return e
}

// resume begins a window after time that is to be left out.
func (m *meter) resume() { m.window, m.start, m.idle = span{}, time.Now(), time.Time{} }

// blocked runs f, which waits for the sinks, and counts its time.
func (m *meter) blocked(f func() error) error {
	start := time.Now()
	err := f()
	m.window.sink += time.Since(start)
	return err
}

// emit sends one metric, as of now.
func (m *meter) emit(emit pipeline.Emit, row pipeline.Metric) error {
	row.Seconds = time.Since(m.began).Seconds()
	return m.blocked(func() error { return emit(metricBatch(row)) })
}

func metricBatch(row pipeline.Metric) *pipeline.Batch {
	return &pipeline.Batch{Kind: pipeline.Metrics, Epoch: row.Epoch, Step: row.Step, Record: pipeline.MetricsRecord(row)}
}
