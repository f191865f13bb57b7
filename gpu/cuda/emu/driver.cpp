// driver.cpp: libcuda.so.1 for a machine without a card. Device memory is memory
// with guards around it that fault, a stream is a thread with a queue, kernels are the
// functions that were compiled in. README.md lists what the environment changes.
#include "block.h"

// The driver's functions are all that others see.
#pragma GCC visibility push(default)
#include <cuda.h>
#pragma GCC visibility pop

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <set>
#include <sys/mman.h>
#include <thread>

using Clock = std::chrono::steady_clock;
using emu::format;

namespace {

// ---- what the environment says, read when a context is made

struct Options {
	uint64_t seed = 0;      // 0: a fixed schedule
	double bytesPerNs = 0;  // of copies between host and device; 0: no limit
	std::chrono::microseconds kernel{0}; // that each kernel takes at least
	size_t memory = 4ull << 30;
	unsigned threads = 0;
	std::map<std::string, unsigned long> failAt; // what, and at which

	static Options read() {
		Options o;
		o.threads = std::max(1u, std::thread::hardware_concurrency());
		auto text = [](const char *name) { const char *v = getenv(name); return v == nullptr ? "" : v; };
		auto number = [&](const char *name) { return strtoull(text(name), nullptr, 10); };
		o.seed = number("SLUICE_EMU_SEED");
		o.bytesPerNs = atof(text("SLUICE_EMU_GBPS"));
		o.kernel = std::chrono::microseconds(number("SLUICE_EMU_KERNEL_US"));
		if (auto n = number("SLUICE_EMU_MEMORY")) o.memory = n;
		if (auto n = number("SLUICE_EMU_THREADS")) o.threads = (unsigned)n;
		std::string fail = text("SLUICE_EMU_FAIL");
		for (size_t at = 0; at < fail.size();) {
			size_t end = std::min(fail.find(',', at), fail.size()), colon = fail.find(':', at);
			if (colon < end) o.failAt[fail.substr(at, colon - at)] = strtoul(fail.c_str() + colon + 1, nullptr, 10);
			at = end + 1;
		}
		return o;
	}
};

// ---- the context, and the error that sticks to it

std::mutex contextMutex;
Options options;
std::map<std::string, unsigned long> counts;
CUresult sticky = CUDA_SUCCESS;
std::string report;
unsigned retained;
int contextTag; // its address is the context
thread_local CUcontext currentContext;

void fail(CUresult code, const std::string &what) {
	std::lock_guard<std::mutex> l(contextMutex);
	if (sticky != CUDA_SUCCESS) return;
	sticky = code;
	report = what;
	fprintf(stderr, "emulated CUDA: %s\n", what.c_str());
}

CUresult stuck() {
	std::lock_guard<std::mutex> l(contextMutex);
	return sticky;
}

// failsNow counts calls of a kind, and says whether this one is to fail.
bool failsNow(const char *kind) {
	std::lock_guard<std::mutex> l(contextMutex);
	auto at = options.failAt.find(kind);
	return at != options.failAt.end() && ++counts[kind] == at->second;
}

// ---- memory: an allocation ends at a guard that faults, and begins as garbage

struct Allocation {
	size_t bytes;
	char *map;
	size_t mapped;
	bool host;
};
std::mutex memoryMutex;
std::map<uintptr_t, Allocation> allocations;
size_t used;
// The guards are wide, so that a wrong stride does not step over them.
constexpr size_t page = 4096, guard = 1 << 20, alignment = 256;

void *allocate(size_t bytes, bool host) {
	std::lock_guard<std::mutex> l(memoryMutex);
	if (!host && (bytes > options.memory || used > options.memory - bytes)) return nullptr;
	size_t body = (bytes + alignment - 1) / alignment * alignment, length = (body + page - 1) / page * page;
	char *m = (char *)mmap(nullptr, length + 2 * guard, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m == MAP_FAILED) return nullptr;
	mprotect(m, guard, PROT_NONE);
	mprotect(m + guard + length, guard, PROT_NONE);
	memset(m + guard, 0xff, length); // NaN
	char *p = m + guard + length - body;
	allocations[(uintptr_t)p] = {bytes, m, length + 2 * guard, host};
	if (!host) used += bytes;
	return p;
}

bool release(uintptr_t p, bool host) {
	std::lock_guard<std::mutex> l(memoryMutex);
	auto it = allocations.find(p);
	if (it == allocations.end() || it->second.host != host) return false;
	Allocation a = it->second;
	allocations.erase(it);
	if (!host) used -= a.bytes;
	// What alignment left on both sides must be as it was.
	auto touched = [](const char *from, const char *to) {
		return std::find_if(from, to, [](char c) { return (unsigned char)c != 0xff; });
	};
	const char *begin = a.map + guard, *end = a.map + a.mapped - guard, *last = (char *)p + a.bytes;
	if (const char *at = touched(begin, (char *)p); at != (char *)p)
		fail(CUDA_ERROR_ILLEGAL_ADDRESS, format("an allocation of %zu bytes was written to %zu bytes before its begin", a.bytes, (char *)p - at));
	if (const char *at = touched(last, end); at != end)
		fail(CUDA_ERROR_ILLEGAL_ADDRESS, format("an allocation of %zu bytes was written to %zu bytes beyond its end", a.bytes, at - last));
	munmap(a.map, a.mapped);
	return true;
}

bool inside(uintptr_t p, size_t bytes, bool host) {
	std::lock_guard<std::mutex> l(memoryMutex);
	auto it = allocations.upper_bound(p);
	if (it == allocations.begin()) return false;
	--it;
	return it->second.host == host && p + bytes >= p && p + bytes <= it->first + it->second.bytes;
}

// ---- streams and events

struct Stream {
	explicit Stream(unsigned flags) : flags(flags), thread([this] { run(); }) {}
	~Stream() {
		push([this] { ending = true; });
		thread.join();
	}
	void push(std::function<void()> f) {
		std::lock_guard<std::mutex> l(mutex);
		queue.push_back(std::move(f));
		filled.notify_one();
	}
	bool idle() {
		std::lock_guard<std::mutex> l(mutex);
		return queue.empty() && !busy;
	}
	void synchronize() {
		std::unique_lock<std::mutex> l(mutex);
		emptied.wait(l, [this] { return queue.empty() && !busy; });
	}
	const unsigned flags;

private:
	void run() {
		while (!ending) {
			std::unique_lock<std::mutex> l(mutex);
			filled.wait(l, [this] { return !queue.empty(); });
			auto f = std::move(queue.front());
			queue.pop_front();
			busy = true;
			l.unlock();
			f();
			f = nullptr;
			l.lock();
			busy = false;
			if (queue.empty()) emptied.notify_all();
		}
	}
	std::mutex mutex;
	std::condition_variable filled, emptied;
	std::deque<std::function<void()>> queue;
	bool busy = false, ending = false;
	std::thread thread;
};

struct Event {
	std::mutex mutex;
	std::condition_variable changed;
	uint64_t recorded = 0, happened = 0;
	Clock::time_point when;

