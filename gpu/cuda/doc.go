// Package cuda computes networks on an NVIDIA card, through the driver and
// gorgonia.org/cu. It is built with the tag cuda; see docs/GPU.md for how.
//
//	abi/      the driver's interface as a C header of our own, and the functions that
//	          find a driver when the program runs: building needs gcc, nothing else
//	kernels/  the kernels (.cu) and the PTX made of them, which is committed
//	emu/      a driver that runs the kernels on the CPU, for tests: it proves that
//	          they are right, never that they are fast
//
// README.md beside this file is the contract between these.
package cuda
