// kernel.h: what a kernel sees when it is compiled for the emulated driver: CUDA's
// words, on fibers. kernels/device.h includes it.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace emu {

struct Dim {
	unsigned x, y, z;
};

// Thread is the CUDA thread that runs now.
struct Thread {
	Dim thread, block, blockDim, gridDim;
	unsigned lane, warp;
};
extern thread_local Thread *current;

// barrier is __syncthreads.
void barrier(const char *file, int line);

// exchange is every collective of a warp: each lane of mask gives words, and sees
// those of all lanes of its warp (in the order of lanes) until its next exchange.
// words is at most 8.
const uint32_t *const *exchange(unsigned mask, const uint32_t *in, unsigned words, const char *file, int line);

// shared is the block's shared memory: static for the one SHARED of a kernel, or
// what the launch asked for.
void *shared(size_t bytes);
void *dynamicShared(size_t bytes);

// Copies that cp.async starts happen when they are waited for, as late as they may.
void copyLater(void *to, const void *from, unsigned bytes, unsigned of);
// copyAsync reads the ends of the source at once, so that a fault has the line.
inline void copyAsync(void *to, const void *from, unsigned bytes, unsigned of) {
	if (bytes > 0) {
		(void)*(const volatile char *)from;
		(void)((const volatile char *)from)[bytes - 1];
	}
	copyLater(to, from, bytes, of);
}
void copyCommit();
void copyWait(unsigned pending);

struct Signature {
	const char *name;
	unsigned threads; // of its launch bounds
	std::vector<size_t> params;
	void (*call)(void (*f)(), void **params);
	void (*f)();
};
void addKernel(const Signature &s);

template <class... A> struct Call {
	template <size_t... I> static void with(void (*f)(A...), void **p, std::index_sequence<I...>) { f(*(A *)p[I]...); }
	static void call(void (*f)(), void **p) { with((void (*)(A...))f, p, std::index_sequence_for<A...>{}); }
};

struct Registration {
	template <class... A> Registration(const char *name, unsigned threads, void (*f)(A...)) {
		addKernel({name, threads, {sizeof(A)...}, Call<A...>::call, (void (*)())f});
	}
};

template <class T> T shuffle(unsigned mask, T v, unsigned from, const char *file, int line) {
	static_assert(sizeof(T) % 4 == 0 && sizeof(T) <= 32);
	uint32_t in[sizeof(T) / 4];
	memcpy(in, &v, sizeof v);
	auto all = exchange(mask, in, sizeof(T) / 4, file, line);
	memcpy(&v, all[from & 31], sizeof v);
	return v;
}

} // namespace emu

#define DEVICE static inline __attribute__((always_inline))
#define DEVICE_METHOD inline __attribute__((always_inline))
#define INLINE __attribute__((always_inline))
#define KERNEL(threads, name, params)                                   \
	extern "C" void name params;                                        \
	static emu::Registration registration_##name(#name, threads, name); \
	extern "C" void name params
#define KERNEL_BLOCKS(threads, blocks, name, params) KERNEL(threads, name, params)
#define SHARED(type, name) type &name = *(type *)emu::shared(sizeof(type))
#define DYNAMIC_SHARED(type, name) type &name = *(type *)emu::dynamicShared(sizeof(type))

#define threadIdx (emu::current->thread)
#define blockIdx (emu::current->block)
#define blockDim (emu::current->blockDim)
#define gridDim (emu::current->gridDim)

#define SYNC() emu::barrier(__FILE__, __LINE__)
#define SHUFFLE_XOR(v, lanes) emu::shuffle(~0u, v, emu::current->lane ^ (lanes), __FILE__, __LINE__)
#define UNROLL
#define ROLLED

struct alignas(16) float4 {
	float x, y, z, w;
};

DEVICE float fma32(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DEVICE double fma64(double a, double b, double c) { return __builtin_fma(a, b, c); }
DEVICE float sqrt32(float x) { return __builtin_sqrtf(x); }
DEVICE double sqrt64(double x) { return __builtin_sqrt(x); }
DEVICE unsigned mulHigh(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
DEVICE long long bitsOf(double x) {
	long long b;
	memcpy(&b, &x, sizeof b);
	return b;
}
DEVICE double doubleOf(long long b) {
	double x;
	memcpy(&x, &b, sizeof x);
	return x;
}
DEVICE int atomicMin(int *p, int v) {
	int old = __atomic_load_n(p, __ATOMIC_RELAXED);
	while (v < old && !__atomic_compare_exchange_n(p, &old, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
	}
	return old;
}

#define COPY_ASYNC(bytes, to, from, wanted) emu::copyAsync(to, from, wanted, bytes)
#define COPY_COMMIT() emu::copyCommit()
#define COPY_WAIT(groups) emu::copyWait(groups)

// tf32 rounds to ten bits after the point, to nearest, as cvt.rna: halves away from 0.
DEVICE unsigned tf32(float x) {
	unsigned u;
	memcpy(&u, &x, sizeof u);
	return (u & 0x7f800000) == 0x7f800000 ? u : (u + 0x1000) & ~0x1fffu;
}
#define MMA_TF32(sum, a, b) emu::mmaTF32(sum, a, b, __FILE__, __LINE__)

namespace emu {

// mmaTF32 gives each lane the sums of rows g and g+8, columns 2c and 2c+1 (g = lane / 4,
// c = lane % 4): a is rows g and g+8 at columns c and c+4, b rows c and c+4 at column g.
inline void mmaTF32(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2], const char *file, int line) {
	uint32_t in[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
	auto all = exchange(~0u, in, 6, file, line);
	unsigned g = current->lane >> 2, c = current->lane & 3;
	for (unsigned e = 0; e < 4; e++) {
		unsigned high = e >> 1, column = 2 * c + (e & 1);
		for (unsigned k = 0; k < 8; k++) {
			float x, y;
			memcpy(&x, &all[4 * g + (k & 3)][high + 2 * (k >> 2)], 4);
			memcpy(&y, &all[4 * column + (k & 3)][4 + (k >> 2)], 4);
			sum[e] = __builtin_fmaf(x, y, sum[e]);
		}
	}
}

} // namespace emu
