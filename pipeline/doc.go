// Package pipeline is the engine of Sluice: what travels, who may touch it,
// and how a line of stages runs.
//
//	source ──▶ sample stages (parallel, ordered) ──▶ batch ──▶ batch stages ──▶ sinks
//	names,      decode ▸ resize ▸ crop ▸ flip ▸ jitter  Arrow     train | evaluate   metrics, weights,
//	bytes       one image at a time, N goroutines       records                      quarantine
//
// Two kinds of message travel: a *Sample is one image, a *Batch is one Arrow
// record. The line has a fixed shape; there is no general graph and no user
// ever sees a channel.
//
// Five contracts are all that an extension needs: Source, SampleStage,
// BatchStage, Sink, and Emit. Everything else a stage may want is one more small
// optional interface: Framer, Planner, Preparer, Flusher, Holder, Acceptor,
// Classer, ClassMapper, PoolMemory, io.Closer.
package pipeline
