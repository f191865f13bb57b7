// bugs.cu: kernels with one planted bug each, which emu_test.cpp expects the emulated
// driver to find, and two right ones.
#include "../kernels/device.h"

KERNEL(256, right_sum, (const float *x, float *y, int n)) {
	struct Parts {
		float of[8];
	};
	SHARED(Parts, s);
	int t = threadIdx.x;
	float v = warpSum(t < n ? x[t] : 0);
	if ((t & 31) == 0) s.of[t >> 5] = v;
	SYNC();
	if (t == 0) {
		float sum = 0;
		for (unsigned i = 0; i < blockDim.x / 32; i++) sum += s.of[i];
		*y = sum;
	}
}

KERNEL(64, right_async, (const float *x, float *y)) {
	struct Buffer {
		float of[256];
	};
	SHARED(Buffer, s);
	int t = threadIdx.x;
	emu::copyAsync(&s.of[4 * t], x + 4 * t, 16, 16);
	emu::copyCommit();
	emu::copyWait(0);
	SYNC();
	y[t] = s.of[255 - t];
}

KERNEL(64, bug_divergence, (float *y)) {
	if (threadIdx.x < 16) {
		SYNC();
	} else {
		y[threadIdx.x] = 1;
		SYNC(); // another barrier
	}
}

KERNEL(64, bug_early_end, (float *y)) {
	if (threadIdx.x >= 40) return;
	SYNC();
	y[threadIdx.x] = 1;
}

KERNEL(32, bug_missing_lanes, (float *y)) {
	if (threadIdx.x >= 16) return;
	y[threadIdx.x] = SHUFFLE_XOR(y[threadIdx.x], 1);
}

KERNEL(256, bug_over_end, (float *y, int n)) {
	int i = blockIdx.x * blockDim.x + threadIdx.x;
	if (i <= n) y[i] = 1; // < was meant
}

KERNEL(32, bug_before_begin, (const float *x, float *y)) {
	y[threadIdx.x] = x[(int)threadIdx.x - 2000];
}

KERNEL(32, bug_over_shared, (float *y, int n)) {
	struct Buffer {
		float of[32];
	};
	SHARED(Buffer, s);
	s.of[threadIdx.x + n] = 1;
	y[threadIdx.x] = s.of[0];
}

KERNEL(64, bug_no_barrier, (float *y)) {
	struct Buffer {
		float of[64];
	};
	SHARED(Buffer, s);
	s.of[threadIdx.x] = threadIdx.x;
	y[threadIdx.x] = s.of[63 - threadIdx.x];
}

KERNEL(64, bug_no_wait, (const float *x, float *y)) {
	struct Buffer {
		float of[256];
	};
	SHARED(Buffer, s);
	int t = threadIdx.x;
	emu::copyAsync(&s.of[4 * t], x + 4 * t, 16, 16);
	emu::copyCommit();
	SYNC();
	y[t] = s.of[255 - t];
}

KERNEL(64, bug_uninitialised, (float *y)) {
	struct Buffer {
		float of[64];
	};
	SHARED(Buffer, s);
	if (threadIdx.x > 0) s.of[threadIdx.x] = 1;
	SYNC();
	y[threadIdx.x] = s.of[threadIdx.x];
}
