// gemm.h: how the products of gemm.cu and gemm_tf32.cu find what they multiply. With P the
// pixels of the images that rows count, a group of channels at a time:
//
//	forward  y[p, o]      = sum over (r, s, c) of x[p at (r, s), c] * w[o, r, s, c]
//	data     dx[p, c]     = sum over (r, s, o) of dy[p from (r, s), o] * w[o, r, s, c]
//	weight   dw[o, (r,s,c)] = sum over p of dy[p, o] * x[p at (r, s), c]
//
// A block of 256 threads computes a tile of 64*T x 64*T from 16 (depth) of what is summed
// over at a time. A dense layer is a convolution of images of one pixel.
#pragma once
#include "device.h"

namespace {

enum Pass { forward, data, weight };

constexpr int depth = 16, threads = 256;

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
	int y, x;       // of tap (0, 0)
	unsigned image; // its first number
};

DEVICE Pixel pixelOf(const Images &g, int p, bool inside, Pass pass) {
	int image = p / (g.PH * g.PW), rest = p - image * (g.PH * g.PW), py = rest / g.PW, px = rest - py * g.PW;
	Pixel q;
	q.image = (unsigned)image * g.H * g.W * g.ld;
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
	DEVICE_METHOD void next(const Images &g) {
		if (++c < g.C) return;
		c = 0;
		if (++s < g.S) return;
		s = 0;
		r++;
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

// place is where a tap of a pixel is, or null outside. Numbers of a tensor are counted in
// 32 bits, of which the engine gives none more: wider ones take registers, and time.
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
	return g.at + (p.image + (y * g.W + x) * g.ld + c);
}

// Numbers are what a launch says, see GEMM_PARAMS. Rows are M, columns N, sums over K,
// each of a group; part z / groups of the sums is those from kPart*part on. The plain
// factor is the weights (of all groups; forward and data) or dy (weight), whose pixels
// are plainLd floats. out[group*outGroup + m*outLd + n], parts outPart apart.
struct Numbers {
	const float *images, *plain, *bias;
	float *out;
	int M, N, K, kPart, groups, H, W, ld, C, S, PH, PW, stride, padding, plainLd, outLd, outGroup, outPart, relu;
};

// Loader says where this thread finds the numbers that it loads of each factor, four at a
// time: those that lie one after another in memory, V at once. Of a factor whose rows (m or
// n) have what is summed over one after another, it loads rows row + 64*i at k kq; of the
// others rows k kRow + rows*i at columns col.
template <int T, int V, Pass pass> struct Loader {
	static constexpr int rows = 16 / T;
	static constexpr bool aDown = pass != weight, bDown = pass == forward; // k lies along memory
	const Numbers &q;
	Images g;
	int m0, n0, kBegin, kEnd, row, kq, kRow, col, taps;
	unsigned to;       // where the outputs of this part and group begin
	const float *bias; // of the group, or null
	Pixel pixel[T];
	Tap tap;
	int otherTap[T], otherC[T]; // of the weights' rows, in the data pass
	const float *plain; // row n0 + row from kq on, or column n0 + col (of weights), m0 + col (of dy)

	DEVICE_METHOD Loader(const Numbers &q) : q(q) {
		const int t = threadIdx.x;
		m0 = blockIdx.x * 64 * T;
		n0 = blockIdx.y * 64 * T;
		const int part = blockIdx.z / q.groups, group = blockIdx.z - part * q.groups;
		to = (unsigned)group * q.outGroup + part * q.outPart;
		bias = q.bias != nullptr ? q.bias + group * q.N : nullptr;
		kBegin = part * q.kPart;
		kEnd = kBegin + q.kPart < q.K ? kBegin + q.kPart : q.K;
		g = {q.images + group * q.C, q.H, q.W, q.ld, q.C, q.S, q.PH, q.PW, q.stride, q.padding};
		row = t >> 2;
		kq = (t & 3) * 4;
		kRow = t / (16 * T);
		col = (t % (16 * T)) * 4;
		taps = q.K / q.C; // of forward and data
		if constexpr (pass == weight) {
			tap.set(g, n0 + col < q.N ? n0 + col : 0);
			plain = q.plain + (group * q.M + m0 + col);
		} else {
			UNROLL for (int i = 0; i < T; i++) {
				int m = m0 + row + 64 * i;
				pixel[i] = pixelOf(g, m < q.M ? m : 0, m < q.M, pass);
			}
			tap.set(g, kBegin + kq);
			plain = q.plain + ((unsigned)group * q.N * q.K + (pass == forward ? (unsigned)(n0 + row) * q.K + kq : n0 + col));
			// For data, what is summed over is (r*S + s)*C + o, and the weights have o first.
			if (pass == data) {
				UNROLL for (int i = 0; i < T; i++) {
					int k = kBegin + kRow + rows * i;
					otherTap[i] = k / q.C;
					otherC[i] = k - otherTap[i] * q.C;
				}
			}
		}
	}

	// along gives f the places of four numbers, of which count are wanted.
	template <class F> DEVICE_METHOD void along(const F &f, const float *p, int count) const {
		UNROLL for (int j = 0; j < 4; j += V) f(j, j < count ? p + j : nullptr);
	}
	// gather gives f the places of the four taps from t on of pixel p.
	template <class F> DEVICE_METHOD void gather(const F &f, const Pixel &p, Tap t, int count) const {
		UNROLL for (int j = 0; j < 4; j += V) {
			f(j, j < count ? place(g, p, t.r, t.s, t.c, pass) : nullptr);
			if (V == 1) t.next(g);
		}
	}

	// next finds the numbers of the 16 of what is summed over from k on: a(i, j, p) and
	// b(i, j, p) are told of V numbers at p, the j-th on of the i-th four; null are zeros.
	// Blocks are asked for in order.
	template <class A, class B> DEVICE_METHOD void next(int k, const A &a, const B &b) {
		UNROLL for (int i = 0; i < T; i++) {
			auto toA = [&](int j, const float *p) INLINE { a(i, j, p); };
			auto toB = [&](int j, const float *p) INLINE { b(i, j, p); };
			if constexpr (pass == weight) {
				int p = k + kRow + rows * i;
				bool inside = p < kEnd;
				along(toA, plain + (unsigned)p * q.plainLd, inside ? q.M - m0 - col : 0);
				gather(toB, pixelOf(g, inside ? p : 0, inside, pass), tap, inside ? q.N - n0 - col : 0);
			} else {
				gather(toA, pixel[i], tap, kEnd - k - kq);
				if constexpr (pass == forward) {
					int n = n0 + row + 64 * i;
					along(toB, plain + (64u * i * q.K + k), n < q.N ? kEnd - k - kq : 0);
				} else {
					along(toB, plain + ((unsigned)otherC[i] * taps + otherTap[i]) * q.N, k + kRow + rows * i < kEnd ? q.N - n0 - col : 0);
					for (otherC[i] += depth; otherC[i] >= q.C; otherTap[i]++) otherC[i] -= q.C;
				}
			}
		}
		if (pass != weight) tap.move(g, depth);
	}

	// keep stores a sum.
	DEVICE_METHOD void keep(int m, int n, float v) const {
		if (m >= q.M || n >= q.N) return;
		if (pass == forward && bias != nullptr) v += bias[n];
		if (q.relu && v < 0) v = 0;
		q.out[to + (unsigned)m * q.outLd + n] = v;
	}
};

} // namespace

