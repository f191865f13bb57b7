// lrn.cu: local response normalisation across channels, s = k + alpha * sum of x^2 over
// a window of channels, y = x / s^beta. A block takes 1024 numbers that lie one after
// another, and those before and after them that their windows reach; windows do not go
// beyond their pixel, or its group of channels.
#include "device.h"

namespace {

constexpr int block = 1024;
constexpr int reach = 2048; // of a window, before and after together; wider ones the engine refuses

// Window is the channels that number i is normalised over, as numbers.
struct Window {
	int from, to;
};
DEVICE Window window(int i, int channel, int group, int before, int after) {
	int inGroup = channel % group, first = i - inGroup, last = first + group;
	Window w = {i - before > first ? i - before : first, i + after + 1 < last ? i + after + 1 : last};
	return w;
}

struct Squares {
	float of[block + reach];
};
struct Both {
	float squares[block + 2 * reach], ratios[block + reach];
};

} // namespace

KERNEL(256, lrn, (float *y, const float *x, int count, int C, int group, int before, int after, float k, float alpha, float beta)) {
	SHARED(Squares, s);
	const int begin = blockIdx.x * block;
	const int from = begin - before > 0 ? begin - before : 0, to = begin + block + after < count ? begin + block + after : count;
	for (int i = from + threadIdx.x; i < to; i += 256) s.of[i - from] = x[i] * x[i];
	SYNC();
	for (int i = begin + threadIdx.x; i < begin + block && i < count; i += 256) {
		Window w = window(i, i % C, group, before, after);
		float sum = 0;
		for (int j = w.from; j < w.to; j++) sum += s.of[j - from];
		y[i] = x[i] * power(fma32(alpha, sum, k), beta);
	}
}

// lrn_grad is dx_i = dy_i / s_i^beta - 2 alpha beta x_i * sum of dy_j x_j / s_j^(beta+1)
// over the j whose window holds i, which is the window turned around. What is made of x
// is made again: it is cheaper than to keep it.
KERNEL(256, lrn_grad, (float *dx, const float *dy, const float *x, int count, int C, int group, int before, int after, float k, float alpha, float beta)) {
	SHARED(Both, s);
	const int begin = blockIdx.x * block, both = before + after;
	const int from = begin - both > 0 ? begin - both : 0, to = begin + block + both < count ? begin + block + both : count;
	for (int i = from + threadIdx.x; i < to; i += 256) s.squares[i - from] = x[i] * x[i];
	SYNC();
	// From begin-after to begin+block+before the ratios are wanted, and to be had.
	const int ratiosFrom = begin - after > 0 ? begin - after : 0, ratiosTo = begin + block + before < count ? begin + block + before : count;
	for (int i = ratiosFrom + threadIdx.x; i < ratiosTo; i += 256) {
		Window w = window(i, i % C, group, before, after);
		float sum = 0;
		for (int j = w.from; j < w.to; j++) sum += s.squares[j - from];
		float scale = fma32(alpha, sum, k), d = dy[i] * power(scale, beta);
		s.ratios[i - ratiosFrom] = d * x[i] / scale;
		if (i >= begin && i < begin + block) dx[i] = d;
	}
	SYNC();
	for (int i = begin + threadIdx.x; i < begin + block && i < count; i += 256) {
		Window w = window(i, i % C, group, after, before);
		float sum = 0;
		for (int j = w.from; j < w.to; j++) sum += s.ratios[j - ratiosFrom];
		dx[i] = dx[i] - 2 * alpha * beta * x[i] * sum;
	}
}
