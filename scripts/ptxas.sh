#!/usr/bin/env bash
# Compiles the kernels for real cards by NVIDIA's own tools, which PyPI has as wheels: the
# committed PTX by ptxas, with what each kernel takes of registers, and the sources by nvcc.
# It fails if either does not compile, or a kernel spills registers into memory, and says
# NOT CHECKED where the tools cannot be had.
#
#	scripts/ptxas.sh [folder of the CUDA toolkit]
set -euo pipefail
cd "$(dirname "$0")/.."

version=13.0.88 # of the compiler and its parts; the headers of the runtime have their own
wheels=(nvidia-cuda-nvcc=="$version" nvidia-nvvm=="$version" nvidia-cuda-crt=="$version" nvidia-cuda-runtime==13.0.96)

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cuda=${1:-}
if [ -z "$cuda" ]; then
	if ! python3 -m pip download -q --no-deps -d "$tmp" "${wheels[@]}" 2>"$tmp/log"; then
		tail -1 "$tmp/log"
		echo "NOT CHECKED by NVIDIA's compilers: their wheels cannot be had"
		exit 0
	fi
	for wheel in "$tmp"/*.whl; do python3 -m zipfile -e "$wheel" "$tmp"; done
	cuda=$tmp/nvidia/cu13
	chmod +x "$cuda"/bin/* "$cuda"/nvvm/bin/*
fi

# report CARD: what ptxas says, a line for each kernel.
report() {
	awk -v card="$1" '
		/Compiling entry function/ { split($0, q, "\x27"); name = q[2] }
		/spill stores/ { spills = $5 }
		/Used [0-9]+ registers/ { for (i = 1; i < NF; i++) if ($i == "Used") n = $(i + 1)
			printf "%s %-24s %3d registers, %d bytes spilled\n", card, name, n, spills
			if (spills > 0) bad = 1 }
		/error|fatal/ { print; bad = 1 }
		END { exit bad }'
}

"$cuda/bin/ptxas" --version | tail -1
for card in sm_80 sm_90; do
	for file in gpu/cuda/kernels/*.ptx; do
		"$cuda/bin/ptxas" -v -arch="$card" "$file" -o /dev/null 2>&1 | report "$card"
	done
done

# Multiply-adds are only made where they are written, as by clang.
if ! command -v g++ >/dev/null || ! [ -x "$cuda/bin/nvcc" ]; then
	echo 'NOT CHECKED by nvcc: it, or g++, which it needs, is not there'
	exit 0
fi
for file in gpu/cuda/kernels/*.cu; do
	name=$(basename "$file" .cu)
	"$cuda/bin/nvcc" -fatbin -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90 -std=c++17 -O3 --fmad=false \
		-Xptxas -v -Werror all-warnings -o "$tmp/$name.fatbin" "$file" 2>&1 | report nvcc >"$tmp/$name.txt" || { cat "$tmp/$name.txt"; exit 1; }
	echo "nvcc $name.cu: $(wc -l <"$tmp/$name.txt") kernels for sm_80 and sm_90"
done
