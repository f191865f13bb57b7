# The two commands that a newcomer needs are in README.md; these are short names.
export CGO_ENABLED ?= 0

.PHONY: build test race bench ci build-cuda test-cuda vet-cuda gpu-kit

build: ## the binary, in bin/pipeline
	go build -o bin/pipeline ./cmd/pipeline

test:
	go test ./...

# The race detector needs cgo and a C compiler. ./cmd would take as long as all the rest,
# and runs the same packages; of the engine it is the pool, as its arithmetic alone
# would take ten minutes.
race:
	CGO_ENABLED=1 go test -race -short ./pipeline/... ./stages ./gpu ./sinks
	CGO_ENABLED=1 go test -race -short -run 'Threads|Task|Close|Golden' ./gpu/host

# The figures that matter most; BENCHMARKS.md has the command of each.
bench:
	go test ./gpu/host -run xxx -bench 'TrainStep|Infer' -timeout 30m
	go test ./gpu -run xxx -bench 'Feed/alexnet$$' -benchtime 3x
	go test ./stages ./stages/jpeg -run xxx -bench 'Crop224|Decode'
	go test ./cmd -run xxx -bench 'TrainFromFiles|ExtractFromFiles' -benchtime 3x

# What cgo needs for the tag cuda: our own cuda.h, and driver.c in a library of the
# name that gorgonia.org/cu links. gcc is all that must be there.
cuda_env = CGO_ENABLED=1 CGO_CFLAGS="-O2 -I$(CURDIR)/gpu/cuda/abi/include" CGO_LDFLAGS="-L$(CURDIR)/bin/cuda"

bin/cuda/libcuda.a: gpu/cuda/abi/driver.c $(wildcard gpu/cuda/abi/include/*.h)
	mkdir -p bin/cuda
	gcc -O2 -fPIC -fvisibility=hidden -Wall -Wextra -Werror -Igpu/cuda/abi/include -c $< -o bin/cuda/driver.o
	ar rcs $@ bin/cuda/driver.o

build-cuda: bin/cuda/libcuda.a ## a binary that runs with and without a card
	$(cuda_env) go build -tags cuda -o bin/pipeline-cuda ./cmd/pipeline

# The emulated driver; $(CXX) as it is, no toolkit.
emu_flags = -std=c++20 -O2 -g -march=native -ffp-contract=off -Wall -Wextra -Werror -fvisibility=hidden -DSLUICE_EMULATOR -Igpu/cuda/abi/include
emu_headers = $(wildcard gpu/cuda/emu/*.h gpu/cuda/kernels/*.h gpu/cuda/abi/include/*.h)

bin/cuda/emu/%.o: gpu/cuda/emu/%.cpp $(emu_headers)
	mkdir -p $(@D)
	$(CXX) $(emu_flags) -fPIC -c $< -o $@

bin/cuda/emu_test: bin/cuda/emu/block.o bin/cuda/emu/driver.o gpu/cuda/emu/emu_test.cpp gpu/cuda/emu/bugs.cu
	$(CXX) $(emu_flags) -o $@ $(filter %.o,$^) gpu/cuda/emu/emu_test.cpp -x c++ gpu/cuda/emu/bugs.cu -lpthread -ldl

# Kernels are compiled for speed: the tests do all their arithmetic in them.
kernels = $(patsubst gpu/cuda/kernels/%.cu,bin/cuda/kernels/%.o,$(wildcard gpu/cuda/kernels/*.cu))

bin/cuda/kernels/%.o: gpu/cuda/kernels/%.cu $(emu_headers)
	mkdir -p $(@D)
	$(CXX) $(emu_flags) -O3 -fPIC -x c++ -c $< -o $@

bin/cuda/libcuda_emu.so: bin/cuda/emu/block.o bin/cuda/emu/driver.o $(kernels)
	$(CXX) -shared -o $@ $^ -lpthread -ldl

# Everything of the CUDA engine and of the stages on it, on the emulated driver: in a fixed
# schedule, and in a drawn one with each tensor between guards. Both give the same bits
# (gpu/cuda/testdata/digest.txt).
test-cuda: bin/cuda/libcuda.a bin/cuda/emu_test bin/cuda/libcuda_emu.so
	bin/cuda/emu_test
	$(cuda_env) $(emulated) SLUICE_TEST_DEVICE=cuda go test -tags cuda ./gpu/cuda/... ./gpu
	$(cuda_env) $(emulated) SLUICE_TEST_DEVICE=cuda SLUICE_EMU_SEED=7 SLUICE_CUDA_SEPARATE=1 go test -tags cuda ./gpu/cuda ./gpu

# A folder to carry to a machine with a card, which needs no Go and no compiler there:
# scripts/on_gpu.sh says what is done with it.
gpu-kit: build-cuda bin/cuda/libcuda_emu.so
	rm -rf bin/gpu-kit && mkdir -p bin/gpu-kit
	$(cuda_env) go test -tags cuda -c -o bin/gpu-kit/cuda.test ./gpu/cuda
	$(cuda_env) go test -tags cuda -c -o bin/gpu-kit/stages.test ./gpu
	cp bin/pipeline-cuda bin/gpu-kit/pipeline
	cp -r examples scripts/on_gpu.sh scripts/peer_cuda.py bin/gpu-kit
	$(emulated) bin/gpu-kit/cuda.test -test.run '^TestDeterminism$$' -test.v | grep -o 'digest .*' >bin/gpu-kit/digest.txt
	@echo 'carry bin/gpu-kit, and run on_gpu.sh in it'

vet-cuda: bin/cuda/libcuda.a
	$(cuda_env) go vet -tags cuda ./gpu/cuda/... ./gpu
	$(cuda_env) $(shell go env GOPATH)/bin/staticcheck -tags cuda ./gpu/cuda/... ./gpu

emulated = SLUICE_LIBCUDA=$(CURDIR)/bin/cuda/libcuda_emu.so

ci:
	.ci/run
