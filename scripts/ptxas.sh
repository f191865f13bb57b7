#!/usr/bin/env bash
# Assembles the committed PTX for real cards with NVIDIA's assembler, which PyPI has as a
# wheel, and prints what each kernel takes. It fails if the PTX does not assemble, and says
# NOT CHECKED where the assembler cannot be had.
#
#	scripts/ptxas.sh [ptxas]
set -euo pipefail
cd "$(dirname "$0")/.."

version=12.9.86
ptxas=${1:-$(command -v ptxas || true)}
if [ -z "$ptxas" ]; then
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	if ! python3 -m pip download -q --no-deps -d "$tmp" "nvidia-cuda-nvcc-cu12==$version" 2>"$tmp/log"; then
		tail -1 "$tmp/log"
		echo 'NOT CHECKED by ptxas: its wheel cannot be had'
		exit 0
	fi
	python3 -m zipfile -e "$tmp"/*.whl "$tmp"
	ptxas=$tmp/nvidia/cuda_nvcc/bin/ptxas
	chmod +x "$ptxas"
fi
"$ptxas" --version | tail -1
for card in sm_80 sm_90; do
	for file in gpu/cuda/kernels/*.ptx; do
		"$ptxas" -v -arch="$card" "$file" -o /dev/null 2>&1 | awk -v card="$card" '
			/Compiling entry function/ { split($0, q, "\x27"); name = q[2] }
			/spill stores/ { spills = $5 }
			/Used [0-9]+ registers/ { for (i = 1; i < NF; i++) if ($i == "Used") n = $(i + 1)
				printf "%s %-24s %3d registers, %d bytes spilled\n", card, name, n, spills }
			/error/ { print; bad = 1 }
			END { exit bad }'
	done
done