	uint64_t record() {
		std::lock_guard<std::mutex> l(mutex);
		return ++recorded;
	}
	void happen(uint64_t n) {
		std::lock_guard<std::mutex> l(mutex);
		happened = std::max(happened, n);
		when = Clock::now();
		changed.notify_all();
	}
	uint64_t last() {
		std::lock_guard<std::mutex> l(mutex);
		return recorded;
	}
	void wait(uint64_t n) {
		std::unique_lock<std::mutex> l(mutex);
		changed.wait(l, [&] { return happened >= n; });
	}
};
// What the handle points to. A queue may outlive it, so the event is shared.
struct EventHandle {
	std::shared_ptr<Event> event = std::make_shared<Event>();
};
std::shared_ptr<Event> eventOf(CUevent e) { return ((EventHandle *)e)->event; }

std::mutex streamsMutex;
std::set<Stream *> streams;
Stream *defaultStream;

Stream *streamOf(CUstream s) {
	if (s != nullptr) return (Stream *)s;
	std::lock_guard<std::mutex> l(streamsMutex);
	if (defaultStream == nullptr) defaultStream = new Stream(0);
	return defaultStream;
}

void synchronizeAll(bool blockingOnly) {
	std::vector<Stream *> all;
	{
		std::lock_guard<std::mutex> l(streamsMutex);
		for (Stream *s : streams)
			if (!blockingOnly || !(s->flags & CU_STREAM_NON_BLOCKING)) all.push_back(s);
		if (defaultStream != nullptr && !blockingOnly) all.push_back(defaultStream);
	}
	for (Stream *s : all) s->synchronize();
}

// enqueue keeps the order between the default stream and those that block on it.
void enqueue(CUstream s, std::function<void()> f) {
	if (s == nullptr) synchronizeAll(true);
	else if (!(streamOf(s)->flags & CU_STREAM_NON_BLOCKING)) streamOf(nullptr)->synchronize();
	streamOf(s)->push(std::move(f));
}

// copy is asynchronous only where the memory on the host is pinned.
CUresult copy(void *to, const void *from, size_t bytes, CUstream s, bool wait, bool throttled) {
	double bytesPerNs = throttled ? options.bytesPerNs : 0;
	enqueue(s, [=] {
		if (stuck()) return;
		auto began = Clock::now();
		memmove(to, from, bytes);
		if (bytesPerNs > 0) std::this_thread::sleep_until(began + std::chrono::nanoseconds((long long)(bytes / bytesPerNs)));
	});
	if (wait) streamOf(s)->synchronize();
	return stuck();
}

// ---- kernels

std::map<std::string, emu::Signature> &kernels() {
	static std::map<std::string, emu::Signature> k;
	return k;
}

// Crew runs the blocks of launches on a fixed set of threads.
class Crew {
public:
	explicit Crew(unsigned n, uint64_t seed) {
		for (unsigned i = 0; i < n; i++)
			threads.emplace_back([this, i, seed] {
				emu::Worker *w = emu::newWorker(seed != 0, seed + i);
				for (;;) {
					std::unique_lock<std::mutex> l(mutex);
					filled.wait(l, [this] { return !queue.empty(); });
					auto f = queue.front();
					queue.pop_front();
					l.unlock();
					if (!f) break;
					f(w);
				}
				emu::freeWorker(w);
			});
	}
	~Crew() {
		for (size_t i = 0; i < threads.size(); i++) push(nullptr);
		for (auto &t : threads) t.join();
	}
	void push(std::function<void(emu::Worker *)> f) {
		std::lock_guard<std::mutex> l(mutex);
		queue.push_back(std::move(f));
		filled.notify_one();
	}
	size_t size() const { return threads.size(); }

private:
	std::mutex mutex;
	std::condition_variable filled;
	std::deque<std::function<void(emu::Worker *)>> queue;
	std::vector<std::thread> threads;
};
Crew *crew;

void runGrid(const emu::Launch &l, uint64_t seed) {
	uint64_t blocks = (uint64_t)l.grid.x * l.grid.y * l.grid.z;
	std::vector<uint64_t> order(seed != 0 ? blocks : 0);
	std::iota(order.begin(), order.end(), 0);
	std::shuffle(order.begin(), order.end(), std::mt19937_64(seed ^ blocks));
	std::atomic<uint64_t> next{0};
	std::mutex mutex;
	std::condition_variable ended;
	size_t helpers = std::min<uint64_t>(crew->size(), blocks), left = helpers;
	for (size_t h = 0; h < helpers; h++)
		crew->push([&](emu::Worker *w) {
			for (uint64_t i; (i = next.fetch_add(1)) < blocks;) {
				uint64_t b = order.empty() ? i : order[i];
				emu::Dim id = {unsigned(b % l.grid.x), unsigned(b / l.grid.x % l.grid.y), unsigned(b / l.grid.x / l.grid.y)};
				emu::Fault fault;
				if (!emu::runBlock(w, l, id, &fault)) {
					next.store(blocks);
					fail(fault.memory ? CUDA_ERROR_ILLEGAL_ADDRESS : CUDA_ERROR_LAUNCH_FAILED, fault.what);
				}
			}
			std::lock_guard<std::mutex> lock(mutex);
			if (--left == 0) ended.notify_one();
		});
	std::unique_lock<std::mutex> lock(mutex);
	ended.wait(lock, [&] { return left == 0; });
}

struct Function {
	emu::Signature signature;
	size_t dynamicLimit = 48 << 10;
};
struct Module {
	std::map<std::string, Function> functions;
};

// entries finds the kernels of a PTX text, with the bytes of each parameter and
// the threads of its launch bounds.
struct Entry {
	std::string name;
	std::vector<size_t> params;
	unsigned threads;
};
std::vector<Entry> entries(const std::string &ptx) {
	std::vector<Entry> found;
	for (size_t at = 0; (at = ptx.find(".entry ", at)) != std::string::npos;) {
		at += strlen(".entry ");
		size_t open = ptx.find_first_of("( \n", at), close = ptx.find(')', open), body = ptx.find('{', close);
		Entry e = {ptx.substr(at, open - at), {}, 1024};
		for (size_t p = open; (p = ptx.find(".param ", p)) < close;) {
			p += strlen(".param ");
			size_t end = ptx.find_first_of(",)", p);
			std::string type = ptx.substr(p, end - p);
			size_t array = type.find('[');
			size_t bits = type.find_first_of("0123456789", type.compare(0, 6, ".align") == 0 ? type.find(".b", 1) : 0);
			size_t bytes = strtoul(type.c_str() + bits, nullptr, 10) / 8;
			e.params.push_back(array == std::string::npos ? bytes : bytes * strtoul(type.c_str() + array + 1, nullptr, 10));
		}
		size_t bounds = ptx.find(".maxntid", close);
		if (bounds < body) e.threads = strtoul(ptx.c_str() + bounds + strlen(".maxntid"), nullptr, 10);
		found.push_back(e);
		at = body;
	}
	return found;
}

} // namespace

