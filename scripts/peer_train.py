#!/usr/bin/env python3
"""Trains in PyTorch by the recipes of examples/paper/peer.yaml and peer_alexnet.yaml.

    python3 scripts/peer_train.py --data DIR [--seeds 1,2,3]
    python3 scripts/peer_train.py --data DIR --net alexnet --seeds 1 --steps 100

DIR has train/ and val/ with a sub-folder a class. Network, initial values,
preprocessing, batch and solver are those of the YAML; only the random numbers are
others, so the order of the images, too. Metrics are written as Sluice writes them, to
runs/paper-peer-torch-SEED/metrics.jsonl (or paper-peer-alexnet-torch-SEED), so that
scripts/experiments.py --table and scripts/curves.py take both.

It needs PyTorch 1.13 or later, numpy and Pillow (apt-get install python3-torch
python3-pil).
"""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path

try:
    import numpy as np
    import torch
    from PIL import Image
    from torch import nn
except ImportError as err:
    sys.exit(f"{err}: apt-get install python3-torch python3-pil")

MEAN = (123.68, 116.78, 103.94)  # of ImageNet, as mean: imagenet
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])  # of its colours, on 0..1
EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
SUFFIXES = {".jpg", ".jpeg", ".png"}


def weights(layer, std=None, bias=0.0):
    """Normal weights: He's rule before a ReLU, unless std is given."""
    fan_in = layer.weight[0].numel()
    nn.init.normal_(layer.weight, 0, math.sqrt(2 / fan_in) if std is None else std)
    nn.init.constant_(layer.bias, bias)
    return layer


