// Package sinks holds what a run leaves behind, one file a sink:
//
//	metrics.go     numbers of the run, as JSON lines and as Parquet
//	weights.go     the network's weights, as safetensors
//	features.go    features, in numbered parts with a manifest
//	evaluation.go  what classes were taken for what, as Parquet
//	pictures.go    curves, first-layer kernels, confusion matrix, predictions, as PNG
//	quarantine.go  samples that were left out, as Parquet
//
// A sink registers itself by name (pipeline.RegisterSink), says by Accepts which
// kinds of batch it wants, and writes below Env.RunDir. A file gets its final
// name only once it is whole and on disk (replaceFile); the exceptions are files of
// JSON lines, which grow a line at a time so that they can be watched and outlive
// a kill.
package sinks