namespace emu {

void addKernel(const Signature &s) { kernels()[s.name] = s; }

std::string describeAddress(uintptr_t address) {
	std::lock_guard<std::mutex> l(memoryMutex);
	for (auto &[p, a] : allocations)
		if (address >= (uintptr_t)a.map && address < (uintptr_t)a.map + a.mapped) {
			if (address < p) return format("%zu bytes before an allocation of %zu bytes", p - address, a.bytes);
			return format("byte %zu of an allocation of %zu bytes", address - p, a.bytes);
		}
	return format("0x%zx, which is in no allocation", (size_t)address);
}

} // namespace emu

// What the last fault was, for tests of the emulator.
extern "C" __attribute__((visibility("default"))) const char *sluiceEmuReport() {
	std::lock_guard<std::mutex> l(contextMutex);
	static std::string copy;
	copy = report;
	return copy.c_str();
}

// ---- the functions of the driver. NEEDS_CONTEXT is what each says first that works
// in one.
#define NEEDS_CONTEXT                                              \
	if (currentContext == nullptr) return CUDA_ERROR_INVALID_CONTEXT; \
	if (CUresult r = stuck()) return r

extern "C" {

CUresult cuInit(unsigned) { return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int *version) {
	*version = 12000;
	return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult error, const char **text) {
	*text = error == CUDA_ERROR_OUT_OF_MEMORY ? "out of memory" : "an error of the emulated driver";
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count) {
	const char *none = getenv("SLUICE_EMU_NO_DEVICE");
	*count = none != nullptr && *none != 0 ? 0 : 1;
	return CUDA_SUCCESS;
}
CUresult cuDeviceGet(CUdevice *device, int ordinal) {
	if (ordinal != 0) return CUDA_ERROR_INVALID_DEVICE;
	*device = 0;
	return CUDA_SUCCESS;
}
CUresult cuDeviceGetName(char *name, int length, CUdevice) {
	snprintf(name, length, "Emulated on the CPU");
	return CUDA_SUCCESS;
}
CUresult cuDeviceTotalMem(size_t *bytes, CUdevice) {
	*bytes = Options::read().memory;
	return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice) {
	switch (attribute) {
	case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 8; break;
	case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 0; break;
	case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = (int)Options::read().threads; break;
	case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
	case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = 1024; break;
	case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT: *value = 2; break;
	case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = 163 << 10; break;
	default: *value = 0;
	}
	return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
	if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
	std::lock_guard<std::mutex> l(contextMutex);
	if (retained++ == 0) {
		options = Options::read();
		counts.clear();
		sticky = CUDA_SUCCESS;
		report.clear();
		crew = new Crew(options.threads, options.seed);
	}
	*context = (CUcontext)&contextTag;
	return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease(CUdevice) {
	{
		std::lock_guard<std::mutex> l(contextMutex);
		if (retained == 0) return CUDA_ERROR_INVALID_CONTEXT;
		if (--retained > 0) return CUDA_SUCCESS;
	}
	// The context ends, with all that is in it.
	synchronizeAll(false);
	std::set<Stream *> all;
	{
		std::lock_guard<std::mutex> l(streamsMutex);
		all.swap(streams);
		if (defaultStream != nullptr) all.insert(defaultStream);
		defaultStream = nullptr;
	}
	for (Stream *s : all) delete s;
	delete crew;
	crew = nullptr;
	std::lock_guard<std::mutex> l(memoryMutex);
	for (auto &[p, a] : allocations) munmap(a.map, a.mapped);
	allocations.clear();
	used = 0;
	return CUDA_SUCCESS;
}
CUresult cuCtxSetCurrent(CUcontext context) {
	if (context != nullptr && context != (CUcontext)&contextTag) return CUDA_ERROR_INVALID_CONTEXT;
	currentContext = context;
	return CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext *context) {
	*context = currentContext;
	return CUDA_SUCCESS;
}
CUresult cuCtxGetDevice(CUdevice *device) {
	*device = 0;
	return currentContext == nullptr ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
}
CUresult cuCtxSynchronize(void) {
	NEEDS_CONTEXT;
	synchronizeAll(false);
	return stuck();
}

CUresult cuMemGetInfo(size_t *free, size_t *total) {
	NEEDS_CONTEXT;
	std::lock_guard<std::mutex> l(memoryMutex);
	*total = options.memory;
	*free = options.memory - used;
	return CUDA_SUCCESS;
}
CUresult cuMemAlloc(CUdeviceptr *pointer, size_t bytes) {
	NEEDS_CONTEXT;
	if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
	void *p = failsNow("alloc") ? nullptr : allocate(bytes, false);
	if (p == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
	*pointer = (CUdeviceptr)p;
	return CUDA_SUCCESS;
}
CUresult cuMemFree(CUdeviceptr pointer) {
	NEEDS_CONTEXT;
	if (pointer == 0) return CUDA_SUCCESS;
	synchronizeAll(false);
	if (!release(pointer, false)) return CUDA_ERROR_INVALID_VALUE;
	return stuck();
}
CUresult cuMemHostAlloc(void **pointer, size_t bytes, unsigned) {
	NEEDS_CONTEXT;
	if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
	*pointer = failsNow("hostalloc") ? nullptr : allocate(bytes, true);
	return *pointer == nullptr ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}
CUresult cuMemFreeHost(void *pointer) {
	NEEDS_CONTEXT;
	synchronizeAll(false);
	return release((uintptr_t)pointer, true) ? stuck() : CUDA_ERROR_INVALID_VALUE;
}

#define ON_DEVICE(pointer, bytes) \
	if (!inside(pointer, bytes, false)) return CUDA_ERROR_INVALID_VALUE

CUresult cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t bytes) {
	NEEDS_CONTEXT;
	ON_DEVICE(to, bytes);
	return copy((void *)to, from, bytes, nullptr, true, true);
}
CUresult cuMemcpyDtoH(void *to, CUdeviceptr from, size_t bytes) {
	NEEDS_CONTEXT;
	ON_DEVICE(from, bytes);
	return copy(to, (void *)from, bytes, nullptr, true, true);
}
CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream s) {
	NEEDS_CONTEXT;
	ON_DEVICE(to, bytes);
	return copy((void *)to, from, bytes, s, !inside((uintptr_t)from, bytes, true), true);
}
CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream s) {
	NEEDS_CONTEXT;
	ON_DEVICE(from, bytes);
	return copy(to, (void *)from, bytes, s, !inside((uintptr_t)to, bytes, true), true);
}
CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream s) {
	NEEDS_CONTEXT;
	ON_DEVICE(to, bytes);
	ON_DEVICE(from, bytes);
	return copy((void *)to, (void *)from, bytes, s, false, false);
}
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream s) {
	NEEDS_CONTEXT;
	ON_DEVICE(to, count);
	enqueue(s, [=] { memset((void *)to, value, count); });
	return CUDA_SUCCESS;
}
CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream s) {
	NEEDS_CONTEXT;
	ON_DEVICE(to, 4 * count);
	enqueue(s, [=] { std::fill_n((unsigned *)to, count, value); });
	return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream *s, unsigned flags) {
	NEEDS_CONTEXT;
	auto *made = new Stream(flags);
	std::lock_guard<std::mutex> l(streamsMutex);
	streams.insert(made);
	*s = (CUstream)made;
	return CUDA_SUCCESS;
}
CUresult cuStreamDestroy(CUstream s) {
	{
		std::lock_guard<std::mutex> l(streamsMutex);
		if (streams.erase((Stream *)s) == 0) return CUDA_ERROR_INVALID_HANDLE;
	}
	delete (Stream *)s;
	return stuck();
}
CUresult cuStreamSynchronize(CUstream s) {
	NEEDS_CONTEXT;
	streamOf(s)->synchronize();
	return stuck();
}
CUresult cuStreamQuery(CUstream s) {
	NEEDS_CONTEXT;
	return streamOf(s)->idle() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}
