// windows.cu: pooling. A thread computes a number of the output, channels side by side;
// a gradient is gathered from the windows that hold its pixel, in row order, so that
// windows may overlap and nothing is added by two threads. Of the bytes, input and output
// are once from memory; what windows share comes from the caches.
#include "device.h"

namespace {

// Where is a number of a map taken apart, in 32 bits: divisions of 64 would take longer than
// the memory does.
struct Where {
	int n, h, w, c;
};
DEVICE Where where(unsigned i, unsigned H, unsigned W, unsigned C) {
	unsigned p = i / C, row = p / W, n = row / H;
	Where q = {(int)n, (int)(row - n * H), (int)(p - row * W), (int)(i - p * C)};
	return q;
}

DEVICE int least(int a, int b) { return a < b ? a : b; }
DEVICE int most(int a, int b) { return a > b ? a : b; }

// The windows that hold place i, from..to-1 of `out`.
DEVICE int fromWindow(int i, int size, int stride, int pad) { return i + pad < size ? 0 : (i + pad - size) / stride + 1; }
DEVICE int toWindow(int i, int out, int stride, int pad) { return least(out, (i + pad) / stride + 1); }

// counted is how many places of a window along one side of n a mean divides by.
DEVICE int counted(int first, int n, int size, int pad, int countPad) {
	if (countPad) return least(n + pad, first + size) - first;
	return least(n, first + size) - most(0, first);
}

} // namespace

// max_pool keeps, unless arg is null, the place within the window, row*size + column.
// The first among equals wins, and the first NaN over all.
KERNEL(256, max_pool, (float *y, unsigned short *arg, const float *x, int N, int H, int W, int C, int OH, int OW, int size, int stride, int pad)) {
	Long count = (Long)N * OH * OW * C;
	for (Long i = first(); i < count; i += step()) {
		Where q = where((unsigned)i, OH, OW, C);
		int h0 = q.h * stride - pad, w0 = q.w * stride - pad;
		const float *image = x + ((unsigned)q.n * H * W * C + q.c);
		float top = 0;
		int at = -1;
		for (int h = most(0, h0); h < least(H, h0 + size); h++)
			for (int w = most(0, w0); w < least(W, w0 + size); w++) {
				float v = image[(h * W + w) * C];
				if (at < 0 || (top == top && (v > top || v != v))) {
					top = v;
					at = (h - h0) * size + w - w0;
				}
			}
		y[i] = top;
		if (arg != nullptr) arg[i] = (unsigned short)at;
	}
}

KERNEL(256, max_pool_grad, (float *dx, const float *dy, const unsigned short *arg, int N, int H, int W, int C, int OH, int OW, int size, int stride, int pad)) {
	Long count = (Long)N * H * W * C;
	for (Long i = first(); i < count; i += step()) {
		Where q = where((unsigned)i, H, W, C);
		unsigned image = (unsigned)q.n * OH * OW * C + q.c;
		float sum = 0;
		for (int h = fromWindow(q.h, size, stride, pad); h < toWindow(q.h, OH, stride, pad); h++)
			for (int w = fromWindow(q.w, size, stride, pad); w < toWindow(q.w, OW, stride, pad); w++) {
				unsigned o = image + (h * OW + w) * C;
				if (arg[o] == (q.h + pad - h * stride) * size + q.w + pad - w * stride) sum += dy[o];
			}
		dx[i] = sum;
	}
}

KERNEL(256, avg_pool, (float *y, const float *x, int N, int H, int W, int C, int OH, int OW, int size, int stride, int pad, int countPad)) {
	Long count = (Long)N * OH * OW * C;
	for (Long i = first(); i < count; i += step()) {
		Where q = where((unsigned)i, OH, OW, C);
		int h0 = q.h * stride - pad, w0 = q.w * stride - pad;
		const float *image = x + ((unsigned)q.n * H * W * C + q.c);
		float sum = 0;
		for (int h = most(0, h0); h < least(H, h0 + size); h++)
			for (int w = most(0, w0); w < least(W, w0 + size); w++) sum += image[(h * W + w) * C];
		y[i] = sum / (float)(counted(h0, H, size, pad, countPad) * counted(w0, W, size, pad, countPad));
	}
}

KERNEL(256, avg_pool_grad, (float *dx, const float *dy, int N, int H, int W, int C, int OH, int OW, int size, int stride, int pad, int countPad)) {
	Long count = (Long)N * H * W * C;
	for (Long i = first(); i < count; i += step()) {
		Where q = where((unsigned)i, H, W, C);
		unsigned image = (unsigned)q.n * OH * OW * C + q.c;
		float sum = 0;
		for (int h = fromWindow(q.h, size, stride, pad); h < toWindow(q.h, OH, stride, pad); h++)
			for (int w = fromWindow(q.w, size, stride, pad); w < toWindow(q.w, OW, stride, pad); w++) {
				int places = counted(h * stride - pad, H, size, pad, countPad) * counted(w * stride - pad, W, size, pad, countPad);
				sum += dy[image + (h * OW + w) * C] / (float)places;
			}
		dx[i] = sum;
	}
}
