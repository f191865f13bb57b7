// block.h: running one block of a kernel on fibers.
#pragma once
#include "kernel.h"

#include <random>
#include <string>

namespace emu {

std::string format(const char *f, ...) __attribute__((format(printf, 1, 2)));

// Fault is a rule of CUDA that a kernel broke.
struct Fault {
	bool memory = false; // an access that no allocation allows
	std::string what;    // with kernel, block, thread and line
};

struct Launch {
	const Signature *kernel;
	Dim grid, block;
	size_t dynamicBytes;
	void **params;
};

struct Worker;

// newWorker makes what an OS thread needs to run blocks. With a seed, warps and
// lanes take turns in an order drawn from it.
Worker *newWorker(bool shuffled, uint64_t seed);
void freeWorker(Worker *w);

// runBlock runs block id of l to its end, or to its first fault.
bool runBlock(Worker *w, const Launch &l, Dim id, Fault *fault);

// describeAddress says what lies at a device address; the driver's memory does.
std::string describeAddress(uintptr_t address);

} // namespace emu
