// device.h: the words that the kernels are written in, for three compilers: clang
// without a CUDA toolkit, nvcc, and any C++ compiler for the emulated driver
// (SLUICE_EMULATOR). README.md beside the folder says what kernels may use.
#pragma once

#if defined(SLUICE_EMULATOR)

#include "../emu/kernel.h"

#else

#if !defined(__CUDACC_VER_MAJOR__) // clang
#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __shared__ __attribute__((shared))
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...) __attribute__((launch_bounds(__VA_ARGS__)))
#include <__clang_cuda_builtin_vars.h>

struct alignas(16) float4 {
	float x, y, z, w;
};

static __device__ __forceinline__ unsigned __shfl_xor_sync(unsigned mask, unsigned v, int lanes) {
	return __nvvm_shfl_sync_bfly_i32(mask, v, lanes, 0x1f);
}
static __device__ __forceinline__ unsigned __umulhi(unsigned a, unsigned b) { return ((unsigned long long)a * b) >> 32; }
static __device__ __forceinline__ unsigned long long __cvta_generic_to_shared(void *p) {
	return (unsigned long long)(__attribute__((address_space(3))) void *)p;
}
static __device__ __forceinline__ int atomicMin(int *p, int v) { return __nvvm_atom_min_gen_i(p, v); }
#endif

#define DEVICE static __device__ __forceinline__
#define DEVICE_METHOD __device__ __forceinline__
#define INLINE __attribute__((always_inline)) // of lambdas, whose captures would else be memory
// A kernel is launched with at most so many threads a block; KERNEL_BLOCKS also says how many
// blocks a multiprocessor must have registers for.
#define KERNEL(threads, name, params) extern "C" __global__ void __launch_bounds__(threads) name params
#define KERNEL_BLOCKS(threads, blocks, name, params) extern "C" __global__ void __launch_bounds__(threads, blocks) name params
// The one piece of shared memory of a kernel that is not asked for by its launch.
#define SHARED(type, name) __shared__ type name
#define SYNC() __syncthreads()
#define UNROLL _Pragma("unroll")
#define ROLLED _Pragma("unroll 1") // where more code would be worth nothing

DEVICE float fma32(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DEVICE double fma64(double a, double b, double c) { return __builtin_fma(a, b, c); }
DEVICE float sqrt32(float x) {
	float r;
	asm("sqrt.rn.f32 %0, %1;" : "=f"(r) : "f"(x));
	return r;
}
DEVICE double sqrt64(double x) {
	double r;
	asm("sqrt.rn.f64 %0, %1;" : "=d"(r) : "d"(x));
	return r;
}
DEVICE unsigned mulHigh(unsigned a, unsigned b) { return __umulhi(a, b); }
DEVICE long long bitsOf(double x) {
	long long b;
	__builtin_memcpy(&b, &x, sizeof b);
	return b;
}
DEVICE double doubleOf(long long b) {
	double x;
	__builtin_memcpy(&x, &b, sizeof x);
	return x;
}
template <class T> DEVICE T shuffleXor(T v, int lanes) {
	static_assert(sizeof(T) % 4 == 0, "words alone travel");
	unsigned words[sizeof(T) / 4];
	__builtin_memcpy(words, &v, sizeof v);
	UNROLL for (unsigned i = 0; i < sizeof(T) / 4; i++) words[i] = __shfl_xor_sync(~0u, words[i], lanes);
	__builtin_memcpy(&v, words, sizeof v);
	return v;
}
#define SHUFFLE_XOR(v, lanes) shuffleXor(v, lanes)

// What the launch asked for, for a type that is all of it.
#define DYNAMIC_SHARED(type, name)         \
	extern __shared__ float4 dynamicBytes[]; \
	type &name = *(type *)dynamicBytes

// COPY_ASYNC starts a copy of 4 or 16 bytes to shared memory, of which the first `wanted`
// are from memory and the others zero. COPY_COMMIT ends a group of them, COPY_WAIT waits
// until at most so many groups are under way.
#define COPY_ASYNC(bytes, to, from, wanted) copyAsync<bytes>(to, from, wanted)
template <int bytes> DEVICE void copyAsync(void *to, const void *from, int wanted) {
	unsigned at = (unsigned)__cvta_generic_to_shared(to);
	if (bytes == 16) asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(wanted) : "memory");
	else asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(at), "l"(from), "r"(wanted) : "memory");
}
#define COPY_COMMIT() asm volatile("cp.async.commit_group;" ::: "memory")
#define COPY_WAIT(groups) asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory")

