// block.cpp: the threads of a block are fibers of one OS thread. A thread runs until
// it waits, for its warp or for the block; then the next one does. What waits for
// something that cannot come is a fault.
#include "block.h"

#include <algorithm>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <dlfcn.h>
#include <numeric>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

// Portable fibers take a system call a switch; those of x86-64 are eight moves.
#if defined(__x86_64__) && !defined(SLUICE_EMU_UCONTEXT)
#define FAST_FIBERS 1
#endif

namespace emu {

thread_local Thread *current;

namespace {

constexpr size_t stackBytes = 64 << 10, page = 4096;
constexpr size_t sharedBytes = 256 << 10; // beyond any card's
constexpr unsigned warpLanes = 32, maxWords = 8;

#if FAST_FIBERS
struct Context {
	void *sp;
};
extern "C" void sluiceEmuSwitch(void **save, void *load);
asm(R"(.text
.type sluiceEmuSwitch,@function
sluiceEmuSwitch:
	pushq %rbp
	pushq %rbx
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movq %rsp,(%rdi)
	movq %rsi,%rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbx
	popq %rbp
	ret
.size sluiceEmuSwitch,.-sluiceEmuSwitch
)");
void change(Context &from, Context &to) { sluiceEmuSwitch(&from.sp, to.sp); }
void prepare(Context &c, char *stack, void (*entry)()) {
	// As after a call: 16-byte aligned less the return address.
	void **sp = (void **)(stack + stackBytes - 64);
	*--sp = nullptr;
	*--sp = (void *)entry;
	for (int i = 0; i < 6; i++) *--sp = nullptr;
	c.sp = sp;
}
#else
struct Context {
	ucontext_t u;
};
void change(Context &from, Context &to) { swapcontext(&from.u, &to.u); }
void prepare(Context &c, char *stack, void (*entry)()) {
	getcontext(&c.u);
	c.u.uc_stack.ss_sp = stack;
	c.u.uc_stack.ss_size = stackBytes;
	c.u.uc_link = nullptr;
	makecontext(&c.u, entry, 0);
}
#endif

enum State { ready, atBarrier, atExchange, done, broken };

struct Copy {
	void *to;
	const void *from;
	unsigned bytes, of;
};

struct Fiber {
	Context context;
	char *stack;
	Thread thread;
	State state;
	const char *file; // where it waits
	int line;
	unsigned mask;
	// Twice, so that what a lane reads outlasts the others' next exchange.
	uint32_t words[2][maxWords];
	const uint32_t *seen[2][warpLanes];
	unsigned turn;
	std::deque<Copy> copies;
	std::vector<size_t> groups; // copies of each group that was committed
	size_t open;                // copies since then
};

char *mapped(size_t bytes) {
	void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED) {
		perror("emulated CUDA: mmap");
		abort();
	}
	return (char *)p;
}

} // namespace

struct Worker {
	std::vector<Fiber *> fibers;
	Context scheduler;
	Fiber *running = nullptr;
	const Launch *launch;
	bool shuffled;
	std::mt19937_64 random;
	char *shared; // its end is a page that faults
	size_t sharedUsed;
	char *signalStack;
	// Of the access that faulted.
	uintptr_t address;
	void *at;

	char *sharedAt(size_t bytes) { return shared + sharedBytes - (bytes + 15) / 16 * 16; }
};

