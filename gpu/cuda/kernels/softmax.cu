// softmax.cu: softmax with cross-entropy. A block takes a row; sums are in float64 and
// the loss is from the logits, so that no probability is too small for it.
#include "device.h"

namespace {

constexpr int threads = 128, warps = threads / 32;

struct Row {
	float top[warps];
	double sum[warps], rest[warps];
	int rank[warps];
};

// before says whether logit a comes before b: NaN first, then the greater, then the one
// of the lower index.
DEVICE bool before(float a, float b, bool lower) {
	bool aNaN = a != a, bNaN = b != b;
	if (aNaN != bNaN) return aNaN;
	if (aNaN || a == b) return lower;
	return a > b;
}

// A label that is none of the classes is told to the host: the least row in *bad.
DEVICE bool wrong(float label, int classes, int *bad) {
	if (label < (float)classes && (label < 0 || label == (float)(int)label)) return false;
	if (threadIdx.x == 0) atomicMin(bad, (int)blockIdx.x);
	return true;
}

} // namespace

KERNEL(threads, softmax_loss, (float *prob, float *loss, float *rank, const float *x, const float *labels, int classes, float smoothing, int *bad)) {
	SHARED(Row, s);
	const int t = threadIdx.x, lane = t & 31, warp = t >> 5;
	x += (Long)blockIdx.x * classes;
	prob += (Long)blockIdx.x * classes;
	const float given = labels[blockIdx.x];
	const int label = wrong(given, classes, bad) ? -1 : (int)given;

	float top = -__builtin_inff();
	for (int i = t; i < classes; i += threads) top = x[i] != x[i] || x[i] > top ? x[i] : top;
	top = warpMax(top);
	if (lane == 0) s.top[warp] = top;
	SYNC();
	top = s.top[0];
	for (int i = 1; i < warps; i++) top = s.top[i] != s.top[i] || s.top[i] > top ? s.top[i] : top;

	double sum = 0;
	for (int i = t; i < classes; i += threads) sum += exp64((double)x[i] - (double)top);
	sum = warpSum(sum);
	if (lane == 0) s.sum[warp] = sum;
	SYNC();
	sum = s.sum[0];
	for (int i = 1; i < warps; i++) sum += s.sum[i];

	const double logSum = log64(sum);
	const float own = label >= 0 ? x[label] : 0;
	double rest = 0;
	int less = 0;
	for (int i = t; i < classes; i += threads) {
		float p = (float)(exp64((double)x[i] - (double)top) / sum);
		prob[i] = p < tiny ? 0 : p;
		rest += logSum - ((double)x[i] - (double)top);
		if (label >= 0 && before(x[i], own, i < label)) less++;
	}
	rest = warpSum(rest);
	less = warpSum(less);
	if (lane == 0) {
		s.rest[warp] = rest;
		s.rank[warp] = less;
	}
	SYNC();
	if (t != 0) return;
	for (int i = 1; i < warps; i++) {
		rest += s.rest[i];
		less += s.rank[i];
	}
	double l = logSum - ((double)own - (double)top);
	if (smoothing > 0) l = (1 - (double)smoothing) * l + (double)smoothing * rest / classes;
	loss[blockIdx.x] = label >= 0 ? (float)l : 0;
	rank[blockIdx.x] = label >= 0 ? less : classes;
}

KERNEL(threads, softmax_loss_grad, (float *dx, const float *prob, const float *labels, int rows, int classes, float smoothing, int *bad)) {
	const float given = labels[blockIdx.x];
	const int label = wrong(given, classes, bad) ? -1 : (int)given;
	const double spread = (double)smoothing / classes;
	const float share = (float)spread, hit = (float)(1 - (double)smoothing + spread);
	for (int i = threadIdx.x; i < classes; i += threads) {
		Long at = (Long)blockIdx.x * classes + i;
		float d = (prob[at] - (i == label ? hit : share)) / (float)rows;
		if (label < 0 || (d < tiny && d > -tiny)) d = 0;
		dx[at] = d;
	}
}
