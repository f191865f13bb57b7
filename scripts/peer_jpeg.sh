#!/bin/sh
# peer_jpeg.sh times libjpeg-turbo, the decoder to beat: the full RGB decode of every JPEG in a folder, in
# memory, on one core. It needs Debian's libjpeg62-turbo-dev and a C compiler.
#
#   scripts/peer_jpeg.sh PHOTOS [ROUNDS]        prints images/s, MP/s and MB/s, the best of five
#   scripts/peer_jpeg.sh PHOTOS --progressive OUT
#       writes the same coefficients as progressive files to OUT, to time those
#
# Sluice on the same files:
#
#   SLUICE_PHOTOS=PHOTOS go test ./stages/jpeg -run xxx -bench Decode
set -eu

if [ $# -lt 1 ]; then
	sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '/^set/d' >&2
	exit 2
fi
photos=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

cat >"$dir/peer.c" <<'C'
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <jpeglib.h>

struct errors { struct jpeg_error_mgr mgr; jmp_buf back; };
static void leave(j_common_ptr c) { longjmp(((struct errors *)c->err)->back, 1); }
static void quiet(j_common_ptr c) { (void)c; }

static unsigned char *load(const char *path, unsigned long *n) {
	FILE *f = fopen(path, "rb");
	if (!f) { perror(path); exit(1); }
	fseek(f, 0, SEEK_END);
	*n = ftell(f);
	rewind(f);
	unsigned char *b = malloc(*n + 1);
	if (fread(b, 1, *n, f) != *n) { perror(path); exit(1); }
	fclose(f);
	return b;
}

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

/* decode gives the pixels of one file, or 0 if it cannot be decoded. */
static long decode(const unsigned char *b, unsigned long n, unsigned char **out, size_t *room) {
	static struct jpeg_decompress_struct c;
	static struct errors e;
	static int ready;
	if (!ready) {
		c.err = jpeg_std_error(&e.mgr);
		e.mgr.error_exit = leave;
		e.mgr.output_message = quiet;
		jpeg_create_decompress(&c);
		ready = 1;
	}
	if (setjmp(e.back)) { jpeg_abort_decompress(&c); return 0; }
	jpeg_mem_src(&c, b, n);
	jpeg_read_header(&c, TRUE);
	if (c.num_components == 4) c.out_color_space = JCS_CMYK; else c.out_color_space = JCS_RGB;
	jpeg_start_decompress(&c);
	size_t stride = (size_t)c.output_width * c.output_components;
	if (*room < stride * c.output_height) *out = realloc(*out, *room = stride * c.output_height);
	while (c.output_scanline < c.output_height) {
		JSAMPROW rows[8];
		for (int i = 0; i < 8; i++) rows[i] = *out + stride * (c.output_scanline + i);
		jpeg_read_scanlines(&c, rows, 8);
	}
	long pixels = (long)c.output_width * c.output_height;
	jpeg_finish_decompress(&c);
	return pixels;
}

static void progressive(const unsigned char *b, unsigned long n, const char *path) {
	struct jpeg_decompress_struct c;
	struct jpeg_compress_struct o;
	struct jpeg_error_mgr e;
	c.err = o.err = jpeg_std_error(&e);
	jpeg_create_decompress(&c);
	jpeg_create_compress(&o);
	jpeg_mem_src(&c, b, n);
	jpeg_read_header(&c, TRUE);
	jvirt_barray_ptr *coefs = jpeg_read_coefficients(&c);
	jpeg_copy_critical_parameters(&c, &o);
	jpeg_simple_progression(&o);
	FILE *f = fopen(path, "wb");
	if (!f) { perror(path); exit(1); }
	jpeg_stdio_dest(&o, f);
	jpeg_write_coefficients(&o, coefs);
	jpeg_finish_compress(&o);
	fclose(f);
	jpeg_destroy_compress(&o);
	jpeg_destroy_decompress(&c);
}

int main(int argc, char **argv) {
	int rounds = 3, files = 0;
	char *to = NULL;
	if (argc == 4) to = argv[3];
	else if (argc == 3) rounds = atoi(argv[2]);
	FILE *list = fopen(argv[1], "r");
	static char path[4096];
	static unsigned char *data[1 << 20];
	static unsigned long size[1 << 20];
	while (files < 1 << 20 && fgets(path, sizeof path, list)) {
		path[strcspn(path, "\n")] = 0;
		data[files] = load(path, &size[files]);
		if (size[files] > 2 && data[files][0] == 0xFF && data[files][1] == 0xD8) files++;
		else free(data[files]);
	}
	if (files == 0) { fprintf(stderr, "there is no JPEG\n"); return 1; }
	if (to) {
		for (int i = 0; i < files; i++) {
			snprintf(path, sizeof path, "%s/%06d.jpg", to, i);
			progressive(data[i], size[i], path);
		}
		printf("%d progressive files in %s\n", files, to);
		return 0;
	}
	unsigned char *out = NULL;
	size_t room = 0;
	double best = 1e9;
	long pixels = 0, bytes = 0;
	int refused = 0;
	for (int r = 0; r < 5; r++) {
		double t = now();
		pixels = bytes = 0;
		for (int k = 0; k < rounds; k++)
			for (int i = 0; i < files; i++) {
				long p = decode(data[i], size[i], &out, &room);
				refused += p == 0;
				pixels += p;
				bytes += size[i];
			}
		t = now() - t;
		if (t < best) best = t;
	}
	printf("libjpeg-turbo %s: %.0f images/s  %.1f MP/s  %.1f MB/s  (%d files, full RGB, CPU time of one core)\n",
		VERSION, rounds * files / best, pixels / best / 1e6, bytes / best / 1e6, files);
	if (refused) printf("%d of them could not be decoded\n", refused / rounds / 5);
	return 0;
}
C

version=$(grep -hs 'LIBJPEG_TURBO_VERSION ' /usr/include/*/jconfig.h /usr/include/jconfig.h | awk '{print $3; exit}')
${CC:-cc} -O2 -o "$dir/peer" -DVERSION="\"${version:-?}\"" "$dir/peer.c" -ljpeg
find "$photos" -type f | sort >"$dir/list"
if [ "${2:-}" = --progressive ]; then
	mkdir -p "$3"
	"$dir/peer" "$dir/list" --progressive "$3"
else
	"$dir/peer" "$dir/list" "${2:-3}"
fi
