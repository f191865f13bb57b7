#!/usr/bin/env python3
"""Trains in PyTorch by the recipes of examples/paper/peer.yaml and peer_alexnet.yaml.

    python3 scripts/peer_train.py --data DIR [--seeds 1,2,3]
    python3 scripts/peer_train.py --data DIR --net alexnet --seeds 1 --steps 100

DIR has train/ and val/ with a sub-folder a class. Network, preprocessing, batch and
solver are those of the YAML, and the initial weights and dropout of a seed are Sluice's
own, which are functions of the seed, of names and of numbers (net/philox.go). The order
of the images and their crops are other ones.

With --beside they are Sluice's too: the program is then the stage exec of a run
(examples/paper/peer_beside.yaml, peer_alexnet_beside.yaml), trains on each batch before
it hands it on, and differs from the run in nothing but its arithmetic. What the network
sees in a validation is read by Pillow either way.

Metrics are written as Sluice writes them, to runs/NAME-SEED/metrics.jsonl, NAME being
paper-peer-torch or paper-peer-alexnet-torch, and -beside after it where it was, so that
scripts/experiments.py --table and scripts/curves.py take both.

It needs PyTorch 1.13 or later, numpy and Pillow (apt-get install python3-torch
python3-pil), and pyarrow for --beside.
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

from peer_pytorch import lrn

MEAN = np.array([123.68, 116.78, 103.94], np.float32)  # of ImageNet, as mean: imagenet
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])  # of its colours, on 0..1
EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
SUFFIXES = {".jpg", ".jpeg", ".png"}
INITIAL = 2**64 - 1  # the step of initial weights


def fnv32a(name):
    h = 2166136261
    for byte in name.encode():
        h = (h ^ byte) * 16777619 % 2**32
    return h


def words(count, name, seed, step):
    """The first words of the random stream of that name: Philox 4x32-10, as net/philox.go."""
    low = np.uint64(2**32 - 1)
    half = np.uint64(32)
    c0 = np.arange((count + 3) // 4, dtype=np.uint64)
    c1, c2, c3 = (np.full_like(c0, v) for v in (fnv32a(name), step % 2**32, step >> 32))
    k0, k1 = seed % 2**32, seed >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = p1 >> half ^ c1 ^ np.uint64(k0), p1 & low, p0 >> half ^ c3 ^ np.uint64(k1), p0 & low
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return np.stack((c0, c1, c2, c3), 1).reshape(-1)[:count]


def normal(count, name, seed):
    """Standard normal numbers by Box and Muller, two of each two words, as net/init.go."""
    w = words((count + 3) // 4 * 4, name, seed, INITIAL).reshape(-1, 2)
    radius, angle = np.sqrt(-2 * np.log((w[:, 0] + 1.0) / 2**32)), 2 * np.pi * w[:, 1] / 2**32
    return np.stack((radius * np.cos(angle), radius * np.sin(angle)), 1).reshape(-1)[:count]


class Dropout(nn.Module):
    """Inverted dropout that drops what Sluice drops."""

    def __init__(self, name, rate, seed):
        super().__init__()
        self.name, self.keep, self.seed, self.step = name, np.float32(1 - rate), seed, 0

    def forward(self, x):
        if not self.training:
            return x
        kept = words(x.numel(), self.name, self.seed, self.step) < np.uint64(float(self.keep) * 2**32)
        self.step += 1
        return x * torch.from_numpy(np.where(kept, np.float32(1) / self.keep, np.float32(0))).view_as(x)


def init(name, layer, seed, std=None, bias=0.0):
    """Normal weights: He's rule before a ReLU, unless std is given."""
    fan_in = layer.weight[0].numel()
    std = np.float32(math.sqrt(2 / fan_in) if std is None else std)
    values = (normal(layer.weight.numel(), name + ".weight", seed) * float(std)).astype(np.float32)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(values).view_as(layer.weight))
        layer.bias.fill_(bias)
    return layer


