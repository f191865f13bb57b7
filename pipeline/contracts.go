package pipeline

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// ErrSkip is what a Source or a SampleStage returns to drop a sample without
// counting it as an error. The next sample of the epoch's order takes its place.
var ErrSkip = errors.New("skip this sample")

// ErrResume is in the error of a run that cannot be resumed: there is nothing to
// go on from, or the configuration is another one.
var ErrResume = errors.New("cannot resume")

// ErrEnough is what a batch stage returns from Process to end the run early and
// well: it gets no more batches, and is flushed.
var ErrEnough = errors.New("enough")

// A Source is a dataset with random access. Read is called concurrently, and
// must fill Name and Label and either Bytes (append to s.Bytes[:0] to reuse its
// memory) or an image (SetImage), which then needs no stage like decode.
type Source interface {
	Len() int
	Read(ctx context.Context, i int, s *Sample) error
}

// A SampleStage changes one sample in place. One value serves all workers, so
// it must not keep state that changes, and must not keep s after it returns.
type SampleStage interface {
	Process(ctx context.Context, s *Sample) error
}

// SampleFunc is a SampleStage made of a function.
type SampleFunc func(ctx context.Context, s *Sample) error

// Process calls f.
func (f SampleFunc) Process(ctx context.Context, s *Sample) error { return f(ctx, s) }

// Kind says what the rows of a Batch are.
type Kind string

// The kinds of batch.
const (
	Samples    Kind = "samples"    // images with their labels, see ImagesOf
	Metrics    Kind = "metrics"    // rows of Metric, see MetricsOf
	Features   Kind = "features"   // one row a sample, one column a layer
	Weights    Kind = "weights"    // one row a tensor, see net.TensorsOf
	Quarantine Kind = "quarantine" // one row a bad sample, see BadSample
	Checkpoint Kind = "checkpoint" // rows as Weights, with momentum and all else that it takes to go on
)

// Cursor is a place in the order of an epoch: Pos samples of it have been
// consumed, of which Skipped were left out; Failed of these had an error, and
// count against the policy's bounds.
type Cursor struct{ Epoch, Pos, Skipped, Failed int }

// A Batch is one Arrow record on its way. It is lent for the call that it is
// handed to; whoever keeps the record longer must Retain it.
type Batch struct {
	Kind        Kind
	Epoch, Step int    // Step counts batches over the whole run, from 0
	Cursor      Cursor // after the last sample of this batch
	Record      arrow.Record
}

// Pass hands the batch on as it is, from a stage that it was lent to.
func (b *Batch) Pass(emit Emit) error {
	b.Record.Retain()
	return emit(b)
}

// Emit hands a batch downstream. It consumes one reference to b.Record, also
// when it fails, and blocks while downstream is busy.
type Emit func(b *Batch) error

// A BatchStage handles batches of kind Samples (others too if it is an
// Acceptor; what it does not accept passes by it, in order). All its methods are
// called from one goroutine.
type BatchStage interface {
	Process(ctx context.Context, b *Batch, emit Emit) error
}

// A Sink consumes batches. Write and Close are called from one goroutine; Close
// is called exactly once, after success and after failure alike.
type Sink interface {
	Write(ctx context.Context, b *Batch) error
	Close() error
}

