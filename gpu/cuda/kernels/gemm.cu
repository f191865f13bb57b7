// gemm.cu: convolutions and dense layers, forward and both gradients, as one
// product of matrices whose left or right factor is gathered from images while it is
// loaded (implicit GEMM), in float32 with one multiply-add after another.
//
// With P the pixels of the images that rows count, a group of channels at a time:
//
//	forward  y[p, o]      = sum over (r, s, c) of x[p at (r, s), c] * w[o, r, s, c]
//	data     dx[p, c]     = sum over (r, s, o) of dy[p from (r, s), o] * w[o, r, s, c]
//	weight   dw[o, (r,s,c)] = sum over p of dy[p, o] * x[p at (r, s), c]
//
// 256 threads compute a tile of 64*T x 64*T, 4*T x 4*T each, from blocks of 16 of what
// is summed over, which are loaded to registers while the block before is computed from
// shared memory. A dense layer is a convolution of images of one pixel. A sum may be
// cut into parts, whose sums reduce.cu adds in order. The order of a sum depends on the
// parts alone, so that tiles of both sizes give the same bits.
//
// Bytes and operations of a block of 16, of an SM: 2*64*T*16 floats are read for
// (64*T)^2*16 multiply-adds: 32 a float for T = 2.
#include "device.h"

