// gemm.cu: convolutions and dense layers, forward and both gradients, as one product of
// matrices of which one is gathered from images while it is loaded (implicit GEMM, see
// gemm.h), in float32 with one multiply-add after another.
//
// A thread computes 4*T x 4*T of a tile from blocks of 16 of what is summed over, which
// are loaded to registers while the block before is computed from shared memory. A sum may
// be cut into parts, which gemm_reduce adds in order. The order of a sum depends on the
// parts alone, so that tiles of both sizes give the same bits.
//
// Bytes and operations of a block of 16, of an SM: 2*64*T*16 floats are read for
// (64*T)^2*16 multiply-adds: 32 a float for T = 1, 64 for T = 2.
#include "gemm.h"

namespace {

constexpr int pad = 4; // keeps rows of shared memory aligned, and banks apart

// Both factors are kept with what is summed over for rows.
template <int T> struct alignas(16) Tiles {
	float a[2][depth][64 * T + pad], b[2][depth][64 * T + pad];
};

template <int T, int V, Pass pass> DEVICE void multiply(Tiles<T> &tile, const Numbers &q) {
	Loader<T, V, pass> from(q);
	const int t = threadIdx.x;

	float next[2][T][4];
	auto load = [&](int k) INLINE {
		auto into = [](float (&to)[4], int j, const float *p) INLINE {
			if (V == 4) {
				float4 v = {0, 0, 0, 0};
				if (p != nullptr) v = *(const float4 *)p;
				to[0] = v.x;
				to[1] = v.y;
				to[2] = v.z;
				to[3] = v.w;
			} else {
				to[j] = p != nullptr ? *p : 0;
			}
		};
		from.next(k, [&](int i, int j, const float *p) INLINE { into(next[0][i], j, p); }, [&](int i, int j, const float *p) INLINE { into(next[1][i], j, p); });
	};
	// Four numbers go below each other, or side by side.
	auto put = [&](float (*to)[64 * T + pad], bool down, const float (&v)[4], int i) INLINE {
		if (down) {
			UNROLL for (int j = 0; j < 4; j++) to[from.kq + j][from.row + 64 * i] = v[j];
		} else {
			float4 four = {v[0], v[1], v[2], v[3]};
			*(float4 *)&to[from.kRow + from.rows * i][from.col] = four;
		}
	};
	auto store = [&](int buffer) INLINE {
		UNROLL for (int i = 0; i < T; i++) {
			put(tile.a[buffer], from.aDown, next[0][i], i);
			put(tile.b[buffer], from.bDown, next[1][i], i);
		}
	};

	const int tx = (t & 15) * 4, ty = (t >> 4) * 4;
	float sum[4 * T][4 * T];
	UNROLL for (int i = 0; i < 4 * T; i++) {
		UNROLL for (int j = 0; j < 4 * T; j++) sum[i][j] = 0;
	}
	load(from.kBegin);
	store(0);
	SYNC();
	int buffer = 0;
	for (int k = from.kBegin; k < from.kEnd; k += depth) {
		if (k + depth < from.kEnd) load(k + depth);
		UNROLL for (int d = 0; d < depth; d++) {
			float a[4 * T], b[4 * T];
			UNROLL for (int i = 0; i < T; i++) {
				*(float4 *)&a[4 * i] = *(const float4 *)&tile.a[buffer][d][ty + 64 * i];
				*(float4 *)&b[4 * i] = *(const float4 *)&tile.b[buffer][d][tx + 64 * i];
			}
			UNROLL for (int i = 0; i < 4 * T; i++) {
				UNROLL for (int j = 0; j < 4 * T; j++) sum[i][j] = fma32(a[i], b[j], sum[i][j]);
			}
		}
		buffer ^= 1;
		if (k + depth < from.kEnd) store(buffer);
		SYNC();
	}
	UNROLL for (int i = 0; i < 4 * T; i++) {
		UNROLL for (int j = 0; j < 4 * T; j++)
			from.keep(from.m0 + ty + (i >> 2) * 64 + (i & 3), from.n0 + tx + (j >> 2) * 64 + (j & 3), sum[i][j]);
	}
}

} // namespace

#define FLOAT32(name, T, V, pass)                     \
	KERNEL(threads, name, GEMM_PARAMS) {              \
		SHARED(Tiles<T>, tile);                       \
		const Numbers q = GEMM_NUMBERS;               \
		multiply<T, V, pass>(tile, q);                \
	}
GEMM_KERNELS(gemm_, FLOAT32)

// gemm_reduce adds the parts of a product, first to last: out[group*outGroup + m*outLd + n].
KERNEL(256, gemm_reduce, (const float *parts, float *out, const float *bias, int count, int M, int N, int groups, int outLd, int outGroup, int relu)) {
	Long size = (Long)groups * M * N;
	for (Long i = first(); i < size; i += step()) {
		float v = parts[i];
		for (int p = 1; p < count; p++) v += parts[p * size + i];
		unsigned row = (unsigned)i / N, n = (unsigned)i - row * N, group = row / M, m = row - group * M;
		if (bias != nullptr) v += bias[group * N + n];
		if (relu && v < 0) v = 0;
		out[(Long)group * outGroup + (Long)m * outLd + n] = v;
	}
}