def alexnet_small(classes, seed):
    pool = lambda: nn.MaxPool2d(3, 2, ceil_mode=True)
    conv = lambda name, i, o, size, stride: init(name, nn.Conv2d(i, o, size, stride, size // 2), seed)
    return nn.Sequential(
        conv("conv1", 3, 16, 5, 2), nn.ReLU(), pool(),
        conv("conv2", 16, 32, 3, 1), nn.ReLU(), pool(),
        conv("conv3", 32, 48, 3, 1), nn.ReLU(), pool(),
        nn.Flatten(),
        init("fc4", nn.Linear(768, 96), seed), nn.ReLU(), Dropout("drop4", 0.25, seed),
        init("fc5", nn.Linear(96, classes), seed, std=0.01),
    )


def alexnet(classes, seed):
    pool = lambda: nn.MaxPool2d(3, 2)
    conv = lambda name, i, o, size, bias=0.0, **kw: init(name, nn.Conv2d(i, o, size, **kw), seed, 0.01, bias)
    dense = lambda name, i, o, bias: init(name, nn.Linear(i, o), seed, 0.01, bias)
    return nn.Sequential(
        nn.ZeroPad2d((0, 3, 0, 3)),  # 224 to 227, at the right and bottom
        conv("conv1", 3, 96, 11, stride=4), nn.ReLU(), lrn(nn, torch, 96, as_convolution=True), pool(),
        conv("conv2", 96, 256, 5, 0.1, padding=2, groups=2), nn.ReLU(), lrn(nn, torch, 256, as_convolution=True), pool(),
        conv("conv3", 256, 384, 3, padding=1), nn.ReLU(),
        conv("conv4", 384, 384, 3, 0.1, padding=1, groups=2), nn.ReLU(),
        conv("conv5", 384, 256, 3, 0.1, padding=1, groups=2), nn.ReLU(), pool(),
        nn.Flatten(),
        dense("fc6", 9216, 4096, 0.1), nn.ReLU(), Dropout("drop6", 0.5, seed),
        dense("fc7", 4096, 4096, 0.1), nn.ReLU(), Dropout("drop7", 0.5, seed),
        dense("fc8", 4096, classes, 0.0),
    )


RECIPES = {
    "alexnet_small": dict(
        name="paper-peer-torch", build=alexnet_small, resize=72, crop=64, scale=1 / 58,
        batch=64, epochs=6, lr=0.02, cosine=True, log_every=10, validate=True,
    ),
    "alexnet": dict(
        name="paper-peer-alexnet-torch", build=alexnet, resize=256, crop=224, scale=1.0,
        batch=64, epochs=2, lr=0.01, cosine=False, log_every=1, validate=False,
    ),
}


def tensor(pixels, shift, scale):
    """N x 3 x H x W floats of N x H x W x 3 pixels and N x 3 shifts of their colours, in levels."""
    out = (pixels - MEAN + shift[:, None, None, :].astype(np.float32)) * np.float32(scale)
    return torch.from_numpy(out.transpose(0, 3, 1, 2))  # channels last in memory, which is the faster


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

    def batch(self, indices, recipe, rng):
        """Floats and labels: at random places, mirrored and shifted by rng, or the middle where it is None."""
        crop = recipe["crop"]
        out, shift = np.empty((len(indices), crop, crop, 3), np.float32), np.zeros((len(indices), 3))
        for n, i in enumerate(indices):
            pixels = self[i]
            room = np.array(pixels.shape[:2]) - crop
            y, x = room // 2 if rng is None else rng.integers(0, room + 1)
            out[n] = pixels[y : y + crop, x : x + crop]
            if rng is not None:
                if rng.integers(2):
                    out[n] = out[n, :, ::-1].copy()
                shift[n] = 255 * EIGENVECTORS @ (rng.normal(0, 0.1, 3) * EIGENVALUES)
        return tensor(out, shift, recipe["scale"]), torch.from_numpy(self.labels[indices])


def shuffled(images, recipe, seed):
    """The batches of a training, without end."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(images.files))
        for at in range(0, len(order) - recipe["batch"] + 1, recipe["batch"]):  # a short last batch is dropped
            yield images.batch(order[at : at + recipe["batch"]], recipe, rng)


def handed_on(recipe):
    """The batches of the Sluice that started this program, which gets each back when the next is asked for."""
    try:
        import pyarrow
    except ImportError as err:
        sys.exit(f"{err}: pip install pyarrow")
    batches, out = pyarrow.ipc.open_stream(sys.stdin.buffer), sys.stdout.buffer
    out.write(batches.schema.serialize())
    out.flush()

    def numbers(batch, name):
        column = batch.column(name)
        return getattr(column, "storage", column).flatten().to_numpy().reshape(len(batch), -1)

    side = recipe["crop"]
    for batch in batches:
        pixels = numbers(batch, "image").reshape(len(batch), side, side, 3)
        labels = batch.column("label").to_numpy().astype(np.int64)
        yield tensor(pixels, numbers(batch, "shift"), recipe["scale"]), torch.from_numpy(labels)
        out.write(batch.serialize())
        out.flush()


def right(logits, labels, k):
    return (logits.topk(k).indices == labels[:, None]).any(1).float().mean().item()


def validate(model, images, recipe):
    model.eval()
    sums = np.zeros(3)
    with torch.no_grad():
        for at in range(0, len(images.files), 256):
            x, labels = images.batch(np.arange(at, min(at + 256, len(images.files))), recipe, None)
            logits = model(x)
            sums += len(x) * np.array([nn.functional.cross_entropy(logits, labels).item(), right(logits, labels, 1), right(logits, labels, 5)])
    model.train()
    return dict(zip(("loss", "top1", "top5"), sums / len(images.files)))


def train(recipe, batches, images, held_out, seed, steps, file):
    """Trains, with a line a metric in the file, until steps or the recipe end; the last metrics."""
    per_epoch = len(images.files) // recipe["batch"]
    if not per_epoch:
        sys.exit(f"{len(images.files)} images do not fill a batch of {recipe['batch']}")
    total = recipe["epochs"] * per_epoch
    began, window, last = time.perf_counter(), [], {}
    model = recipe["build"](images.classes, seed).to(memory_format=torch.channels_last)
    solver = torch.optim.SGD(model.parameters(), lr=recipe["lr"], momentum=0.9, weight_decay=0.0005)

    def tell(event, **values):
        record = dict(event=event, epoch=epoch, step=step, **values, lr=lr, seconds=time.perf_counter() - began)
        file.write(json.dumps(record) + "\n")
        file.flush()

    for step in range(1, min(steps or total, total) + 1):
        epoch, place = divmod(step - 1, per_epoch)
        lr = recipe["lr"] * ((1 + math.cos(math.pi * (step - 1) / total)) / 2 if recipe["cosine"] else 1)
        solver.param_groups[0]["lr"] = lr
        batch = next(batches, None)
        if batch is None:
            sys.exit(f"the batches ended after step {step - 1} of {min(steps or total, total)}: give --steps the steps of the run, and the recipe its batch size")
        x, labels = batch
        if len(x) != recipe["batch"]:
            sys.exit(f"a batch has {len(x)} images, and the recipe {recipe['batch']}")
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
    p.add_argument("--beside", action="store_true", help="as a stage of a run, on its batches; --seeds is its seed")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    recipe = RECIPES[args.net]
    try:
        seeds = [int(s) for s in args.seeds.split(",")]
    except ValueError:
        p.error(f"--seeds must be whole numbers separated by commas, is {args.seeds!r}")
    images = Images(args.data / "train", recipe["resize"])
    held_out = Images(args.data / "val", recipe["resize"]) if recipe["validate"] else None

    def run(seed, batches, name):
        folder = Path("runs") / f"{name}-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / "metrics.jsonl.part"
        with temporary.open("w") as file:
            last = train(recipe, batches, images, held_out, seed, args.steps, file)
        os.replace(temporary, folder / "metrics.jsonl")
        print(f"{folder}: loss {last['loss']:.3f}, top-1 {100 * last['top1']:.1f} %", file=sys.stderr, flush=True)

    if not args.beside:
        for seed in seeds:
            run(seed, shuffled(images, recipe, seed), recipe["name"])
        return
    if len(seeds) != 1:
        p.error("--beside wants --seeds with one, the run's")
    batches = handed_on(recipe)
    first = next(batches, None)
    if first is None:  # the program was only asked for its schema
        return
    run(seeds[0], (b for part in ([first], batches) for b in part), recipe["name"] + "-beside")
    for _ in batches:  # Sluice reads ahead of its last step
        pass


if __name__ == "__main__":
    main()
