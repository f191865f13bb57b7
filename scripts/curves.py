#!/usr/bin/env python3
"""Lays the curves of runs over each other in one small picture.

    python3 scripts/curves.py -o FILE.png NAME=LABEL...

NAME is that of runs whose metrics are in runs/NAME-SEED/metrics.jsonl: all seeds
get one colour. The left half is the loss in training; with validations there is a right half, of
their top-1. It needs matplotlib (pip install matplotlib).
"""

import argparse
import json
import re
import sys
from pathlib import Path

try:
    import matplotlib
except ImportError as err:
    sys.exit(f"{err}: pip install matplotlib")
matplotlib.use("Agg")
from matplotlib import pyplot


def events(name):
    """The metrics of each run of that name, by kind."""
    runs = []
    for file in sorted(Path("runs").glob(f"{name}-*/metrics.jsonl")):
        if re.fullmatch(re.escape(name) + r"-\d+", file.parent.name):
            try:
                lines = [json.loads(line) for line in file.read_text().splitlines()]
            except json.JSONDecodeError as err:
                sys.exit(f"{file}: {err}")
            runs.append({kind: [e for e in lines if e["event"] == kind] for kind in ("step", "validation")})
    if not runs:
        sys.exit(f"there is no runs/{name}-SEED/metrics.jsonl")
    return runs


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("groups", nargs="+", metavar="NAME=LABEL")
    p.add_argument("-o", dest="out", required=True, metavar="FILE.png")
    p.add_argument("--smooth", type=int, default=1, metavar="N", help="average so many values of the loss")
    args = p.parse_args()
    groups = [(label or name, events(name)) for name, _, label in (g.partition("=") for g in args.groups)]
    validated = any(run["validation"] for _, runs in groups for run in runs)
    figure, axes = pyplot.subplots(1, 1 + validated, figsize=(4 * (1 + validated), 3), dpi=90, squeeze=False)
    left, right = axes[0][0], axes[0][-1]
    for number, (label, runs) in enumerate(groups):
        for i, run in enumerate(runs):
            look = dict(color=f"C{number}", linewidth=0.9, alpha=0.8, label=None if i else label)
            step, loss = [e["step"] for e in run["step"]], [e["loss"] for e in run["step"]]
            n = args.smooth
            left.plot(step[n - 1 :], [sum(loss[k : k + n]) / n for k in range(len(loss) - n + 1)], **look)
            if validated:
                right.plot([e["step"] for e in run["validation"]], [100 * e["top1"] for e in run["validation"]], **look)
    left.set(xlabel="step", ylabel="loss in training")
    if validated:
        right.set(xlabel="step", ylabel="top-1 of the validation, %")
    left.legend(fontsize="small")
    for axis in axes[0]:
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(args.out)


if __name__ == "__main__":
    main()
