// points.cu: what does little with each number: bound by memory, read and written once
// unless said otherwise. Activations are those of net.Activation: 1 ReLU, 2 tanh.
#include "device.h"

DEVICE float slope(float y, int activation) {
	if (activation == 1) return y <= 0 ? 0.f : 1.f;
	if (activation == 2) return (1 - y) * (1 + y); // 1 - y*y would cancel near 1
	return 1;
}

KERNEL(256, activate, (float *y, const float *x, int count, int activation)) {
	for (Long i = first(); i < count; i += step()) {
		float v = x[i];
		if (activation == 1 && v < 0) v = 0;
		if (activation == 2) v = tanh32(v);
		y[i] = v;
	}
}

KERNEL(256, activate_grad, (float *dx, const float *dy, const float *y, int count, int activation)) {
	for (Long i = first(); i < count; i += step()) {
		float d = dy[i];
		if (activation == 1) d = y[i] <= 0 ? 0 : d; // an infinite gradient of a dead unit is 0, too
		else d *= slope(y[i], activation);
		dx[i] = d;
	}
}

KERNEL(256, add, (float *y, const float *a, const float *b, int count)) {
	for (Long i = first(); i < count; i += step()) y[i] = a[i] + b[i];
}

// scale is y = x * by, within +-limit unless that is 0. NaN stays.
KERNEL(256, scale, (float *y, const float *x, int count, float by, float limit)) {
	for (Long i = first(); i < count; i += step()) {
		float v = x[i] * by;
		if (limit > 0) v = v > limit ? limit : v < -limit ? -limit : v;
		y[i] = v;
	}
}

// sgd is net.SGD.Factors; the products are rounded before they are added, and momentum
// too small for a normal number is 0, as on the CPU. 12 bytes are read, 8 written.
KERNEL(256, sgd, (float *w, float *v, const float *dw, int count, float momentum, float decay, float rate, float ahead, float back)) {
	for (Long i = first(); i < count; i += step()) {
		float x = w[i], old = v[i];
		float m = momentum * old - decay * x - rate * dw[i];
		if (m < tiny && m > -tiny) m = 0;
		v[i] = m;
		w[i] = x + (ahead * m - back * old);
	}
}

KERNEL(256, copy_channels, (unsigned *y, const unsigned *x, int pixels, int C, int yC, int to, int xC, int from)) {
	Long count = (Long)pixels * C;
	for (Long i = first(); i < count; i += step()) {
		unsigned p = (unsigned)i / C, c = (unsigned)i - p * C;
		y[p * yC + to + c] = x[p * xC + from + c];
	}
}

// four_channels gives pixels of three channels a fourth one of zeros.
KERNEL(256, four_channels, (float4 *y, const float *x, int pixels)) {
	for (Long i = first(); i < pixels; i += step()) {
		float4 v = {x[3 * i], x[3 * i + 1], x[3 * i + 2], 0};
		y[i] = v;
	}
}

// turn is y[n][b][a] = x[n][a][b]: from and to the order of channels at the border. A
// block takes squares of 32 x 32.
KERNEL(256, turn, (float *y, const float *x, int N, int A, int B)) {
	struct Square {
		float at[32][33];
	};
	SHARED(Square, s);
	const int tx = threadIdx.x & 31, ty = threadIdx.x >> 5;
	const int across = (B + 31) / 32, down = (A + 31) / 32;
	const Long squares = (Long)N * across * down;
	for (Long q = blockIdx.x; q < squares; q += gridDim.x) {
		Long n = q / (across * down);
		int rest = (int)(q - n * (across * down)), a0 = rest / across * 32, b0 = rest % across * 32;
		const float *from = x + n * A * B;
		float *to = y + n * A * B;
		for (int i = ty; i < 32; i += 8)
			if (a0 + i < A && b0 + tx < B) s.at[i][tx] = from[(Long)(a0 + i) * B + b0 + tx];
		SYNC();
		for (int i = ty; i < 32; i += 8)
			if (b0 + i < B && a0 + tx < A) to[(Long)(b0 + i) * A + a0 + tx] = s.at[tx][i];
		SYNC();
	}
}

namespace {

// What a block of 32 channels x 8 rows has of each channel.
struct Columns {
	float at[8][32];
};

struct Philox {
	unsigned at[4];
};

} // namespace

