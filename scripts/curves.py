#!/usr/bin/env python3
"""Lays the curves of runs over each other in one small picture.

    python3 scripts/curves.py -o FILE.png NAME=LABEL...

NAME is that of a run whose metrics are in runs/NAME/metrics.jsonl, or of several in
runs/NAME-SEED/metrics.jsonl, which get one colour. The left half is the loss in training; with
validations there is a right half, of their top-1. A run that goes on is drawn as far as
it is. It needs matplotlib (pip install matplotlib).

With --differences it says, too, how far the losses of each two runs are apart, as a
table: of the first step that both have, and, of the means of --smooth steps, the root
of the mean square and the greatest.
"""

import argparse
import itertools
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
    """The metrics of each run of that name, by the run's name and by kind."""
    runs = {}
    for file in sorted(Path("runs").glob(f"{name}*/metrics.jsonl")):
        if re.fullmatch(re.escape(name) + r"(-\d+)?", file.parent.name):
            text = file.read_text()
            whole = text[: text.rfind("\n") + 1]  # the last line of a run that goes on may be half written
            try:
                lines = [json.loads(line) for line in whole.splitlines()]
            except json.JSONDecodeError as err:
                sys.exit(f"{file}: {err}")
            runs[file.parent.name] = {kind: [e for e in lines if e["event"] == kind] for kind in ("step", "validation")}
    if not runs:
        sys.exit(f"there is no runs/{name}/metrics.jsonl and no runs/{name}-SEED/metrics.jsonl")
    return runs


def smoothed(run, n):
    """The mean loss of the n steps up to each that is told of, or of a few more where several share a value."""
    out, window, before = {}, [], 0
    for e in run["step"]:
        window.append((e["step"] - before, e["loss"]))
        before = e["step"]
        while sum(steps for steps, _ in window[1:]) >= n:
            del window[0]
        total = sum(steps for steps, _ in window)
        if total >= n:
            out[e["step"]] = sum(steps * loss for steps, loss in window) / total
    return out


def differences(runs, n):
    print("| runs | first step | root mean square | greatest |")
    print("| --- | --- | --- | --- |")
    for (a, one), (b, other) in itertools.combinations(runs.items(), 2):
        gaps = [[abs(x[step] - y[step]) for step in x if step in y] for x, y in ((smoothed(one, k), smoothed(other, k)) for k in (1, n))]
        if not gaps[1]:
            print(f"| {a}, {b} | no steps that both have | | |")
            continue
        mean_square = sum(g * g for g in gaps[1]) / len(gaps[1])
        print(f"| {a}, {b} | {gaps[0][0]:.1e} | {mean_square ** 0.5:.4f} | {max(gaps[1]):.4f} |")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("groups", nargs="+", metavar="NAME=LABEL")
    p.add_argument("-o", dest="out", required=True, metavar="FILE.png")
    p.add_argument("--smooth", type=int, default=1, metavar="N", help="average the loss over so many steps")
    p.add_argument("--differences", action="store_true", help="print how far apart the losses of each two runs are")
    args = p.parse_args()
    if args.smooth < 1:
        p.error(f"--smooth must be at least 1, is {args.smooth}")
    groups = [(label or name, events(name)) for name, _, label in (g.partition("=") for g in args.groups)]
    validated = any(run["validation"] for _, runs in groups for run in runs.values())
    figure, axes = pyplot.subplots(1, 1 + validated, figsize=(4 * (1 + validated), 3), dpi=90, squeeze=False)
    left, right = axes[0][0], axes[0][-1]
    for number, (label, runs) in enumerate(groups):
        for i, run in enumerate(runs.values()):
            look = dict(color=f"C{number}", linewidth=0.9, alpha=0.8, label=None if i else label)
            losses = smoothed(run, args.smooth)
            left.plot(list(losses), list(losses.values()), **look)
            if validated:
                right.plot([e["step"] for e in run["validation"]], [100 * e["top1"] for e in run["validation"]], marker=".", markersize=3, **look)
    left.set(xlabel="step", ylabel="loss in training")
    if validated:
        right.set(xlabel="step", ylabel="top-1 of the validation, %")
    left.legend(fontsize="small")
    for axis in axes[0]:
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(args.out)
    if args.differences:
        differences({name: run for _, runs in groups for name, run in runs.items()}, args.smooth)


if __name__ == "__main__":
    main()
