// Package net is what a network is, apart from where it runs.
//
//	Def ──Plan──▶ NetPlan ──New(Engine)──▶ Network
//	YAML or        shapes, parameters,      tensors on a device:
//	a preset       lifetimes; no memory     Forward, Backward, Update
//
// A network is a graph of named layers. A layer is one file, forward and
// backward side by side, made of the ops of an Engine: the same layers run on
// every device. A preset is one file that lists layers.
//
//	engine.go       what a device offers: memory and a closed set of ops
//	fits.go         whether tensors fit an op, for every engine to ask
//	arena.go        tensors that share memory, for engines that lay them out
//	layer.go        what a layer is
//	graph.go        layers joined by name, in the order they run
//	def.go          a graph as the YAML says it
//	plan.go         shapes, and how long each tensor lives
//	network.go      a plan on an engine
//	conv.go ...     the layers
//	alexnet.go ...  the presets
//	solver.go       learning rate, momentum, decay; schedules one file each
//	philox.go       random bits that depend on where they are used, not on when
//	safetensors.go  weight files
//	record.go       weights as an Arrow record
package net