CUresult cuStreamWaitEvent(CUstream s, CUevent e, unsigned) {
	NEEDS_CONTEXT;
	auto event = eventOf(e);
	uint64_t n = event->last();
	enqueue(s, [=] { event->wait(n); });
	return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent *e, unsigned) {
	NEEDS_CONTEXT;
	*e = (CUevent) new EventHandle;
	return CUDA_SUCCESS;
}
CUresult cuEventDestroy(CUevent e) {
	delete (EventHandle *)e;
	return stuck();
}
CUresult cuEventRecord(CUevent e, CUstream s) {
	NEEDS_CONTEXT;
	auto event = eventOf(e);
	uint64_t n = event->record();
	enqueue(s, [=] { event->happen(n); });
	return CUDA_SUCCESS;
}
CUresult cuEventQuery(CUevent e) {
	NEEDS_CONTEXT;
	auto event = eventOf(e);
	std::lock_guard<std::mutex> l(event->mutex);
	return event->happened >= event->recorded ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}
CUresult cuEventSynchronize(CUevent e) {
	NEEDS_CONTEXT;
	auto event = eventOf(e);
	event->wait(event->last());
	return stuck();
}
CUresult cuEventElapsedTime(float *milliseconds, CUevent from, CUevent to) {
	NEEDS_CONTEXT;
	auto a = eventOf(from), b = eventOf(to);
	if (a->last() == 0 || b->last() == 0) return CUDA_ERROR_INVALID_HANDLE;
	if (a->happened < a->last() || b->happened < b->last()) return CUDA_ERROR_NOT_READY;
	*milliseconds = std::chrono::duration<float, std::milli>(b->when - a->when).count();
	return CUDA_SUCCESS;
}

