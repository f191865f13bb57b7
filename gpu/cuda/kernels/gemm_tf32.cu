// gemm_tf32.cu: the products of gemm.cu by tensor cores. Factors are rounded to TF32 (ten
// bits after the point, to nearest), products are exact, and sums float32. Blocks of 16 of
// what is summed over come to shared memory by cp.async, three of them under way while one
// is computed.
//
// Eight warps, two by four, compute a tile of 64*T x 64*T: 32*T x 16*T each, in pieces of
// 16 x 8 of mma.sync.m16n8k8. Shared memory has k along rows where memory has, and across
// where not; both paddings keep the 32 lanes that read a piece on banks of their own.
//
// Of an SM and a block of 16, T = 2: 16 KiB are read for 262144 multiply-adds.
#include "gemm.h"

namespace {

constexpr int stages = 4;
constexpr int downLd = depth + 4; // of rows with 16 of what is summed over

template <int T, bool down> struct Factor {
	static constexpr int ld = down ? downLd : 64 * T + 8;
	float at[(down ? 64 * T : depth) * ld];
	DEVICE_METHOD float get(int k, int i) const { return down ? at[i * ld + k] : at[k * ld + i]; }
};

template <int T, Pass pass> struct Stage {
	Factor<T, pass != weight> a;
	Factor<T, pass == forward> b;
};
template <int T, Pass pass> struct Stages {
	Stage<T, pass> of[stages];
};

template <int T, int V, Pass pass> DEVICE void multiply(Stages<T, pass> &shared, const Numbers &q) {
	Loader<T, V, pass> from(q);
	const int t = threadIdx.x, lane = t & 31, warp = t >> 5;

	auto load = [&](int k, unsigned stage) INLINE {
		if (k < from.kEnd) {
			Stage<T, pass> &s = shared.of[stage];
			auto into = [&](float *to, bool down, int ld, int i, int j, const float *p) INLINE {
				to += down ? (from.row + 64 * i) * ld + from.kq + j : (from.kRow + from.rows * i) * ld + from.col + j;
				COPY_ASYNC(V * 4, to, p != nullptr ? p : q.images, p != nullptr ? V * 4 : 0);
			};
			from.next(k, [&](int i, int j, const float *p) INLINE { into(s.a.at, from.aDown, s.a.ld, i, j, p); },
				[&](int i, int j, const float *p) INLINE { into(s.b.at, from.bDown, s.b.ld, i, j, p); });
		}
		COPY_COMMIT(); // also of nothing, so that the count of those under way is right
	};

	constexpr int pieces = 2 * T; // of a warp, down and across
	const int m = (warp >> 2) * 32 * T, n = (warp & 3) * 16 * T, g = lane >> 2, c = lane & 3;
	float sum[pieces][pieces][4];
	UNROLL for (int i = 0; i < pieces; i++) {
		UNROLL for (int j = 0; j < pieces; j++) {
			UNROLL for (int e = 0; e < 4; e++) sum[i][j][e] = 0;
		}
	}
	ROLLED for (int s = 0; s < stages - 1; s++) load(from.kBegin + s * depth, s);
	unsigned stage = 0;
	for (int k = from.kBegin; k < from.kEnd; k += depth) {
		COPY_WAIT(stages - 2); // for the oldest
		SYNC(); // and everybody's; and the stage that is loaded next was read by all
		load(k + (stages - 1) * depth, (stage + stages - 1) % stages);
		const Stage<T, pass> &s = shared.of[stage];
		UNROLL for (int d = 0; d < depth; d += 8) {
			unsigned a[pieces][4], b[pieces][2];
			UNROLL for (int i = 0; i < pieces; i++) {
				UNROLL for (int e = 0; e < 4; e++) a[i][e] = tf32(s.a.get(d + c + 4 * (e >> 1), m + 16 * i + g + 8 * (e & 1)));
				UNROLL for (int e = 0; e < 2; e++) b[i][e] = tf32(s.b.get(d + c + 4 * e, n + 8 * i + g));
			}
			UNROLL for (int i = 0; i < pieces; i++) {
				UNROLL for (int j = 0; j < pieces; j++) MMA_TF32(sum[i][j], a[i], b[j]);
			}
		}
		stage = (stage + 1) % stages;
	}
	COPY_WAIT(0);
	UNROLL for (int i = 0; i < pieces; i++) {
		UNROLL for (int j = 0; j < pieces; j++) {
			UNROLL for (int e = 0; e < 4; e++)
				from.keep(from.m0 + m + 16 * i + g + 8 * (e >> 1), from.n0 + n + 8 * j + 2 * c + (e & 1), sum[i][j][e]);
		}
	}
}

// As many blocks as have registers without spilling any (scripts/ptxas.sh).
constexpr int blocksOf(int T, int V, Pass pass) { return T == 1 ? 3 : V == 4 && pass != data ? 2 : 1; }

} // namespace

#define TF32(name, T, V, pass)                                   \
	KERNEL_BLOCKS(threads, blocksOf(T, V, pass), name, GEMM_PARAMS) { \
		typedef Stages<T, pass> Memory;                          \
		DYNAMIC_SHARED(Memory, shared);                          \
		const Numbers q = GEMM_NUMBERS;                          \
		multiply<T, V, pass>(shared, q);                         \
	}
GEMM_KERNELS(gemm_tf32_, TF32)