// philox is net.Philox.
DEVICE Philox philox(unsigned c0, unsigned c1, unsigned c2, unsigned c3, unsigned k0, unsigned k1) {
	UNROLL for (int round = 0; round < 10; round++) {
		unsigned h0 = mulHigh(0xD2511F53u, c0), l0 = 0xD2511F53u * c0;
		unsigned h1 = mulHigh(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
		c0 = h1 ^ c1 ^ k0;
		c1 = l1;
		c2 = h0 ^ c3 ^ k1;
		c3 = l0;
		k0 += 0x9E3779B9u;
		k1 += 0xBB67AE85u;
	}
	Philox p = {{c0, c1, c2, c3}};
	return p;
}

// dropout multiplies by net.DropoutMask, whose elements count in the order N, C, H, W.
// With one pixel an image that is the order in memory, and four numbers share their words.
KERNEL(256, dropout_flat, (float *y, const float *x, int count, unsigned limit, float by, unsigned layer, unsigned step0, unsigned step1, unsigned seed0, unsigned seed1)) {
	for (Long b = first(); 4 * b < count; b += step()) {
		Philox p = philox((unsigned)b, layer, step0, step1, seed0, seed1);
		UNROLL for (int i = 0; i < 4; i++)
			if (4 * b + i < count) y[4 * b + i] = p.at[i] < limit ? x[4 * b + i] * by : 0;
	}
}
KERNEL(256, dropout, (float *y, const float *x, int count, int C, int pixels, unsigned limit, float by, unsigned layer, unsigned step0, unsigned step1, unsigned seed0, unsigned seed1)) {
	for (Long i = first(); i < count; i += step()) {
		unsigned p = (unsigned)i / C, n = p / pixels;
		unsigned e = (n * C + ((unsigned)i - p * C)) * pixels + (p - n * pixels);
		Philox w = philox(e >> 2, layer, step0, step1, seed0, seed1);
		int which = (int)(e & 3);
		unsigned word = which < 2 ? (which == 0 ? w.at[0] : w.at[1]) : (which == 2 ? w.at[2] : w.at[3]);
		y[i] = word < limit ? x[i] * by : 0;
	}
}

// delta multiplies dy by the slope of the activation that gave y, and sums it over
// pixels: part blockIdx.y of them, for 32 channels. Without sums (null) it only multiplies.
KERNEL(256, delta, (float *dy, const float *y, float *sums, int pixels, int C, int perPart, int activation)) {
	SHARED(Columns, s);
	const int tx = threadIdx.x & 31, ty = threadIdx.x >> 5, c = blockIdx.x * 32 + tx;
	const int begin = blockIdx.y * perPart, end = begin + perPart < pixels ? begin + perPart : pixels;
	float sum = 0;
	if (c < C)
		for (int p = begin + ty; p < end; p += 8) {
			Long i = (Long)p * C + c;
			float d = dy[i];
			if (activation != 0) {
				d = activation == 1 ? (y[i] <= 0 ? 0 : d) : d * slope(y[i], activation);
				dy[i] = d;
			}
			sum += d;
		}
	if (sums == nullptr) return; // all threads alike
	s.at[ty][tx] = sum;
	SYNC();
	if (ty == 0 && c < C) {
		for (int i = 1; i < 8; i++) sum += s.at[i][tx];
		sums[(Long)blockIdx.y * C + c] = sum;
	}
}

// sum_parts adds parts of width numbers: eight sums of every eighth part, and then those, so
// that none waits for all parts one after another.
KERNEL(256, sum_parts, (float *out, const float *parts, int count, int width)) {
	SHARED(Columns, s);
	const int tx = threadIdx.x & 31, ty = threadIdx.x >> 5, i = blockIdx.x * 32 + tx;
	float sum = 0;
	if (i < width)
		for (int p = ty; p < count; p += 8) sum += parts[(Long)p * width + i];
	s.at[ty][tx] = sum;
	SYNC();
	if (ty == 0 && i < width) {
		for (int p = 1; p < 8; p++) sum += s.at[p][tx];
		out[i] = sum;
	}
}

// peaks is the greatest of each channel in a part of the pixels; NaN is greater.
DEVICE float greater(float a, float b) { return a != a || a > b ? a : b; }
KERNEL(256, peaks, (float *parts, const float *x, int pixels, int C, int perPart)) {
	SHARED(Columns, s);
	const int tx = threadIdx.x & 31, ty = threadIdx.x >> 5, c = blockIdx.x * 32 + tx;
	const int begin = blockIdx.y * perPart, end = begin + perPart < pixels ? begin + perPart : pixels;
	float top = -__builtin_inff();
	if (c < C)
		for (int p = begin + ty; p < end; p += 8) top = greater(x[(Long)p * C + c], top);
	s.at[ty][tx] = top;
	SYNC();
	if (ty == 0 && c < C) {
		for (int i = 1; i < 8; i++) top = greater(s.at[i][tx], top);
		parts[(Long)blockIdx.y * C + c] = top;
	}
}
KERNEL(256, peak_of_parts, (float *out, const float *parts, int count, int width)) {
	for (Long i = first(); i < width; i += step()) {
		float v = parts[i];
		for (int p = 1; p < count; p++) v = greater(parts[(Long)p * width + i], v);
		out[i] = v;
	}
}

namespace {

struct Sums {
	double of[8];
};

// blockSum is the sum over 256 threads, at thread 0.
DEVICE double blockSum(Sums &s, double v) {
	v = warpSum(v);
	if ((threadIdx.x & 31) == 0) s.of[threadIdx.x >> 5] = v;
	SYNC();
	double sum = s.of[0];
	for (int i = 1; i < 8; i++) sum += s.of[i];
	return sum;
}

} // namespace

// squares is the sum of squares of a part; norm_of_parts the root of what they add up to.
KERNEL(256, squares, (double *parts, const float *x, int count, int perPart)) {
	SHARED(Sums, s);
	Long begin = (Long)blockIdx.x * perPart, end = begin + perPart < count ? begin + perPart : count;
	double sum = 0;
	for (Long i = begin + threadIdx.x; i < end; i += 256) sum = fma64(x[i], x[i], sum);
	sum = blockSum(s, sum);
	if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}
KERNEL(256, norm_of_parts, (float *out, const double *parts, int count)) {
	SHARED(Sums, s);
	double sum = 0;
	for (int i = threadIdx.x; i < count; i += 256) sum += parts[i];
	sum = blockSum(s, sum);
	if (threadIdx.x == 0) *out = (float)sqrt64(sum);
}