namespace {

thread_local Worker *self;

// wait gives the turn to the scheduler.
void wait(State s) {
	Fiber *f = self->running;
	f->state = s;
	change(f->context, self->scheduler);
}

void entry() {
	const Launch &l = *self->launch;
	l.kernel->call(l.kernel->f, l.params);
	wait(done);
	abort(); // it is never resumed
}

// afterFault runs on the stack of a fiber whose access faulted.
void afterFault() {
	wait(broken);
	abort();
}

void onSignal(int signal, siginfo_t *info, void *context) {
	Worker *w = self;
	if (w == nullptr || w->running == nullptr) { // not a kernel's: die as without us
		struct sigaction usual = {};
		usual.sa_handler = SIG_DFL;
		sigaction(signal, &usual, nullptr);
		return;
	}
	auto *u = (ucontext_t *)context;
	w->address = (uintptr_t)info->si_addr;
#if defined(__x86_64__)
	auto &r = u->uc_mcontext.gregs;
	w->at = (void *)r[REG_RIP];
	r[REG_RIP] = (greg_t)afterFault;
	// On a stack of its own if the fault was its overflow, else below the red zone.
	r[REG_RSP] = ((greg_t)(w->running->stack + stackBytes - 1024) & ~(greg_t)15) - 8;
#elif defined(__aarch64__)
	w->at = (void *)u->uc_mcontext.pc;
	u->uc_mcontext.pc = (uintptr_t)afterFault;
	u->uc_mcontext.sp = (uintptr_t)(w->running->stack + stackBytes - 1024) & ~(uintptr_t)15;
#else
#error "say here how a signal handler changes where its thread goes on"
#endif
}

void catchFaults(Worker *w) {
	static const bool once = [] {
		struct sigaction a = {};
		a.sa_sigaction = onSignal;
		a.sa_flags = SA_SIGINFO | SA_ONSTACK;
		sigaction(SIGSEGV, &a, nullptr);
		sigaction(SIGBUS, &a, nullptr);
		return true;
	}();
	(void)once;
	stack_t s = {};
	s.ss_sp = w->signalStack;
	s.ss_size = stackBytes;
	sigaltstack(&s, nullptr);
}

std::string where(const Fiber &f, const Launch &l) {
	return format("kernel %s, block (%u,%u,%u), thread (%u,%u,%u)", l.kernel->name, f.thread.block.x, f.thread.block.y, f.thread.block.z,
		f.thread.thread.x, f.thread.thread.y, f.thread.thread.z);
}

// lineOf is the source line of an instruction, if addr2line is there to tell.
std::string lineOf(void *at) {
	Dl_info info;
	if (!dladdr(at, &info)) return "unknown line";
	size_t offset = (char *)at - (char *)info.dli_fbase;
	std::string text = format("%s+0x%zx", info.dli_fname, offset);
	FILE *p = popen(format("addr2line -s -i -e '%s' 0x%zx 2>/dev/null", info.dli_fname, offset).c_str(), "r");
	if (p == nullptr) return text;
	// The innermost function first, then those it was inlined in.
	char line[256];
	for (bool first = true; fgets(line, sizeof line, p) != nullptr && line[0] != '?'; first = false) {
		std::string one = line;
		one.erase(one.find_first_of(" \n"));
		text = first ? one : text + " < " + one;
	}
	pclose(p);
	return text;
}

void resume(Worker &w, Fiber &f) {
	w.running = &f;
	current = &f.thread;
	f.state = ready;
	change(w.scheduler, f.context);
	w.running = nullptr;
}

// begin makes the fibers of a block.
void begin(Worker &w, const Launch &l, Dim id) {
	unsigned n = l.block.x * l.block.y * l.block.z;
	while (w.fibers.size() < n) {
		auto *f = new Fiber;
		char *m = mapped(page + stackBytes);
		mprotect(m, page, PROT_NONE);
		f->stack = m + page;
		w.fibers.push_back(f);
	}
	for (unsigned i = 0; i < n; i++) {
		Fiber &f = *w.fibers[i];
		Dim t = {i % l.block.x, i / l.block.x % l.block.y, i / l.block.x / l.block.y};
		f.thread = {t, id, l.block, l.grid, i % warpLanes, i / warpLanes};
		f.state = ready;
		f.turn = 0;
		f.copies.clear();
		f.groups.clear();
		f.open = 0;
		prepare(f.context, f.stack, entry);
	}
	// What was there before is garbage.
	if (w.sharedUsed > 0) memset(w.sharedAt(w.sharedUsed), 0xff, w.sharedUsed);
	if (l.dynamicBytes > 0) memset(w.sharedAt(l.dynamicBytes), 0xff, l.dynamicBytes);
}

struct Rule {
	Worker &w;
	const Launch &l;
	Fault *fault;
	bool broke(const Fiber &f, const std::string &what, bool memory = false) {
		fault->memory = memory;
		fault->what = where(f, l) + ": " + what;
		return false;
	}
};

// runWarp runs the lanes of a warp until none of them can go on without other warps.
bool runWarp(Rule &r, Fiber **lanes, unsigned n) {
	for (;;) {
		unsigned turned = r.w.shuffled ? r.w.random() % n : 0;
		for (unsigned i = 0; i < n; i++) {
			Fiber &f = *lanes[(i + turned) % n];
			if (f.state != ready) continue;
			resume(r.w, f);
			if (f.state == broken)
				return r.broke(f, lineOf(r.w.at) + ": access to " + describeAddress(r.w.address), true);
		}
		unsigned arrived = 0;
		Fiber *one = nullptr;
		for (unsigned i = 0; i < n; i++) {
			if (lanes[i]->state != atExchange) continue;
			arrived |= 1u << i;
			if (one == nullptr) one = lanes[i];
		}
		if (one == nullptr) return true;
		unsigned wanted = n == warpLanes ? one->mask : one->mask & ((1u << n) - 1);
		if ((arrived & wanted) != wanted)
			return r.broke(*one, format("%s:%d: a warp's exchange with mask %08x, but lanes %08x alone are there", one->file, one->line, one->mask, arrived));
		for (unsigned i = 0; i < n; i++) {
			if (!(wanted >> i & 1)) continue;
			Fiber &f = *lanes[i];
			if (f.line != one->line || f.mask != one->mask)
				return r.broke(f, format("%s:%d: a warp's exchange, while other lanes are in the one of line %d", f.file, f.line, one->line));
			for (unsigned k = 0; k < warpLanes; k++) f.seen[f.turn][k] = lanes[std::min(k, n - 1)]->words[lanes[std::min(k, n - 1)]->turn];
			f.state = ready;
		}
	}
}

} // namespace

