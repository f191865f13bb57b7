package pipeline

import "context"

// Line is one line of stages, built and ready to run.
type Line struct {
	Seed       uint64
	Source     Source
	SourceName string // "image_folder", for errors
	Steps      []Step
	Frame      Frame // size of every image that reaches the batcher

	BatchSize int
	DropLast  bool // drop a short last batch of an epoch, or keep it
	Shuffle   bool // permute every epoch by the seed, or keep the source's order
	Start     Cursor
	Epochs    int // run epochs Start.Epoch .. Epochs-1

	Workers int // goroutines that read and process samples; at least 1
	OnError Policy

	Stages []NamedStage
	Sinks  []NamedSink
	// Validation is run by Env.Validate; only its Source, SourceName, Steps, Frame, BatchSize
	// and OnError matter. It keeps its short last batch and the source's order.
	Validation *Line
	Env        *Env
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

// Run runs the line to its end and closes stages and sinks. The error is the
// first in stream order: the same run gives the same error at any worker count.
func (l *Line) Run(ctx context.Context) error { panic("skeleton") }