// The parameters of every product, and Numbers made of them.
#define GEMM_PARAMS                                                                                                          \
	(const float *images, const float *plain, float *out, const float *bias, int M, int N, int K, int kPart, int groups, int H, \
		int W, int ld, int C, int S, int PH, int PW, int stride, int padding, int plainLd, int outLd, int outGroup, int outPart, \
		int relu)
#define GEMM_NUMBERS \
	{images, plain, bias, out, M, N, K, kPart, groups, H, W, ld, C, S, PH, PW, stride, padding, plainLd, outLd, outGroup, outPart, relu}

// The twelve kernels of a kind: three passes, tiles of 64 and 128, numbers one or four at
// a time.
#define GEMM_KERNELS(prefix, kernel)                \
	kernel(prefix##forward_64_1, 1, 1, forward)     \
	kernel(prefix##forward_64_4, 1, 4, forward)     \
	kernel(prefix##forward_128_1, 2, 1, forward)    \
	kernel(prefix##forward_128_4, 2, 4, forward)    \
	kernel(prefix##data_64_1, 1, 1, data)           \
	kernel(prefix##data_64_4, 1, 4, data)           \
	kernel(prefix##data_128_1, 2, 1, data)          \
	kernel(prefix##data_128_4, 2, 4, data)          \
	kernel(prefix##weight_64_1, 1, 1, weight)       \
	kernel(prefix##weight_64_4, 1, 4, weight)       \
	kernel(prefix##weight_128_1, 2, 1, weight)      \
	kernel(prefix##weight_128_4, 2, 4, weight)