std::string format(const char *f, ...) {
	char text[1024];
	va_list args;
	va_start(args, f);
	vsnprintf(text, sizeof text, f, args);
	va_end(args);
	return text;
}

Worker *newWorker(bool shuffled, uint64_t seed) {
	auto *w = new Worker;
	w->shuffled = shuffled;
	w->random.seed(seed);
	w->sharedUsed = 0;
	w->shared = mapped(sharedBytes + page);
	memset(w->shared, 0xff, sharedBytes);
	mprotect(w->shared + sharedBytes, page, PROT_NONE);
	w->signalStack = mapped(stackBytes);
	return w;
}

void freeWorker(Worker *w) {
	for (Fiber *f : w->fibers) {
		munmap(f->stack - page, page + stackBytes);
		delete f;
	}
	munmap(w->shared, sharedBytes + page);
	munmap(w->signalStack, stackBytes);
	delete w;
}

bool runBlock(Worker *worker, const Launch &l, Dim id, Fault *fault) {
	Worker &w = *worker;
	if (self != worker) {
		self = worker;
		catchFaults(worker);
	}
	w.launch = &l;
	begin(w, l, id);
	Rule r{w, l, fault};
	unsigned n = l.block.x * l.block.y * l.block.z;
	std::vector<unsigned> order((n + warpLanes - 1) / warpLanes);
	std::iota(order.begin(), order.end(), 0);
	for (;;) {
		if (w.shuffled) std::shuffle(order.begin(), order.end(), w.random);
		for (unsigned warp : order)
			if (!runWarp(r, &w.fibers[warp * warpLanes], std::min(warpLanes, n - warp * warpLanes))) return false;
		unsigned waiting = 0;
		Fiber *one = nullptr, *other = nullptr;
		for (unsigned i = 0; i < n; i++) {
			Fiber *f = w.fibers[i];
			if (f->state != atBarrier) continue;
			waiting++;
			if (one == nullptr) one = f;
			if (f->line != one->line || f->file != one->file) other = f;
		}
		if (waiting == 0) return true;
		if (other != nullptr)
			return r.broke(*other, format("%s:%d: barrier divergence: other threads wait at the barrier of line %d", other->file, other->line, one->line));
		if (waiting != n)
			return r.broke(*one, format("%s:%d: barrier divergence: %u of %u threads wait, the others have ended", one->file, one->line, waiting, n));
		for (unsigned i = 0; i < n; i++) w.fibers[i]->state = ready;
	}
}

void barrier(const char *file, int line) {
	Fiber *f = self->running;
	f->file = file;
	f->line = line;
	wait(atBarrier);
}

const uint32_t *const *exchange(unsigned mask, const uint32_t *in, unsigned words, const char *file, int line) {
	Fiber *f = self->running;
	f->turn ^= 1;
	memcpy(f->words[f->turn], in, words * 4);
	f->mask = mask;
	f->file = file;
	f->line = line;
	wait(atExchange);
	return f->seen[f->turn];
}

void *shared(size_t bytes) {
	if (bytes > 48 << 10) {
		fprintf(stderr, "emulated CUDA: kernel %s has %zu bytes of static shared memory, 48 KiB are allowed\n", self->launch->kernel->name, bytes);
		abort();
	}
	if (bytes > self->sharedUsed) self->sharedUsed = bytes;
	return self->sharedAt(bytes);
}

void *dynamicShared(size_t bytes) {
	if (bytes > self->launch->dynamicBytes) {
		fprintf(stderr, "emulated CUDA: kernel %s uses %zu bytes of dynamic shared memory, its launch gave %zu\n", self->launch->kernel->name, bytes, self->launch->dynamicBytes);
		abort();
	}
	return self->sharedAt(self->launch->dynamicBytes);
}

void copyLater(void *to, const void *from, unsigned bytes, unsigned of) {
	Fiber *f = self->running;
	f->copies.push_back({to, from, bytes, of});
	f->open++;
}

void copyCommit() {
	Fiber *f = self->running;
	f->groups.push_back(f->open);
	f->open = 0;
}

void copyWait(unsigned pending) {
	Fiber *f = self->running;
	while (f->groups.size() > pending) {
		for (size_t i = 0; i < f->groups.front(); i++) {
			Copy c = f->copies.front();
			f->copies.pop_front();
			if (c.bytes > 0) memcpy(c.to, c.from, c.bytes);
			memset((char *)c.to + c.bytes, 0, c.of - c.bytes);
		}
		f->groups.erase(f->groups.begin());
	}
}

} // namespace emu
