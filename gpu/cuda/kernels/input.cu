// input.cu: a batch of bytes becomes the first activation. A thread makes a pixel: three
// bytes are read and twelve written, sixteen more for tensor cores, and twelve read of the
// mean image, which stays in cache.
#include "device.h"

// load_images is x = ((pixel - mean) + shift) * scale in this order, at (top, left) of an
// image of PH x PW whose border stays as it is; images from count on become zero. mean3 has
// one mean a channel, or image the mean image, at the place that the pixel was cut out of.
// Channels are those of the batch; with bgr they are stored turned around. four, unless it
// is null, becomes the same image with a fourth channel of zeros.
KERNEL(256, load_images, (float *x, float4 *four, float *labels, const unsigned char *pixels, const float *shift, const int *origin, const unsigned char *flip,
	const int *given, const float *image, int imageW, int N, int count, int H, int W, int PH, int PW, int top, int left,
	float mean0, float mean1, float mean2, float scale0, float scale1, float scale2, int bgr)) {
	Long all = (Long)N * H * W;
	for (Long i = first(); i < all; i += step()) {
		int n = (int)i / (H * W), at = (int)i - n * (H * W), h = at / W, w = at - h * W;
		float mean[3] = {mean0, mean1, mean2}, scale[3] = {scale0, scale1, scale2}, v[3] = {0, 0, 0};
		if (n < count) {
			if (image != nullptr) {
				int mw = flip != nullptr && flip[n] ? W - 1 - w : w;
				const float *m = image + ((Long)(origin[2 * n + 1] + h) * imageW + origin[2 * n] + mw) * 3;
				UNROLL for (int c = 0; c < 3; c++) mean[c] = m[c];
			}
			UNROLL for (int c = 0; c < 3; c++) {
				v[c] = (float)pixels[3 * i + c] - mean[c];
				if (shift != nullptr) v[c] += shift[3 * n + c];
				v[c] *= scale[c];
			}
		}
		Long pixel = ((Long)n * PH + top + h) * PW + left + w;
		float4 out = {bgr ? v[2] : v[0], v[1], bgr ? v[0] : v[2], 0};
		float *to = x + 3 * pixel;
		to[0] = out.x;
		to[1] = out.y;
		to[2] = out.z;
		if (four != nullptr) four[pixel] = out;
	}
	for (Long i = first(); i < N; i += step()) labels[i] = i < count ? (float)given[i] : -1;
}