namespace {

enum Pass { forward, data, weight };

constexpr int depth = 16, threads = 256, pad = 4; // pad keeps rows of shared memory aligned, and banks apart

// Images is what is gathered from.
struct Images {
	const float *at; // of the group's first channel
	int H, W, ld;    // a pixel is ld floats after the one before
	int C;           // channels of the group
	int S;           // columns of taps
	int PH, PW;      // pixels of the rows' images
	int stride, pad;
};

// Pixel is a row: where it is, and the corner of its window.
struct Pixel {
	int y, x; // of tap (0, 0)
	const float *image;
};

DEVICE Pixel pixelOf(const Images &g, int p, bool inside, Pass pass) {
	int image = p / (g.PH * g.PW), rest = p - image * (g.PH * g.PW), py = rest / g.PW, px = rest - py * g.PW;
	Pixel q;
	q.image = g.at + (Long)image * g.H * g.W * g.ld;
	q.y = pass == data ? py + g.pad : py * g.stride - g.pad;
	q.x = pass == data ? px + g.pad : px * g.stride - g.pad;
	if (!inside) q.y = -(1 << 30); // no tap of it is inside
	return q;
}

// Tap is a place of what is summed over, k = (r*S + s)*C + c.
struct Tap {
	int r, s, c;
	DEVICE_METHOD void set(const Images &g, int k) {
		int rs = k / g.C;
		c = k - rs * g.C;
		r = rs / g.S;
		s = rs - r * g.S;
	}
	DEVICE_METHOD void move(const Images &g, int by) {
		c += by;
		while (c >= g.C) {
			c -= g.C;
			if (++s == g.S) {
				s = 0;
				r++;
			}
		}
	}
};

// place is where a tap of a pixel is, or null outside.
DEVICE const float *place(const Images &g, const Pixel &p, int r, int s, int c, Pass pass) {
	int y = p.y + r, x = p.x + s;
	if (pass == data) {
		y = p.y - r;
		x = p.x - s;
		if (g.stride > 1) {
			if (y < 0 || x < 0 || y % g.stride != 0 || x % g.stride != 0) return nullptr;
			y /= g.stride;
			x /= g.stride;
		}
	}
	if ((unsigned)y >= (unsigned)g.H || (unsigned)x >= (unsigned)g.W) return nullptr;
	return p.image + ((Long)y * g.W + x) * g.ld + c;
}

DEVICE float4 zero4() {
	float4 v = {0, 0, 0, 0};
	return v;
}

// along loads four numbers that lie one after another, of which the first `count` are
// wanted. With V = 4 they are all wanted or none is, and aligned.
template <int V> DEVICE float4 along(const float *p, int count) {
	if (count <= 0) return zero4();
	if (V == 4) return *(const float4 *)p;
	float4 v = zero4();
	v.x = p[0];
	if (count > 1) v.y = p[1];
	if (count > 2) v.z = p[2];
	if (count > 3) v.w = p[3];
	return v;
}

// gather loads the four taps from t on of pixel p, of which count are wanted.
template <int V> DEVICE float4 gather(const Images &g, const Pixel &p, Tap t, int count, Pass pass) {
	if (V == 4) {
		const float *at = count > 0 ? place(g, p, t.r, t.s, t.c, pass) : nullptr;
		return at != nullptr ? *(const float4 *)at : zero4();
	}
	float v[4] = {0, 0, 0, 0};
	UNROLL for (int i = 0; i < 4; i++) {
		if (i < count) {
			const float *at = place(g, p, t.r, t.s, t.c, pass);
			if (at != nullptr) v[i] = *at;
		}
		t.move(g, 1);
	}
	float4 r = {v[0], v[1], v[2], v[3]};
	return r;
}

template <int T> struct Tiles {
	float a[2][depth][64 * T + pad], b[2][depth][64 * T + pad];
};

// Both matrices are kept with what is summed over for rows. `down` stores four
// numbers of one column, one below the other; `across` four of one row.
template <int T> DEVICE void down(float (*to)[64 * T + pad], int k, int at, float4 v) {
	to[k][at] = v.x;
	to[k + 1][at] = v.y;
	to[k + 2][at] = v.z;
	to[k + 3][at] = v.w;
}
template <int T> DEVICE void across(float (*to)[64 * T + pad], int k, int at, float4 v) { *(float4 *)&to[k][at] = v; }

// See the head of the file. Rows are M, columns N, sums over K, each of a group; part
// z / groups of the sums is those from kPart*part on. The plain factor is the weights
// (of all groups; forward and data) or dy (weight), whose pixels are plainLd floats.
// out[group*outGroup + m*outLd + n], parts outPart apart.
template <int T, int V, Pass pass>
DEVICE void multiply(Tiles<T> &tile, const float *images, const float *plain, float *out, const float *bias,
	int M, int N, int K, int kPart, int groups, int H, int W, int ld, int C, int S, int PH, int PW, int stride, int padding,
	int plainLd, int outLd, int outGroup, Long outPart, int relu) {
	const int t = threadIdx.x, m0 = blockIdx.x * 64 * T, n0 = blockIdx.y * 64 * T;
	const int part = blockIdx.z / groups, group = blockIdx.z - part * groups;
	const int kBegin = part * kPart, kEnd = kBegin + kPart < K ? kBegin + kPart : K;
	const Images g = {images + group * C, H, W, ld, C, S, PH, PW, stride, padding};

	// What this thread loads. Of a matrix whose rows (m or n) have what is summed over
	// one after another: rows t/4 + 64*i at k 4*(t%4). Of the others: rows k t/(16*T) +
	// (16/T)*i at columns 4*(t%(16*T)).
	const int row = t >> 2, kq = (t & 3) * 4;
	const int kRow = t / (16 * T), col = (t % (16 * T)) * 4;
	constexpr int rows = 16 / T;

	Pixel pixel[T];
	Tap tap;
	const float *weights = plain;
	if (pass == weight) {
		tap.set(g, n0 + col < N ? n0 + col : 0);
	} else {
		UNROLL for (int i = 0; i < T; i++) {
			int m = m0 + row + 64 * i;
			pixel[i] = pixelOf(g, m < M ? m : 0, m < M, pass);
		}
		tap.set(g, kBegin + kq);
		weights += (Long)group * N * K;
	}
	// For data, what is summed over is (r*S + s)*C + o, and the weights have o first.
	Tap other[T];
	if (pass == data) {
		UNROLL for (int i = 0; i < T; i++) other[i].set(g, kBegin + kRow + rows * i);
	}
	const int taps = K / C; // of forward and data

	float4 nextA[T], nextB[T];
	auto load = [&](int k) {
		if (pass == weight) {
			UNROLL for (int i = 0; i < T; i++) {
				int p = k + kRow + rows * i;
				bool inside = p < kEnd;
				nextA[i] = along<V>(plain + (Long)p * plainLd + group * M + m0 + col, inside ? M - m0 - col : 0);
				Pixel q = pixelOf(g, inside ? p : 0, inside, pass);
				nextB[i] = gather<V>(g, q, tap, inside ? N - n0 - col : 0, pass);
			}
			return;
		}
		UNROLL for (int i = 0; i < T; i++) {
			nextA[i] = gather<V>(g, pixel[i], tap, kEnd - k - kq, pass);
			if (pass == forward) {
				int n = n0 + row + 64 * i;
				nextB[i] = along<V>(weights + (Long)n * K + k + kq, n < N ? kEnd - k - kq : 0);
			} else {
				const Tap &o = other[i];
				nextB[i] = along<V>(weights + ((Long)o.c * taps + o.r * S + o.s) * N + n0 + col, k + kRow + rows * i < kEnd ? N - n0 - col : 0);
				other[i].move(g, depth);
			}
		}
		tap.move(g, depth);
	};
	auto store = [&](int buffer) {
		UNROLL for (int i = 0; i < T; i++) {
			if (pass == weight) across<T>(tile.a[buffer], kRow + rows * i, col, nextA[i]);
			else down<T>(tile.a[buffer], kq, row + 64 * i, nextA[i]);
			if (pass == forward) down<T>(tile.b[buffer], kq, row + 64 * i, nextB[i]);
			else across<T>(tile.b[buffer], kRow + rows * i, col, nextB[i]);
		}
	};

	const int tx = (t & 15) * 4, ty = (t >> 4) * 4;
	float sum[4 * T][4 * T];
	UNROLL for (int i = 0; i < 4 * T; i++) {
		UNROLL for (int j = 0; j < 4 * T; j++) sum[i][j] = 0;
	}
	load(kBegin);
	store(0);
	SYNC();
	int buffer = 0;
	for (int k = kBegin; k < kEnd; k += depth) {
		if (k + depth < kEnd) load(k + depth);
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
		if (k + depth < kEnd) store(buffer);
		SYNC();
	}

	out += (Long)group * outGroup + part * outPart;
	UNROLL for (int i = 0; i < 4 * T; i++) {
		int m = m0 + ty + (i >> 2) * 64 + (i & 3);
		UNROLL for (int j = 0; j < 4 * T; j++) {
			int n = n0 + tx + (j >> 2) * 64 + (j & 3);
			if (m < M && n < N) {
				float v = sum[i][j];
				if (pass == forward && bias != nullptr) v += bias[group * N + n];
				if (relu && v < 0) v = 0;
				out[(Long)m * outLd + n] = v;
			}
		}
	}
}

} // namespace