// Optional interfaces.
type (
	// Acceptor says which kinds a batch stage or a sink wants. A batch stage
	// without it gets Samples, a sink without it gets every kind.
	Acceptor interface{ Accepts(k Kind) bool }

	// Flusher is called once after the last batch of a run that has not failed.
	Flusher interface {
		Flush(ctx context.Context, emit Emit) error
	}

	// Finisher is a sink that wants to know of a run that has not failed: it is
	// called once after the last batch, before Close. A sink that only Close tells
	// of the end does not know whether more was to come.
	Finisher interface {
		Finish(ctx context.Context) error
	}

	// Holder says how many batches a batch stage may hold beyond the call that
	// brings them; the pool is made that much larger.
	Holder interface{ Holds() int }

	// Framer says, before a run, what a sample stage does to the size of every
	// sample. A sample stage without it is taken to keep the size. A source has it
	// if its samples come with pictures (SetImage) of one size.
	Framer interface {
		Frame(in Frame) (Frame, error)
	}

	// RandomStage is a sample stage that can say whether it draws random numbers
	// (Sample.Rand). One without it is taken to draw none; statistics of the training
	// images are taken before the first that does.
	RandomStage interface{ Random() bool }

	// Fingerprinter is a source that can say what its images are, without reading
	// them: what it writes changes when they do, and is the same for another value
	// that was made with the same options. What was computed of all images is then
	// kept for the next run.
	Fingerprinter interface{ Fingerprint(w io.Writer) error }

	// StatisticsUser is a source, stage or sink that may want statistics.
	// Statistics says from where: FromSource for those of the training images, or a
	// file that the statistics command wrote; "" if it wants none. SetStatistics is called
	// before Prepare, and before the first sample.
	StatisticsUser interface {
		Statistics() string
		SetStatistics(s *Statistics) error
	}

	// Planner is a batch stage or sink that can say what it will do and need. It
	// allocates no tensor and writes no file. Plan is called before Prepare, in
	// check and in run alike; its error is a mistake in the configuration.
	Planner interface {
		Plan(env *Env) (Plan, error)
	}

	// Preparer is a batch stage or sink called once before the first batch.
	Preparer interface {
		Prepare(ctx context.Context, env *Env) error
	}

	// Resumer is a batch stage or sink that can say where a run goes on. On a run
	// that is resumed (Env.Resume) it is called once, on the goroutine of its other
	// methods, after every Plan and before any Prepare. Prepare then finds the place
	// in Env.Start and Env.StartStep: the first batch to come is the one after it,
	// and what came later in the interrupted run comes again. Start is that of the
	// last batch whose results are safe; an epoch that is done with, its validation
	// too, is Cursor{Epoch: next}. Step is how many batches that makes over the
	// whole run. Nothing may be changed on disk, for all who are asked must say the
	// same place, or the run is refused. An error that wraps ErrResume says that
	// there is nothing to go on from.
	Resumer interface {
		Resume(ctx context.Context, env *Env) (start Cursor, step int, err error)
	}

	// Outputer is a sink that says which files and folders it writes, by their paths in the run
	// folder. No two sinks of a run may write the same.
	Outputer interface{ Outputs() []string }

	// Checkpointer is a sink that keeps checkpoints: it says how often it wants one.
	Checkpointer interface{ Checkpoints() Checkpoints }

	// Stopper is a batch stage with something to save when the run ends early
	// through no fault of its own: interrupted, or by an error of what comes before
	// it. Stop is called once, after the last Process and instead of Flush; ctx does
	// not end, though the run's has, so it must be brief. What it emits goes to the
	// sinks, past the batch stages after it if these have stopped already.
	Stopper interface {
		Stop(ctx context.Context, emit Emit) error
	}

	// PoolMemory is a batch stage that offers the memory of batch buffers (pinned
	// memory on a card).
	PoolMemory interface{ PoolMemory() memory.Allocator }

	// Classer is a source that knows the names of its classes: label i is name i.
	Classer interface{ Classes() []string }

	// ClassMapper is a source whose labels can be renumbered to those of the
	// training source. A class that names lacks is an error.
	ClassMapper interface{ MapClasses(names []string) error }

	// BatchChecker is a sample source or stage that takes part in check with a
	// mistake that only the whole line shows.
	BatchChecker interface{ CheckLine(env *Env) error }
)

// Frame is what is known of every sample's size before a run. Zero means that
// it differs from sample to sample. Canvas is the size that crop origins are
// relative to. Shorter is the shorter side where only that is known. Views is how
// many pictures a sample becomes, of that size each; 0 is one.
type Frame struct{ W, H, CanvasW, CanvasH, Shorter, Views int }