DEVICE unsigned tf32(float x) {
	unsigned r;
	asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
	return r;
}
// MMA_TF32 is sum += a * b of 16x8 and 8x8 numbers, see mma.sync.m16n8k8 of the PTX manual
// for which lane has which.
#define MMA_TF32(sum, a, b) mmaTF32(sum, a, b)
DEVICE void mmaTF32(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
	asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
				 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
				 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif

// Arithmetic that every compiler does to the same bits: no function of a library,
// multiply-adds only where they are written.

// exp64 is e^x, for the x that matter: below -700 it is 0, above 700 infinite. The
// series after taking out the power of two; 1e-16 of its size right.
DEVICE double exp64(double x) {
	if (!(x > -700)) return x != x ? x : 0; // NaN stays
	if (x > 700) return doubleOf(0x7ff0000000000000);
	// Adding 1.5*2^52 rounds to an integer, which the low bits then hold.
	double shifted = fma64(x, 1.4426950408889634, 6755399441055744.0);
	long long k = (int)bitsOf(shifted);
	double n = shifted - 6755399441055744.0;
	double r = fma64(n, -0x1.62e42fefa3800p-1, x); // ln 2 in two parts, the first exact in products
	r = fma64(n, -0x1.ef35793c76730p-45, r);
	double p = 1.0 / 6227020800; // 1/13!
	p = fma64(p, r, 1.0 / 479001600);
	p = fma64(p, r, 1.0 / 39916800);
	p = fma64(p, r, 1.0 / 3628800);
	p = fma64(p, r, 1.0 / 362880);
	p = fma64(p, r, 1.0 / 40320);
	p = fma64(p, r, 1.0 / 5040);
	p = fma64(p, r, 1.0 / 720);
	p = fma64(p, r, 1.0 / 120);
	p = fma64(p, r, 1.0 / 24);
	p = fma64(p, r, 1.0 / 6);
	p = fma64(p, r, 0.5);
	p = fma64(p, r, 1);
	p = fma64(p, r, 1);
	return p * doubleOf((k + 1023) << 52);
}

// log64 is the natural logarithm of a positive normal number: ln((1+s)/(1-s)) is twice
// the series of the odd powers of s.
DEVICE double log64(double x) {
	if (!(x > 0)) return x == 0 ? -doubleOf(0x7ff0000000000000) : doubleOf(0x7ff8000000000000);
	if (x == doubleOf(0x7ff0000000000000)) return x;
	long long b = bitsOf(x);
	long long e = (b >> 52) - 1023;
	double m = doubleOf((b & 0xfffffffffffff) | 0x3ff0000000000000);
	if (m > 1.4142135623730951) {
		m *= 0.5;
		e++;
	}
	double s = (m - 1) / (m + 1), z = s * s;
	double p = 1.0 / 21;
	p = fma64(p, z, 1.0 / 19);
	p = fma64(p, z, 1.0 / 17);
	p = fma64(p, z, 1.0 / 15);
	p = fma64(p, z, 1.0 / 13);
	p = fma64(p, z, 1.0 / 11);
	p = fma64(p, z, 1.0 / 9);
	p = fma64(p, z, 1.0 / 7);
	p = fma64(p, z, 1.0 / 5);
	p = fma64(p, z, 1.0 / 3);
	p = fma64(p * z, s, s);
	return fma64((double)e, 0x1.62e42fefa39efp-1, 2 * p);
}

DEVICE float tanh32(float x) {
	double a = x < 0 ? -(double)x : x;
	if (!(a < 20)) return x != x ? x : x < 0 ? -1.f : 1.f;
	if (a < 1e-4) return x;
	double t = 1 - 2 / (exp64(2 * a) + 1);
	return (float)(x < 0 ? -t : t);
}

// power is s^-beta.
DEVICE float power(float s, float beta) {
	if (beta == 0.75f) {
		float r = sqrt32(s);
		return 1 / (r * sqrt32(r));
	}
	if (beta == 0.5f) return 1 / sqrt32(s);
	if (beta == 1) return 1 / s;
	return (float)exp64(-(double)beta * log64(s));
}

// tiny is the smallest normal number.
#define tiny 0x1p-126f

// Sums of a warp, the same at every lane.
template <class T> DEVICE T warpSum(T v) {
	for (int o = 16; o > 0; o >>= 1) v += SHUFFLE_XOR(v, o);
	return v;
}
DEVICE float warpMax(float v) {
	for (int o = 16; o > 0; o >>= 1) {
		float other = SHUFFLE_XOR(v, o);
		v = v != v || v > other ? v : other; // NaN wins
	}
	return v;
}

// Long is for loops over elements, whose last step may be beyond 2^31; no tensor has as many.
typedef long long Long;

// first is the number of this thread among all of the grid, step their count: a loop
// over elements takes them a grid at a time.
DEVICE Long first() { return (Long)blockIdx.x * blockDim.x + threadIdx.x; }
DEVICE Long step() { return (Long)gridDim.x * blockDim.x; }
