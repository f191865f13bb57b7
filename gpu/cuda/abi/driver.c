/* driver.c stands for libcuda.so in a program that must also start where there is
 * no driver: each function finds the real one when it is first called. The library
 * is libcuda.so.1, or what the environment's SLUICE_LIBCUDA names: a path, for
 * example of the emulated driver. */
#include <cuda.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void *library;
static CUresult state = CUDA_ERROR_NOT_INITIALIZED;
static char why[512];

/* Slots of the driver's functions, filled by find. */
#define CU(name, symbol, params, args) static CUresult(*at_##name) params;
#include <symbols.h>
#undef CU

static void find(void) {
	const char *path = getenv("SLUICE_LIBCUDA");
	if (path == NULL || *path == 0) path = "libcuda.so.1";
	library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (library == NULL) {
		state = CUDA_ERROR_NO_DEVICE;
		snprintf(why, sizeof why, "there is no driver: %s", dlerror());
		return;
	}
#define CU(name, symbol, params, args) *(void **)&at_##name = dlsym(library, #symbol);
#include <symbols.h>
#undef CU
	CUresult (*init)(unsigned int) = (CUresult (*)(unsigned int))dlsym(library, "cuInit");
	state = init != NULL ? init(0) : CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND;
	if (state != CUDA_SUCCESS) {
		const char *text = NULL;
		if (at_cuGetErrorString != NULL) at_cuGetErrorString(state, &text);
		snprintf(why, sizeof why, "the driver %s does not start: %s (CUDA error %d)", path, text != NULL ? text : "unknown error", state);
	}
}

CUresult sluiceDriver(const char **text) {
	pthread_once(&once, find);
	if (text != NULL) *text = why;
	return state;
}

/* missing is what a function of a driver that is not there, or is too old for it,
 * returns. */
static CUresult missing(void) {
	return state != CUDA_SUCCESS ? state : CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND;
}

CUresult cuInit(unsigned int flags) {
	(void)flags;
	pthread_once(&once, find);
	return CUDA_SUCCESS;
}

#define CU(name, symbol, params, args)      \
	CUresult name params {                  \
		pthread_once(&once, find);          \
		if (at_##name == NULL || state != CUDA_SUCCESS) return missing(); \
		return at_##name args;              \
	}
#include <symbols.h>
#undef CU