func (f Frame) views() int { return max(1, f.Views) }

// Plan is what a batch stage or a sink says of itself before a run.
type Plan struct {
	Epochs int      // how many epochs of the source it wants; 0: no wish
	Train  bool     // it learns: shuffle every epoch and drop a short last batch
	Memory []Memory // what it will allocate, for the table of check
	Text   string   // a table or a few lines for check, may be empty
	// Schema is that of the Samples batches which it emits, if it changes theirs.
	Schema *arrow.Schema
}

// Memory is one line of the memory table of check.
type Memory struct {
	Name  string
	Bytes int64
}

// Checkpoints says how often a sink wants checkpoints; 0 is never for that reason.
// One at the end of the run, also of one that is interrupted, it gets always.
type Checkpoints struct {
	Steps    int           // every so many steps of the whole run
	Interval time.Duration // when so much time has gone since the last
	Epochs   int           // at the end of every so many epochs
}

// Env is what the engine tells a batch stage or a sink of the run it is in.
type Env struct {
	Name     string
	Seed     uint64
	RunDir   string // the run folder; exists when Prepare is called
	Resolved []byte // the resolved YAML
	Version  string

	Classes       []string // nil where the source does not know them
	Frame         Frame    // size of every image in a batch
	Samples       int      // Len of the source
	BatchSize     int      // rows: Frame.Views of each sample
	Shuffle       bool     // every epoch has an order of its own
	DropLast      bool
	StepsPerEpoch int // whole batches, plus the short one if it is kept
	Epochs        int // set after all plans are known (0 during Plan)
	Workers       int
	Threads       int // for compute; 0 means all cores

	// Schema is that of the Samples batches that come to the stage or sink; set when
	// Plan is called.
	Schema *arrow.Schema

	// Survey is the size of the images that statistics of the source are of, see
	// Spec.Survey; zero where they differ.
	Survey Frame
	// Numbers are further settings that change the numbers of a run and that Resolved
	// does not say, "what: value" each.
	Numbers []string

	// Preprocessing is the resolved sample stages as a YAML list: what becomes of
	// an image before it is batched. ValidationPreprocessing is that of the
	// validation line; without one, Preprocessing less what is random in it.
	Preprocessing, ValidationPreprocessing string

	// Resume says that this run goes on with an earlier one of the same run folder:
	// who keeps results there continues them from Start, and does not begin anew.
	// Force lets it go on though the configuration differs in what changes the numbers.
	Resume, Force bool
	// First and End are the images of the source that the run reads, First to End-1:
	// all, or those of its Shard. They are set when Resume and Prepare are called.
	First, End int
	Shard      Shard
	// Start is where the run begins in the order of the epochs, and StartStep how
	// many batches lie before: zero, or what the Resumers said.
	Start     Cursor
	StartStep int
	// StopAfter bounds the steps of the whole run, see Line; 0 for no bound.
	StopAfter int
	// Warn tells the user what is no error and no metric, in one sentence. It may
	// be called from any goroutine, and is never nil in Resume and Prepare.
	Warn func(text string)
	// Trace is told of stretches of time, on a track each; nil if nobody wants to know.
	// It may be called from any goroutine.
	Trace func(track, name string, from, to time.Time)

	// Accepts reports whether any sink takes batches of this kind.
	Accepts func(Kind) bool

	// Checkpoints is what the Checkpointer among the sinks wants, nil if there is none.
	Checkpoints *Checkpoints

	// Validate runs the validation line through a batch stage (Process of each
	// batch, then Flush if it has one), without closing it. It is nil if the run
	// has none.
	Validate func(ctx context.Context, stage BatchStage) error
	// ValidationBatch is the greatest number of rows of a validation batch and
	// ValidationSamples the length of its source; 0 without validation.
	ValidationBatch, ValidationSamples int
	// ValidationFrame is as Frame, of the images of the validation.
	ValidationFrame Frame
}
