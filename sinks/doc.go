// Package sinks holds what a run leaves behind, one file a sink:
//
//	metrics.go     numbers of the run, as JSON lines and as Parquet
//	weights.go     the network's weights, as safetensors
//	pictures.go    curves and first-layer kernels, as PNG
//	quarantine.go  samples that were left out, as Parquet
//
// A sink registers itself by name (pipeline.RegisterSink), says by Accepts which
// kinds of batch it wants, and writes below Env.RunDir. A file gets its final
// name only once it is whole and on disk (replaceFile); the one exception is
// metrics.jsonl, which grows a line at a time so that it can be watched.
package sinks
