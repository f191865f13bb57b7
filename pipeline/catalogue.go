package pipeline

import (
	"time"

	"sluice/pipeline/config"
)

// defaultSpec is what a file that says nothing comes to.
func defaultSpec() Spec {
	return Spec{
		Batch: BatchSpec{Size: 128, Shuffle: "auto", Last: "auto"},
		Run:   RunSpec{Dir: "runs", Stall: 5 * time.Minute, Grace: 2 * time.Minute},
	}
}

// FileFields describes the fields of a YAML file, as the catalogue tells them.
func FileFields() []config.Field { return config.FieldsOf(defaultSpec()) }

// ConfigType says what an item takes.
func (sourceItem) ConfigType() string { return "a source with its options" }

// ConfigType says what an item takes.
func (sampleItem) ConfigType() string { return "sample stages with their options" }

// ConfigType says what an item takes.
func (batchItem) ConfigType() string { return "batch stages with their options" }

// ConfigType says what an item takes.
func (sinkItem) ConfigType() string { return "sinks with their options" }
