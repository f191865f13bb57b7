#!/usr/bin/env python3
"""Runs experiments, each with several seeds, and prints a table of what came out.

    go build -o pipeline.bin ./cmd/pipeline
    python3 scripts/experiments.py --data DIR [FILE...]

FILE is a YAML of examples/paper; left out, they are all those of the paper's
experiments. DIR has train/ and val/ with a sub-folder a class. The first FILE is
what the others are compared with. All files are run with a seed before the next
seed begins, so that what is there is comparable whenever it is stopped; --missing
keeps the runs that are whole, whatever the files were then, and --table runs nothing.

Results are in runs/NAME-SEED, NAME being the name in the file. With --rates each file
is run with each of these learning rates, in runs/NAME-lrRATE-SEED, so that every kind
of unit can have its own best one:

    python3 scripts/experiments.py --data DIR --seeds 1 --rates 0.003,0.01,0.03 \\
      examples/paper/figure1_*.yaml

The table:

    top-1, top-5  per cent of the validation images after the last epoch, the mean
                  over the seeds, with its standard error where there are two or more
    against       points of top-1 more than the first file's: the mean, and its
                  standard error, over the seeds that both have
    passes        over the training images until --right of those of 50 steps in
                  training, dropout and all, were taken for what they are; the mean,
                  with its standard error
    to there      the seconds until then, validations and all
    seconds       a run, on --threads threads

It needs no more than Python. scripts/curves.py draws the curves of the same runs.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAPER = "base tanh no_lrn no_overlap no_jitter no_dropout no_conv2 no_conv3 no_conv4 one_column".split()


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("files", nargs="*", type=Path, default=[ROOT / f"examples/paper/{n}.yaml" for n in PAPER], metavar="FILE")
    p.add_argument("--data", type=Path, metavar="DIR", help="the folder with train/ and val/ (default: what the files say)")
    p.add_argument("--seeds", default="1,2,3", help="seeds, separated by commas (default 1,2,3)")
    p.add_argument("--pipeline", type=Path, default=ROOT / "pipeline.bin", help="the program (default pipeline.bin)")
    p.add_argument("--rates", default="", help="learning rates to run each file with, separated by commas (default: what the files say)")
    p.add_argument("--right", type=float, default=0.75, help="fraction that the column passes tells of (default 0.75: an error of 25 %%)")
    p.add_argument("--threads", type=int, default=1, help="of computing, and workers that read images (default 1)")
    p.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="as pipeline's, for all runs")
    p.add_argument("--missing", action="store_true", help="leave out the runs that are whole")
    p.add_argument("--table", action="store_true", help="run nothing: the table of what is there")
    args = p.parse_args()
    try:
        args.seeds = [int(s) for s in args.seeds.split(",")]
    except ValueError:
        p.error(f"--seeds must be whole numbers separated by commas, is {args.seeds!r}")
    try:
        args.rates = [r for r in args.rates.split(",") if r and float(r) > 0]
    except ValueError:
        p.error(f"--rates must be numbers separated by commas, is {args.rates!r}")
    return args


def name_of(file):
    try:
        found = re.search(r"^name: *(\S+)", file.read_text(), re.MULTILINE)
    except OSError as err:
        sys.exit(f"{file}: {err.strerror}")
    if not found:
        sys.exit(f"{file} has no name: line, which says where the results go")
    return found[1]


def events(run):
    """The metrics of a whole run, or None where there is none."""
    try:
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    except (FileNotFoundError, json.JSONDecodeError):  # none yet, or killed while it wrote
        return None
    return lines if lines and lines[-1]["event"] == "done" else None


def variants(args):
    """What is run with each seed: its name, file and settings."""
    for file in args.files:
        name = name_of(file)
        if not args.rates:
            yield name, file, []
        for rate in args.rates:
            yield f"{name}-lr{rate}", file, [f"batches.train.solver.lr={rate}"]


def train(file, run, seed, more, args):
    settings = [f"seed={seed}", f"run.threads={args.threads}", f"run.workers={args.threads}", *more]
    if args.data:
        for place, part in (("source", "train"), ("validate.source", "val")):
            settings.append(f"{place}.image_folder.dir={args.data / part}")
    command = [args.pipeline, "run", file, "--quiet", "--name", run.name]
    for s in settings + args.set:
        command += ["--set", s]
    try:
        done = subprocess.run(command)
    except OSError as err:
        sys.exit(f"{args.pipeline}: {err.strerror}; build it with: go build -o pipeline.bin ./cmd/pipeline")
    if done.returncode:
        sys.exit(f"{run.name} failed")


def reached(lines, right):
    """Passes and seconds until the mean accuracy of five step metrics in a row, of ten steps each, is right."""
    per_pass = lines[-1]["step"] / (lines[-1]["epoch"] + 1)
    steps = [e for e in lines if e["event"] == "step"]
    for i in range(4, len(steps)):
        if statistics.mean(e["top1"] for e in steps[i - 4 : i + 1]) >= right:
            return steps[i]["step"] / per_pass, steps[i]["seconds"]
    return None


def spread(values, digits=1):
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {statistics.stdev(values) / len(values) ** 0.5:.{digits}f}"


def table(names, seeds, right):
    rows = []
    for name in names:
        runs = {s: lines for s in seeds if (lines := events(Path("runs") / f"{name}-{s}"))}
        rows.append((name, runs))
    base = rows[0][1]
    print("| run | seeds | top-1, % | against | top-5, % | passes | to there | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, runs in rows:
        if not runs:
            print(f"| {name} | none | | | | | | |")
            continue
        ends = {s: lines[-1] for s, lines in runs.items()}
        differences = [100 * (ends[s]["top1"] - base[s][-1]["top1"]) for s in ends if s in base]
        against = spread(differences) if differences and runs is not base else ""
        there = [reached(lines, right) for lines in runs.values()]
        until = ("never", "") if None in there else (spread([p for p, _ in there], 2), f"{statistics.mean(s for _, s in there):.0f}")
        cells = [
            name, len(runs), spread([100 * e["top1"] for e in ends.values()]), against,
            spread([100 * e["top5"] for e in ends.values()]), *until,
            f"{statistics.mean(e['seconds'] for e in ends.values()):.0f}",
        ]
        print("|", " | ".join(str(c) for c in cells), "|")


def main():
    args = parse()
    todo = list(variants(args))
    if not args.table:
        for seed in args.seeds:
            for name, file, more in todo:
                run = Path("runs") / f"{name}-{seed}"
                if not (args.missing and events(run)):
                    train(file, run, seed, more, args)
    table([name for name, _, _ in todo], args.seeds, args.right)


if __name__ == "__main__":
    main()
