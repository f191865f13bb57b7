package pipeline

import "sluice/pipeline/config"

// The registries are the only global state of Sluice, written only by the
// Register functions, which are to be called from init.
var (
	Sources      = config.NewRegistry[Source]("source")
	SampleStages = config.NewRegistry[SampleStage]("sample stage")
	BatchStages  = config.NewRegistry[BatchStage]("batch stage")
	Sinks        = config.NewRegistry[Sink]("sink")
)

// RegisterSource makes a source known to the YAML by name. C is a struct whose
// fields carry `yaml:` and `doc:` tags; defaults holds their default values. It
// panics if the name is taken.
func RegisterSource[C any](name, doc string, defaults C, build func(C) (Source, error)) {
	config.Add(Sources, name, doc, defaults, build)
}

// DefineSource is RegisterSource for a source that is its own options: a struct with their
// tags and defaults, and the methods of a Source. Every use in a YAML has a value of its
// own, so that fields without a tag, not exported, may hold its state. If it has a
// method Check() error, that says what is wrong with the options (config.Fieldf).
func DefineSource[C any, P interface {
	*C
	Source
}](name, doc string, defaults C) {
	RegisterSource(name, doc, defaults, func(c C) (Source, error) { return P(&c), config.Check(P(&c)) })
}

// DefineSampleStage makes known a sample stage that is its own options, see DefineSource.
func DefineSampleStage[C any, P interface {
	*C
	SampleStage
}](name, doc string, defaults C) {
	RegisterSampleStage(name, doc, defaults, func(c C) (SampleStage, error) { return P(&c), config.Check(P(&c)) })
}

// DefineBatchStage makes known a batch stage that is its own options, see DefineSource.
func DefineBatchStage[C any, P interface {
	*C
	BatchStage
}](name, doc string, defaults C) {
	RegisterBatchStage(name, doc, defaults, func(c C) (BatchStage, error) { return P(&c), config.Check(P(&c)) })
}

// DefineSink makes known a sink that is its own options, see DefineSource.
func DefineSink[C any, P interface {
	*C
	Sink
}](name, doc string, defaults C) {
	RegisterSink(name, doc, defaults, func(c C) (Sink, error) { return P(&c), config.Check(P(&c)) })
}

// RegisterSampleStage makes a sample stage known, see RegisterSource.
func RegisterSampleStage[C any](name, doc string, defaults C, build func(C) (SampleStage, error)) {
	config.Add(SampleStages, name, doc, defaults, build)
}

// RegisterBatchStage makes a batch stage known, see RegisterSource.
func RegisterBatchStage[C any](name, doc string, defaults C, build func(C) (BatchStage, error)) {
	config.Add(BatchStages, name, doc, defaults, build)
}

// RegisterSink makes a sink known, see RegisterSource.
func RegisterSink[C any](name, doc string, defaults C, build func(C) (Sink, error)) {
	config.Add(Sinks, name, doc, defaults, build)
}