def alexnet_small(classes):
    pool = lambda: nn.MaxPool2d(3, 2, ceil_mode=True)
    conv = lambda i, o, size, stride: weights(nn.Conv2d(i, o, size, stride, size // 2))
    return nn.Sequential(
        conv(3, 16, 5, 2), nn.ReLU(), pool(),
        conv(16, 32, 3, 1), nn.ReLU(), pool(),
        conv(32, 48, 3, 1), nn.ReLU(), pool(),
        nn.Flatten(),
        weights(nn.Linear(768, 96)), nn.ReLU(), nn.Dropout(0.25),
        weights(nn.Linear(96, classes), std=0.01),
    )


def alexnet(classes):
    norm = lambda: nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)  # PyTorch divides alpha by 5
    pool = lambda: nn.MaxPool2d(3, 2)
    conv = lambda i, o, size, bias=0.0, **kw: weights(nn.Conv2d(i, o, size, **kw), 0.01, bias)
    dense = lambda i, o, bias: weights(nn.Linear(i, o), 0.01, bias)
    return nn.Sequential(
        nn.ZeroPad2d((0, 3, 0, 3)),  # 224 to 227, at the right and bottom
        conv(3, 96, 11, stride=4), nn.ReLU(), norm(), pool(),
        conv(96, 256, 5, 0.1, padding=2, groups=2), nn.ReLU(), norm(), pool(),
        conv(256, 384, 3, padding=1), nn.ReLU(),
        conv(384, 384, 3, 0.1, padding=1, groups=2), nn.ReLU(),
        conv(384, 256, 3, 0.1, padding=1, groups=2), nn.ReLU(), pool(),
        nn.Flatten(),
        dense(9216, 4096, 0.1), nn.ReLU(), nn.Dropout(0.5),
        dense(4096, 4096, 0.1), nn.ReLU(), nn.Dropout(0.5),
        dense(4096, classes, 0.0),
    )


RECIPES = {
    "alexnet_small": dict(
        name="paper-peer-torch", build=alexnet_small, resize=72, crop=64, scale=1 / 58,
        batch=64, epochs=6, lr=0.02, cosine=True, log_every=10, validate=True,
    ),
    "alexnet": dict(
        name="paper-peer-alexnet-torch", build=alexnet, resize=256, crop=224, scale=1.0,
        batch=32, epochs=1, lr=0.01, cosine=False, log_every=1, validate=False,
    ),
}


class Images:
    """The images of a folder of class sub-folders, resized as Pillow does, and kept where they are small."""

    def __init__(self, folder, side):
        classes = sorted(d.name for d in folder.iterdir() if d.is_dir()) if folder.is_dir() else []
        self.files = [(f, i) for i, c in enumerate(classes) for f in sorted((folder / c).iterdir()) if f.suffix.lower() in SUFFIXES]
        if not self.files:
            sys.exit(f"{folder} has no sub-folders with images")
        self.classes, self.side, self.kept = len(classes), side, {}
        self.labels = np.array([label for _, label in self.files])

    def __getitem__(self, i):
        if i in self.kept:
            return self.kept[i]
        with Image.open(self.files[i][0]) as picture:
            w, h = picture.size
            size = (w * self.side // min(w, h), h * self.side // min(w, h))
            pixels = np.asarray(picture.convert("RGB").resize(size, Image.BILINEAR))
        if self.side <= 128:
            self.kept[i] = pixels
        return pixels

    def batch(self, indices, crop, scale, rng):
        """N x 3 x crop x crop floats: at random places, mirrored and shifted by rng, or the middle where it is None."""
        out = np.empty((len(indices), crop, crop, 3), np.float32)
        for n, i in enumerate(indices):
            pixels = self[i]
            room = np.array(pixels.shape[:2]) - crop
            y, x = room // 2 if rng is None else rng.integers(0, room + 1)
            patch = pixels[y : y + crop, x : x + crop]
            if rng is not None and rng.integers(2):
                patch = patch[:, ::-1]
            shift = 0 if rng is None else 255 * EIGENVECTORS @ (rng.normal(0, 0.1, 3) * EIGENVALUES)
            out[n] = (patch - np.array(MEAN) + shift) * scale
        return torch.from_numpy(out.transpose(0, 3, 1, 2).copy()), torch.from_numpy(self.labels[indices])


def right(logits, labels, k):
    return (logits.topk(k).indices == labels[:, None]).any(1).float().mean().item()


def validate(model, images, recipe):
    model.eval()
    sums = np.zeros(3)
    with torch.no_grad():
        for at in range(0, len(images.files), 256):
            x, labels = images.batch(np.arange(at, min(at + 256, len(images.files))), recipe["crop"], recipe["scale"], None)
            logits = model(x)
            sums += len(x) * np.array([nn.functional.cross_entropy(logits, labels).item(), right(logits, labels, 1), right(logits, labels, 5)])
    model.train()
    return dict(zip(("loss", "top1", "top5"), sums / len(images.files)))


def train(recipe, images, held_out, seed, steps, file):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = recipe["build"](images.classes)
    solver = torch.optim.SGD(model.parameters(), lr=recipe["lr"], momentum=0.9, weight_decay=0.0005)
    per_epoch = len(images.files) // recipe["batch"]  # a short last batch is dropped
    if not per_epoch:
        sys.exit(f"{len(images.files)} images do not fill a batch of {recipe['batch']}")
    total = recipe["epochs"] * per_epoch
    began, window, last = time.perf_counter(), [], {}

    def tell(event, **values):
        record = dict(event=event, epoch=epoch, step=step, **values, lr=lr, seconds=time.perf_counter() - began)
        file.write(json.dumps(record) + "\n")
        file.flush()

    for step in range(1, min(steps or total, total) + 1):
        epoch, place = divmod(step - 1, per_epoch)
        if place == 0:
            order = rng.permutation(len(images.files))
        lr = recipe["lr"] * ((1 + math.cos(math.pi * (step - 1) / total)) / 2 if recipe["cosine"] else 1)
        solver.param_groups[0]["lr"] = lr
        x, labels = images.batch(order[place * recipe["batch"] :][: recipe["batch"]], recipe["crop"], recipe["scale"], rng)
        solver.zero_grad()
        logits = model(x)
        loss = nn.functional.cross_entropy(logits, labels)
        loss.backward()
        solver.step()
        window.append((loss.item(), right(logits, labels, 1), right(logits, labels, 5)))
        if not math.isfinite(window[-1][0]):
            sys.exit(f"the loss is {window[-1][0]} in step {step}")
        if len(window) == recipe["log_every"] or place == per_epoch - 1:
            last = dict(zip(("loss", "top1", "top5"), np.mean(window, 0)))
            tell("step", **last)
            window = []
        if recipe["validate"] and place == per_epoch - 1:
            last = validate(model, held_out, recipe)
            tell("validation", **last)
    tell("done", **last)
    return last


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, metavar="DIR", help="the folder with train/ and val/")
    p.add_argument("--net", choices=RECIPES, default="alexnet_small")
    p.add_argument("--seeds", default="1,2,3", help="seeds, separated by commas (default 1,2,3)")
    p.add_argument("--steps", type=int, default=0, help="end after so many")
    p.add_argument("--threads", type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    recipe = RECIPES[args.net]
    images = Images(args.data / "train", recipe["resize"])
    held_out = Images(args.data / "val", recipe["resize"]) if recipe["validate"] else None
    for seed in map(int, args.seeds.split(",")):
        folder = Path("runs") / f"{recipe['name']}-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / "metrics.jsonl.part"
        with temporary.open("w") as file:
            last = train(recipe, images, held_out, seed, args.steps, file)
        os.replace(temporary, folder / "metrics.jsonl")
        print(f"{folder}: loss {last['loss']:.3f}, top-1 {100 * last['top1']:.1f} %", flush=True)


if __name__ == "__main__":
    main()
