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
