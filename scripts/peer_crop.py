#!/usr/bin/env python3
"""Time what others take from the bytes of a JPEG to a 224 x 224 crop in a batch: decode, shorter side to 256, a random
crop of the middle 256 x 256, flipped or not. One core; images a second, the best of some rounds.

    python3 -m venv .venv && .venv/bin/pip install opencv-python-headless pillow numpy
    .venv/bin/python scripts/peer_crop.py PHOTOS [ROUNDS]

Sluice on the same files, to compare in the same sitting:

    SLUICE_PHOTOS=PHOTOS go test ./stages -run xxx -bench Crop224 -cpu 1
"""

import io
import os
import random
import sys
import time

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[threads] = "1"

import cv2
import numpy as np
import PIL
from PIL import Image

cv2.setNumThreads(1)


def place(w, h):
    """The size to scale to, and the crop in it."""
    w, h = (256, 256 * h // w) if w <= h else (256 * w // h, 256)
    return w, h, (w - 256) // 2 + random.randrange(33), (h - 256) // 2 + random.randrange(33)


def opencv(data, out):
    """Its bilinear looks at four pixels, however much it reduces: it is fast, and it aliases."""
    img = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    w, h, x, y = place(img.shape[1], img.shape[0])
    img = cv2.resize(img, (w, h), interpolation=cv2.INTER_LINEAR)[y : y + 224, x : x + 224, ::-1]
    out[:] = img[:, ::-1] if random.random() < 0.5 else img


def pillow(data, out):
    """Antialiased; as Sluice, it computes the crop alone."""
    img = Image.open(io.BytesIO(data)).convert("RGB")
    w, h, x, y = place(*img.size)
    sx, sy = img.width / w, img.height / h
    img = img.resize((224, 224), Image.Resampling.BILINEAR, box=(x * sx, y * sy, (x + 224) * sx, (y + 224) * sy))
    if random.random() < 0.5:
        img = img.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    out[:] = np.asarray(img)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    files = []
    for folder, _, names in os.walk(sys.argv[1]):
        for name in names:
            with open(os.path.join(folder, name), "rb") as f:
                data = f.read()
            if data[:2] == b"\xff\xd8":
                files.append(data)
    if not files:
        sys.exit(f"{sys.argv[1]} has no JPEG")
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    batch = np.empty((128, 224, 224, 3), np.uint8)
    peers = ((f"OpenCV {cv2.__version__}", opencv), (f"Pillow {PIL.__version__}", pillow))
    best = {name: float("inf") for name, _ in peers}
    for _ in range(rounds):
        for name, peer in peers:
            begin = time.process_time()
            for i, data in enumerate(files):
                peer(data, batch[i % len(batch)])
            best[name] = min(best[name], time.process_time() - begin)
    for name, seconds in best.items():
        print(f"{name}: {len(files) / seconds:.0f} images/s  ({len(files)} files, CPU time of one core, best of {rounds})")


if __name__ == "__main__":
    main()
