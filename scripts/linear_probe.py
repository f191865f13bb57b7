"""Tells how well a linear classifier separates the classes of a folder of features.

    python3 linear_probe.py runs/squeezenet/features [--column fire9] [--folds 5] [--repeats 5]

Needs numpy. The features must be of the format npy and have labels: a run on an
image_folder. The classifier is softmax regression on features scaled to mean 0 and
deviation 1 (by the training part alone), trained on all folds but one and tested on
that, each fold once; folds have the same share of every class. The last line printed
is the mean accuracy, with its standard error over the folds.
"""

import argparse
import json
import os

import numpy as np


def read(folder, column):
    with open(os.path.join(folder, "manifest.json")) as f:
        manifest = json.load(f)
    if manifest["format"] != "npy":
        raise SystemExit(f"{folder}: the parts are {manifest['format']}; extract again with features: {{format: npy}}")
    if not manifest["complete"]:
        raise SystemExit(f"{folder}: is not complete; go on with run --resume")
    lists = [c["name"] for c in manifest["columns"] if c["type"].startswith("fixed_size_list") and not c["name"].startswith("top_")]
    column = column or lists[0]
    if column not in lists:
        raise SystemExit(f"{folder}: has no column {column}, only {', '.join(lists)}")
    features, labels = [], []
    for part in range(len(manifest["parts"])):
        path = os.path.join(folder, f"part-{part:05d}")
        features.append(np.load(os.path.join(path, column + ".npy")))
        labels.append(np.load(os.path.join(path, "label.npy")))
    names = json.loads(manifest["metadata"].get("labels", "[]"))
    return column, np.concatenate(features).astype(np.float64), np.concatenate(labels), names


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def train(x, y, classes, decay=1e-2, steps=500, rate=0.5):
    """Softmax regression by gradient descent with momentum."""
    w, v = np.zeros((x.shape[1] + 1, classes)), 0
    x = np.c_[x, np.ones(len(x))] / np.sqrt(x.shape[1])
    hot = np.eye(classes)[y]
    for _ in range(steps):
        g = x.T @ (softmax(x @ w) - hot) / len(x) + decay * w / x.shape[1]
        v = 0.9 * v - rate * g
        w = w + v
    return lambda t: (np.c_[t, np.ones(len(t))] / np.sqrt(t.shape[1]) @ w).argmax(1)


def folds_of(labels, count, rng):
    fold = np.empty(len(labels), int)
    for c in np.unique(labels):
        at = rng.permutation(np.flatnonzero(labels == c))
        fold[at] = np.arange(len(at)) % count
    return fold


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("folder")
    p.add_argument("--column")
    p.add_argument("--folds", type=int, default=5)
    p.add_argument("--repeats", type=int, default=5)
    a = p.parse_args()
    column, x, labels, names = read(a.folder, a.column)
    known, y = np.unique(labels, return_inverse=True)
    if len(known) < 2 or known[0] < 0:
        raise SystemExit(f"{a.folder}: a classifier needs images of two classes or more, all with labels")
    scores, right = [], np.zeros((a.repeats, len(y)), bool)
    for i in range(a.repeats):
        fold = folds_of(y, a.folds, np.random.default_rng(i))
        for k in range(a.folds):
            rest, test = fold != k, fold == k
            mean, deviation = x[rest].mean(0), x[rest].std(0) + 1e-6
            predict = train((x[rest] - mean) / deviation, y[rest], len(known))
            right[i, test] = predict((x[test] - mean) / deviation) == y[test]
        scores.append(right[i].mean())
    print(f"{len(x)} images, {x.shape[1]} features of {column}, {a.folds} folds, {a.repeats} times")
    for i, c in enumerate(known):
        print(f"  {names[c] if 0 <= c < len(names) else c}: {100 * right[:, y == i].mean():.1f} %")
    print(f"accuracy {100 * np.mean(scores):.1f} % (standard deviation {100 * np.std(scores):.1f})")


main()