#define GEMM(name, T, V, pass)                                                                                             \
	KERNEL(threads, name, (const float *images, const float *plain, float *out, const float *bias, int M, int N, int K, int kPart, \
		int groups, int H, int W, int ld, int C, int S, int PH, int PW, int stride, int padding, int plainLd, int outLd,    \
		int outGroup, Long outPart, int relu)) {                                                                            \
		SHARED(Tiles<T>, tile);                                                                                             \
		multiply<T, V, pass>(tile, images, plain, out, bias, M, N, K, kPart, groups, H, W, ld, C, S, PH, PW, stride, padding, \
			plainLd, outLd, outGroup, outPart, relu);                                                                       \
	}
GEMM(gemm_forward_64_1, 1, 1, forward)
GEMM(gemm_forward_64_4, 1, 4, forward)
GEMM(gemm_forward_128_1, 2, 1, forward)
GEMM(gemm_forward_128_4, 2, 4, forward)
GEMM(gemm_data_64_1, 1, 1, data)
GEMM(gemm_data_64_4, 1, 4, data)
GEMM(gemm_data_128_1, 2, 1, data)
GEMM(gemm_data_128_4, 2, 4, data)
GEMM(gemm_weight_64_1, 1, 1, weight)
GEMM(gemm_weight_64_4, 1, 4, weight)
GEMM(gemm_weight_128_1, 2, 1, weight)
GEMM(gemm_weight_128_4, 2, 4, weight)

// gemm_reduce adds the parts of a product, first to last: out[group*outGroup + m*outLd + n].
KERNEL(256, gemm_reduce, (const float *parts, float *out, const float *bias, int count, int M, int N, int groups, int outLd, int outGroup, int relu)) {
	Long size = (Long)groups * M * N;
	for (Long i = first(); i < size; i += step()) {
		float v = parts[i];
		for (int p = 1; p < count; p++) v += parts[p * size + i];
		int n = i % N, m = i / N % M, group = i / N / M;
		if (bias != nullptr) v += bias[group * N + n];
		if (relu && v < 0) v = 0;
		out[(Long)group * outGroup + (Long)m * outLd + n] = v;
	}
}
