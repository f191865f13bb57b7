package pipeline

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// Line is one line of stages, built and ready to run.
type Line struct {
	Seed       uint64
	Source     Source
	SourceName string // "image_folder", for errors
	Steps      []Step
	Frame      Frame // size of every image that reaches the batcher

	BatchSize int  // rows, a multiple of Frame.Views
	DropLast  bool // drop a short last batch of an epoch, or keep it
	Shuffle   bool // permute every epoch by the seed, or keep the source's order
	Start     Cursor
	StartStep int // Step of the first batch; a resumed run goes on counting
	Epochs    int // run epochs Start.Epoch .. Epochs-1
	StopAfter int // end after so many steps in all, as if the epochs were over; 0 for no bound

	Shard Shard // which of several runs over the source this is

	Workers int // goroutines that read and process samples; at least 1
	OnError Policy

	// Stall is how long nothing may move until the user is told who is at work on
	// what (Env.Warn); 0 for ever.
	Stall time.Duration
	// Grace is how long nothing may move in a run that was to end, because it was
	// cancelled or something has failed, until Run returns without the calls that are
	// still under way, with an error that names them. They are left behind, and what
	// they use is neither closed nor freed. 0 for ever.
	Grace time.Duration

	Stages []NamedStage
	Sinks  []NamedSink
	// Validation is run by Env.Validate; only its Source, SourceName, Steps, Frame,
	// BatchSize and OnError matter. It keeps its short last batch and the source's
	// order, and is always epoch 0, so that two validations see the same pixels.
	Validation *Line
	Env        *Env

	// Of a line that runs: batches end at multiples of border, 0 for none, and the
	// last sample of a shard is end-1. See settled.
	border, end int

	// onPool lets the engine's tests look at the pools and change their settings.
	onPool func(*pool)
}

// Step is a sample stage with the label that keys its randomness and names it
// in errors: its name, and "name#2" and so on for a second of the same name.
type Step struct {
	Label string
	Stage SampleStage
}

// NamedStage is a batch stage with its name for errors.
type NamedStage struct {
	Name  string
	Stage BatchStage
}

// NamedSink is a sink with its name for errors.
type NamedSink struct {
	Name string
	Sink Sink
}

// Policy says what becomes of a sample that fails. The zero value fails the run.
type Policy struct {
	Skip       bool // leave the sample out and go on
	Quarantine bool // the same, and send a BadSample to the sinks
	// The run fails after all when more samples of one epoch fail than both of
	// these allow; 0 means no bound of that kind.
	Max         int
	MaxFraction float64 // of the source's length, rounded down but at least 1 if above 0
}

// check finds what would make a run hang or crash. What the user can have got
// wrong in a YAML is told better, with its line, before there is a Line.
func (l *Line) check() error {
	var errs []error
	wrong := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	if l.Source == nil {
		return errors.New("the line has no source")
	}
	for _, s := range l.Steps {
		wrong(s.Stage == nil, "sample stage %q is nil", s.Label)
	}
	for _, s := range l.Stages {
		wrong(s.Stage == nil, "batch stage %q is nil", s.Name)
	}
	for _, s := range l.Sinks {
		wrong(s.Sink == nil, "sink %q is nil", s.Name)
	}
	n, err := l.length()
	if err != nil {
		return err
	}
	wrong(n < 1, "%s: the source has no samples", l.SourceName)
	wrong(l.Frame.W < 1 || l.Frame.H < 1, "pictures of %dx%d cannot be batched: end the samples with a crop to one size", l.Frame.W, l.Frame.H)
	wrong(l.BatchSize < 1, "the batch size is %d, want at least 1", l.BatchSize)
	wrong(l.BatchSize%l.Frame.views() != 0, "the batch size is %d, want a multiple of %d, the views of an image", l.BatchSize, l.Frame.views())
	wrong(l.Workers < 1, "%d workers, want at least 1", l.Workers)
	if err := l.Shard.check(); err != nil {
		errs = append(errs, err)
	}
	c := l.Start
	wrong(c.Epoch < 0 || c.Pos < 0 || c.Pos > n || c.Skipped < 0 || c.Skipped > c.Pos || c.Failed < 0 || c.Failed > c.Skipped || l.StartStep < 0 || l.StopAfter < 0,
		"cannot start at epoch %d, position %d (%d skipped, %d failed), step %d: the source has %d samples",
		c.Epoch, c.Pos, c.Skipped, c.Failed, l.StartStep, n)
	return errors.Join(errs...)
}

func (l *Line) length() (n int, err error) {
	err = guard(l.SourceName, func() error { n = l.Source.Len(); return nil })
	return n, err
}

// closeInput closes the source and the sample stages that want it.
func (l *Line) closeInput(p *post, prefix string) error {
	var errs []error
	shut := func(name string, v any) {
		if c, ok := v.(io.Closer); ok {
			errs = append(errs, p.guard(calling(prefix+name, "Close"), c.Close))
		}
	}
	shut(l.SourceName, l.Source)
	for _, s := range l.Steps {
		shut(s.Label, s.Stage)
	}
	return errors.Join(errs...)
}
