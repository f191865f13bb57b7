// emu_test.cpp: the emulated driver runs what is right, and finds each planted bug of
// bugs.cu. It exits 1 with what was not as expected.
#include <cuda.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

extern "C" const char *sluiceEmuReport();

static int failures;
#define CHECK(condition, ...)                                 \
	do {                                                      \
		if (!(condition)) {                                   \
			failures++;                                       \
			printf("%s:%d: %s: ", __FILE__, __LINE__, #condition); \
			printf(__VA_ARGS__);                              \
			printf("\n");                                     \
		}                                                     \
	} while (0)
#define OK(call) CHECK((call) == CUDA_SUCCESS, "%s", sluiceEmuReport())

// The PTX that a compiler would make of bugs.cu, as far as the driver reads it.
static std::string ptx() {
	std::string text = ".version 7.5\n";
	auto entry = [&](const char *name, int threads, std::vector<const char *> params) {
		text += std::string(".visible .entry ") + name + "(\n";
		for (size_t i = 0; i < params.size(); i++)
			text += std::string("\t.param ") + params[i] + " " + name + "_param_" + std::to_string(i) + (i + 1 < params.size() ? ",\n" : "\n");
		text += ")\n.maxntid " + std::to_string(threads) + ", 1, 1\n{\n\tret;\n}\n";
	};
	const char *pointer = ".u64 .ptr .align 1", *number = ".u32";
	entry("right_sum", 256, {pointer, pointer, number});
	entry("right_async", 64, {pointer, pointer});
	for (const char *name : {"bug_divergence", "bug_early_end", "bug_no_barrier", "bug_uninitialised"}) entry(name, 64, {pointer});
	entry("bug_missing_lanes", 32, {pointer});
	entry("bug_over_end", 256, {pointer, number});
	entry("bug_before_begin", 32, {pointer, pointer});
	entry("bug_over_shared", 32, {pointer, number});
	entry("bug_no_wait", 64, {pointer, pointer});
	return text;
}

// Card is a context that lasts for one test, made after the environment was set.
struct Card {
	CUmodule module = nullptr;
	CUstream stream = nullptr;
	CUdeviceptr a = 0, b = 0;
	static constexpr int n = 300;
	std::vector<float> host = std::vector<float>(n, 2);

	Card() {
		CUcontext c;
		OK(cuDevicePrimaryCtxRetain(&c, 0));
		OK(cuCtxSetCurrent(c));
		OK(cuModuleLoadData(&module, ptx().c_str()));
		OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
		OK(cuMemAlloc(&a, n * 4));
		OK(cuMemAlloc(&b, n * 4));
		OK(cuMemcpyHtoD(a, host.data(), n * 4));
	}
	~Card() {
		cuModuleUnload(module);
		cuDevicePrimaryCtxRelease(0);
	}
	CUresult launch(const char *name, unsigned blocks, unsigned threads, std::vector<unsigned long long> args) {
		CUfunction f;
		if (CUresult r = cuModuleGetFunction(&f, module, name)) return r;
		std::vector<void *> params;
		for (auto &v : args) params.push_back(&v);
		return cuLaunchKernel(f, blocks, 1, 1, threads, 1, 1, 0, stream, params.data(), nullptr);
	}
	// run is what a host sees that launches and waits.
	CUresult run(const char *name, unsigned blocks, unsigned threads, std::vector<unsigned long long> args) {
		if (CUresult r = launch(name, blocks, threads, args)) return r;
		return cuStreamSynchronize(stream);
	}
	std::vector<float> get(CUdeviceptr p, int count) {
		std::vector<float> v(count);
		OK(cuMemcpyDtoH(v.data(), p, count * 4));
		return v;
	}
};

// finds runs a kernel with a bug, in every schedule, and looks for words in the report.
static void finds(const char *kernel, unsigned blocks, unsigned threads, CUresult code, bool withA, std::vector<unsigned long long> more, std::vector<const char *> words) {
	for (const char *seed : {"0", "1", "2"}) {
		setenv("SLUICE_EMU_SEED", seed, 1);
		Card c;
		std::vector<unsigned long long> args = {c.a};
		if (withA) args.push_back(c.b);
		args.insert(args.end(), more.begin(), more.end());
		CUresult r = c.run(kernel, blocks, threads, args);
		CHECK(r == code, "%s gives %d", kernel, r);
		std::string report = sluiceEmuReport();
		for (const char *w : words) CHECK(report.find(w) != std::string::npos, "%s: \"%s\" is not in \"%s\"", kernel, w, report.c_str());
		CUdeviceptr p;
		CHECK(cuMemAlloc(&p, 4) == code, "the error does not stick");
	}
	unsetenv("SLUICE_EMU_SEED");
}

static void rightOnes() {
	for (const char *seed : {"0", "7"}) {
		setenv("SLUICE_EMU_SEED", seed, 1);
		Card c;
		OK(c.run("right_sum", 1, 256, {c.a, c.b, 200}));
		CHECK(c.get(c.b, 1)[0] == 400, "the sum is %g", c.get(c.b, 1)[0]);
		OK(c.run("right_async", 1, 64, {c.a, c.b}));
		CHECK(c.get(c.b, 64)[63] == 2, "cp.async brought %g", c.get(c.b, 64)[63]);
	}
	unsetenv("SLUICE_EMU_SEED");
}

static void garbage() {
	Card c;
	CHECK(c.get(c.b, 1)[0] != c.get(c.b, 1)[0], "new memory is not NaN");
	OK(c.run("bug_uninitialised", 1, 64, {c.b}));
	auto v = c.get(c.b, 64);
	CHECK(v[0] != v[0] && v[1] == 1, "new shared memory is %g", v[0]);
}

// Bugs that only the numbers show, in some schedule.
static void wrongNumbers() {
	int wrong = 0;
	for (const char *seed : {"0", "1", "2", "3"}) {
		setenv("SLUICE_EMU_SEED", seed, 1);
		Card c;
		OK(c.run("bug_no_barrier", 1, 64, {c.b}));
		auto v = c.get(c.b, 64);
		for (int i = 0; i < 64; i++) wrong += v[i] != 63 - i;
		OK(c.run("bug_no_wait", 1, 64, {c.a, c.b}));
		CHECK(c.get(c.b, 64)[5] != 2, "a copy that nobody waits for has happened");
	}
	CHECK(wrong > 0, "a missing barrier shows in no schedule");
	unsetenv("SLUICE_EMU_SEED");
}

static void launches() {
	Card c;
	CHECK(c.launch("right_sum", 1, 257, {c.a, c.b, 1}) == CUDA_ERROR_INVALID_VALUE, "more threads than the launch bounds");
	CHECK(c.launch("right_sum", 0, 32, {c.a, c.b, 1}) == CUDA_ERROR_INVALID_VALUE, "no block");
	CHECK(c.launch("nothing", 1, 32, {}) == CUDA_ERROR_NOT_FOUND, "no such kernel");
	CUmodule m;
	CHECK(cuModuleLoadData(&m, "no PTX") == CUDA_ERROR_INVALID_IMAGE, "any text is an image");
	CHECK(cuModuleLoadData(&m, ".version 7.5\n.entry right_sum(\n.param .u64 a\n)\n.maxntid 32, 1, 1\n{}") == CUDA_ERROR_INVALID_PTX, "one parameter of three");
	CHECK(cuModuleLoadData(&m, ".version 7.5\n.entry right_sum(\n.param .u64 a,\n.param .u64 b,\n.param .u64 c\n)\n.maxntid 256, 1, 1\n{}") == CUDA_ERROR_INVALID_PTX, "a parameter of another size");
	CHECK(cuModuleLoadData(&m, ".version 7.5\n.entry unknown(\n.param .u64 a\n)\n{}") == CUDA_ERROR_NO_BINARY_FOR_GPU, "an unknown kernel");
	CHECK(cuMemcpyHtoD(c.a, c.host.data(), c.n * 4 + 4) == CUDA_ERROR_INVALID_VALUE, "a copy beyond the end");
	CHECK(cuMemFree(c.a + 4) == CUDA_ERROR_INVALID_VALUE, "freeing the middle");
	OK(c.run("right_sum", 1, 32, {c.a, c.b, 32}));
}

static void failuresOnDemand() {
	setenv("SLUICE_EMU_FAIL", "alloc:4", 1);
	{
		Card c; // two allocations of its own
		CUdeviceptr p;
		OK(cuMemAlloc(&p, 4));
		CHECK(cuMemAlloc(&p, 4) == CUDA_ERROR_OUT_OF_MEMORY, "the fourth allocation");
		OK(cuMemAlloc(&p, 4));
	}
	setenv("SLUICE_EMU_FAIL", "launch:2", 1);
	{
		Card c;
		OK(c.run("right_sum", 1, 32, {c.a, c.b, 32}));
		OK(c.launch("right_sum", 1, 32, {c.a, c.b, 32})); // it is asynchronous
		CHECK(cuStreamSynchronize(c.stream) == CUDA_ERROR_LAUNCH_FAILED, "the second launch");
		CHECK(std::string(sluiceEmuReport()).find("right_sum") != std::string::npos, "%s", sluiceEmuReport());
	}
	setenv("SLUICE_EMU_FAIL", "lost:1", 1);
	{
		Card c;
		CHECK(c.launch("right_sum", 1, 32, {c.a, c.b, 32}) == CUDA_ERROR_UNKNOWN, "a lost device");
		CUdeviceptr p;
		CHECK(cuMemAlloc(&p, 4) == CUDA_ERROR_UNKNOWN, "and afterwards");
	}
	unsetenv("SLUICE_EMU_FAIL");
	setenv("SLUICE_EMU_MEMORY", "8000", 1);
	{
		Card c;
		CUdeviceptr p;
		size_t free, total;
		OK(cuMemGetInfo(&free, &total));
		CHECK(total == 8000 && free == 8000 - 2 * 4 * c.n, "free %zu of %zu", free, total);
		CHECK(cuMemAlloc(&p, free + 1) == CUDA_ERROR_OUT_OF_MEMORY, "more than there is");
		OK(cuMemAlloc(&p, free));
	}
	unsetenv("SLUICE_EMU_MEMORY");
}

// A write into the bytes that alignment leaves behind an allocation is found at its end.
static void afterTheEnd() {
	Card c;
	OK(c.run("bug_over_end", 2, 256, {c.b, 300}));
	CHECK(cuMemFree(c.b) == CUDA_ERROR_ILLEGAL_ADDRESS, "nothing was found");
	CHECK(std::string(sluiceEmuReport()).find("beyond its end") != std::string::npos, "%s", sluiceEmuReport());
}

// A kernel on one stream begins and ends while a slow copy is under way on another,
// unless it is told to wait for it.
static void overlap() {
	setenv("SLUICE_EMU_GBPS", "0.005", 1);
	Card c;
	CUstream copies;
	OK(cuStreamCreate(&copies, CU_STREAM_NON_BLOCKING));
	const size_t bytes = 4 << 20; // 0.8 s
	void *pinned;
	CUdeviceptr p;
	OK(cuMemHostAlloc(&pinned, bytes, 0));
	((float *)pinned)[0] = 5;
	OK(cuMemAlloc(&p, bytes));
	CUevent begun, copied;
	OK(cuEventCreate(&begun, 0));
	OK(cuEventCreate(&copied, 0));
	OK(cuEventRecord(begun, copies));
	OK(cuMemcpyHtoDAsync(p, pinned, bytes, copies));
	OK(cuEventRecord(copied, copies));
	OK(c.run("right_sum", 1, 32, {c.a, c.b, 32}));
	CHECK(cuEventQuery(copied) == CUDA_ERROR_NOT_READY, "the kernel ended after the copy");
	OK(cuStreamWaitEvent(c.stream, copied, 0));
	OK(c.run("right_sum", 1, 32, {p, c.b, 1}));
	CHECK(c.get(c.b, 1)[0] == 5, "a kernel that waits for the copy reads %g", c.get(c.b, 1)[0]);
	float copy;
	OK(cuEventElapsedTime(&copy, begun, copied));
	CHECK(copy >= 800, "a copy held to 0.8 s took %.0f ms", copy);
	unsetenv("SLUICE_EMU_GBPS");
}

int main() {
	rightOnes();
	garbage();
	wrongNumbers();
	launches();
	failuresOnDemand();
	afterTheEnd();
	overlap();
	finds("bug_divergence", 1, 64, CUDA_ERROR_LAUNCH_FAILED, false, {}, {"kernel bug_divergence, block (0,0,0), thread (", "bugs.cu:", "barrier divergence"});
	finds("bug_early_end", 1, 64, CUDA_ERROR_LAUNCH_FAILED, false, {}, {"bugs.cu:", "40 of 64 threads"});
	finds("bug_missing_lanes", 1, 32, CUDA_ERROR_LAUNCH_FAILED, false, {}, {"bugs.cu:", "lanes 0000ffff"});
	finds("bug_over_end", 9, 256, CUDA_ERROR_ILLEGAL_ADDRESS, false, {2000}, {"kernel bug_over_end, block (", "thread (", "of an allocation of 1200 bytes"});
	finds("bug_before_begin", 1, 32, CUDA_ERROR_ILLEGAL_ADDRESS, true, {}, {"kernel bug_before_begin, block (0,0,0), thread ("});
	finds("bug_over_shared", 1, 32, CUDA_ERROR_ILLEGAL_ADDRESS, false, {40}, {"kernel bug_over_shared", "in no allocation"});
	if (system("addr2line --version >/dev/null 2>&1") == 0) finds("bug_over_end", 9, 256, CUDA_ERROR_ILLEGAL_ADDRESS, false, {2000}, {"bugs.cu:"});
	if (failures > 0) {
		printf("%d checks failed\n", failures);
		return 1;
	}
	printf("the emulated driver finds every planted bug\n");
	return 0;
}