// An image is the PTX itself: what it says of its kernels must be true of those here.
CUresult cuModuleLoadData(CUmodule *module, const void *image) {
	NEEDS_CONTEXT;
	std::string ptx((const char *)image);
	if (ptx.find(".version") == std::string::npos) return CUDA_ERROR_INVALID_IMAGE;
	auto made = std::make_unique<Module>();
	for (const Entry &e : entries(ptx)) {
		auto k = kernels().find(e.name);
		if (k == kernels().end()) {
			fprintf(stderr, "emulated CUDA: kernel %s is in the PTX, but not in the emulated driver: build both of the same source\n", e.name.c_str());
			return CUDA_ERROR_NO_BINARY_FOR_GPU;
		}
		if (k->second.params != e.params || k->second.threads != e.threads) {
			fprintf(stderr, "emulated CUDA: kernel %s has other parameters or launch bounds in the PTX: build both of the same source\n", e.name.c_str());
			return CUDA_ERROR_INVALID_PTX;
		}
		made->functions[e.name].signature = k->second;
	}
	*module = (CUmodule)made.release();
	return CUDA_SUCCESS;
}
CUresult cuModuleUnload(CUmodule module) {
	delete (Module *)module;
	return stuck();
}
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
	NEEDS_CONTEXT;
	auto &all = ((Module *)module)->functions;
	auto it = all.find(name);
	if (it == all.end()) return CUDA_ERROR_NOT_FOUND;
	*function = (CUfunction)&it->second;
	return CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
	NEEDS_CONTEXT;
	if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES || value < 0 || value > 163 << 10) return CUDA_ERROR_INVALID_VALUE;
	((Function *)function)->dynamicLimit = value;
	return CUDA_SUCCESS;
}
CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned sharedBytes, CUstream s, void **params, void **) {
	NEEDS_CONTEXT;
	auto *f = (Function *)function;
	uint64_t threads = (uint64_t)bx * by * bz;
	if (gx == 0 || gy == 0 || gz == 0 || threads == 0 || threads > f->signature.threads || gx > 0x7fffffff || gy > 65535 || gz > 65535 || sharedBytes > f->dynamicLimit)
		return CUDA_ERROR_INVALID_VALUE;
	if (failsNow("launch")) {
		enqueue(s, [=] { fail(CUDA_ERROR_LAUNCH_FAILED, format("kernel %s: a failure that SLUICE_EMU_FAIL asked for", f->signature.name)); });
		return CUDA_SUCCESS;
	}
	if (failsNow("lost")) {
		fail(CUDA_ERROR_UNKNOWN, "the device is lost, as SLUICE_EMU_FAIL asked for");
		return stuck();
	}
	std::vector<std::vector<char>> values;
	for (size_t i = 0; i < f->signature.params.size(); i++) values.emplace_back((char *)params[i], (char *)params[i] + f->signature.params[i]);
	uint64_t seed = options.seed;
	auto least = options.kernel;
	enqueue(s, [=]() mutable {
		if (stuck()) return;
		std::vector<void *> pointers;
		for (auto &v : values) pointers.push_back(v.data());
		auto began = Clock::now();
		runGrid({&f->signature, {gx, gy, gz}, {bx, by, bz}, sharedBytes, pointers.data()}, seed);
		std::this_thread::sleep_until(began + least);
	});
	return CUDA_SUCCESS;
}

} // extern "C"
