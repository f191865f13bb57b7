#!/usr/bin/env bash
# Everything that is to be known of the CUDA engine on a real card, from the folder that
# make gpu-kit makes. It needs the driver, and for the comparison a python3 with PyTorch.
#
#	make gpu-kit; carry bin/gpu-kit to the machine; ./on_gpu.sh 2>&1 | tee on_gpu.txt
#
# Each part says passed, FAILED or NOT CHECKED; the exit code is 1 if any failed.
set -uo pipefail
cd "$(dirname "$0")"
failed=0
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

part() { printf '\n== %s\n' "$1"; }
check() { # NAME COMMAND...
	local name=$1
	shift
	part "$name"
	if "$@"; then echo "$name: passed"; else echo "$name: FAILED"; failed=1; fi
}

if ! [ -x ./cuda.test ] || ! [ -s digest.txt ]; then
	echo 'this is not the folder of make gpu-kit: cuda.test or digest.txt is missing' >&2
	exit 2
fi
part 'the card'
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem --format=csv || true
./pipeline devices
if ! ./pipeline devices | grep -q '^cuda  cuda:'; then
	echo 'there is no card: nothing was checked' >&2
	exit 2
fi

check 'conformance' ./cuda.test -test.run 'TestEngine|TestGolden|TestAgreesWithCPU|TestEveryOption|TestResume|TestTF32|TestTiles|TestPinned|TestLoadBesideOps|TestStreamsWait|TestTooManyGroups'
check 'conformance, each tensor by itself' env SLUICE_CUDA_SEPARATE=1 ./cuda.test -test.run 'TestEngine/(Truth|SharedMemory|RandomGeometry)'
check 'the stages, and exact resume' env SLUICE_TEST_DEVICE=cuda ./stages.test

same_digest() {
	./cuda.test -test.run '^TestDeterminism$' -test.v | tee "$out/digest" | grep -o 'digest .*' | cmp - digest.txt
}
check "the bits of float32 are the emulated card's" same_digest
if command -v compute-sanitizer >/dev/null; then
	for tool in memcheck racecheck synccheck initcheck; do
		check "compute-sanitizer $tool" env SLUICE_CUDA_SEPARATE=1 compute-sanitizer --tool "$tool" --error-exitcode 1 ./cuda.test -test.run 'TestGolden|TestTF32'
	done
else
	part 'compute-sanitizer'
	echo 'NOT CHECKED: it is not here (it comes with the CUDA toolkit)'
fi

part 'kernels at the sizes of AlexNet: GFLOP/s and GB/s'
SLUICE_BENCH_BATCH=128 ./cuda.test -test.run xxx -test.bench 'Conv|Dense|Memory'
for batch in 128 512; do
	part "a training step, batch $batch: images/s"
	SLUICE_BENCH_BATCH=$batch ./cuda.test -test.run xxx -test.bench 'TrainStep' -test.count 3
	if command -v python3 >/dev/null && python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
		python3 peer_cuda.py --batch "$batch"
	else
		echo 'NOT COMPARED with PyTorch: there is no python3 with a PyTorch that sees the card'
	fi
done

part 'a run, and whether its copies lie under its kernels'
(
	cd "$out"
	"$OLDPWD/pipeline" run "$OLDPWD/examples/quickstart/train.yaml" --device cuda --epochs 1 --trace trace.json
) || failed=1
cp "$out/trace.json" . 2>/dev/null && echo 'trace.json is for ui.perfetto.dev'

part 'how many images/s the line delivers, and the network takes'
./pipeline bench examples/quickstart/train.yaml --device cuda || failed=1

exit "$failed"
