// Package enginetest holds every net.Engine to the same table of cases.
//
// Run compares each op with plain float64 loops (truth.go), those loops with
// central differences, and what is around the ops (layout at the border, memory,
// errors, cancellation, allocations) with what net.Engine promises. Shapes checks
// as many random geometries as one likes, FuzzConv and its like have a fuzzer look
// for bad ones. TrainStep, Infer, Speedup, Conv, Dense and Memory are benchmarks of
// whole steps and of ops at AlexNet's sizes.
//
// A new op is a row of table in cases.go.
package enginetest
