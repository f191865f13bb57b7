#!/usr/bin/env python3
"""Write what random_resized_crop is compared with: the parts that torchvision's RandomResizedCrop draws, and its pixels.

    python3 -m venv --system-site-packages .venv    # with PyTorch 1.13 or later
    .venv/bin/pip install --no-deps torchvision==0.15.1 pillow==11.3.0
    .venv/bin/python scripts/goldens_torchvision.py

writes stages/testdata/torchvision/crops.json, how often each part came out of many draws, and
augment/testdata/torchvision/*.png, parts of goldens_pillow.py's picture scaled to a square.
"""

import collections
import json
import os

import torch
from goldens_pillow import picture
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as F

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
DRAWS = 400_000

# Width, height, scale, ratio, and the size of the cells that x, y, width and height are counted in. Small
# pictures are counted part by part; in the narrow ones ten draws often do not fit.
DISTRIBUTIONS = [
    (7, 5, (0.08, 1), (3 / 4, 4 / 3), 1),
    (12, 3, (0.3, 1), (3 / 4, 4 / 3), 1),
    (3, 11, (0.5, 1), (1 / 2, 1), 1),
    (500, 375, (0.08, 1), (3 / 4, 4 / 3), 100),
    (400, 400, (0.2, 0.6), (1 / 2, 3), 80),
]

# Name, which begins with the filter, width and height, then left, top, width and height of the part, and the side
# of the square.
PICTURES = [
    ("bilinear_reduced", 320, 240, 30, 17, 201, 178, 64),
    ("bilinear_wide", 320, 240, 3, 101, 300, 83, 64),
    ("bilinear_enlarged", 125, 94, 40, 50, 29, 37, 64),
    ("bilinear_corner", 125, 94, 61, 30, 64, 64, 48),
    ("bicubic_reduced", 320, 240, 30, 17, 201, 178, 64),
    ("lanczos_tall", 320, 240, 111, 2, 90, 230, 64),
]


def distribution(width, height, scale, ratio, cell):
    torch.manual_seed(1)
    image = torch.zeros(1, height, width)
    counts = collections.Counter()
    for _ in range(DRAWS):
        y, x, h, w = RandomResizedCrop.get_params(image, list(scale), list(ratio))
        counts[f"{x // cell},{y // cell},{w // cell},{h // cell}"] += 1
    return {
        "width": width, "height": height, "scale": scale, "ratio": ratio, "cell": cell, "draws": DRAWS,
        "counts": dict(sorted(counts.items())),
    }


def main():
    out = os.path.join(ROOT, "stages", "testdata", "torchvision")
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "crops.json"), "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(distribution(*d)) for d in DISTRIBUTIONS) + "\n]\n")
    out = os.path.join(ROOT, "augment", "testdata", "torchvision")
    os.makedirs(out, exist_ok=True)
    for name, width, height, x, y, w, h, size in PICTURES:
        filter_ = InterpolationMode(name.split("_")[0])
        F.resized_crop(picture("rgb", width, height, None), y, x, h, w, [size, size], filter_, antialias=True).save(
            os.path.join(out, name + ".png"), optimize=True
        )


if __name__ == "__main__":
    main()
