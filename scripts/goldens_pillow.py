#!/usr/bin/env python3
"""Write the pictures that augment's resampler is compared with, made by Pillow.

    python3 -m venv .venv && .venv/bin/pip install pillow==11.3.0
    .venv/bin/python scripts/goldens_pillow.py

writes augment/testdata/pillow/*.png. The pictures that they are scaled from are a formula, which
augment/pillow_test.go has too.
"""

import os

from PIL import Image

# name (which begins with the filter, where that is not bilinear), kind, width and height, width and height scaled
# to, then left, top, right and bottom of the part kept
CASES = [
    ("reduced", "rgb", 125, 94, 85, 64, None),
    ("crop_of_256", "rgb", 500, 375, 341, 256, (131, 97, 195, 161)),
    ("halved", "rgb", 128, 96, 64, 48, None),
    ("enlarged", "rgb", 40, 30, 67, 51, None),
    ("stretched", "rgb", 90, 50, 40, 75, None),
    ("tenth", "rgb", 640, 480, 64, 48, None),
    ("gray", "gray", 125, 94, 85, 64, None),
    ("planes_444", "ycbcr444", 125, 94, 85, 64, None),
    ("planes_420", "ycbcr420", 126, 94, 85, 64, None),
    ("bicubic_reduced", "rgb", 125, 94, 85, 64, None),
    ("bicubic_enlarged", "rgb", 40, 30, 67, 51, None),
    ("bicubic_planes_420", "ycbcr420", 126, 94, 85, 64, None),
    ("lanczos_reduced", "rgb", 125, 94, 85, 64, None),
    ("lanczos_enlarged", "rgb", 40, 30, 67, 51, None),
    ("lanczos_crop_of_256", "rgb", 500, 375, 341, 256, (131, 97, 195, 161)),
]


def triangle(t, period):
    """A wave between 0 and 255."""
    return abs(t % (2 * period) - period) * 255 // period


def sample(x, y, c, w, h):
    """Channel c of the picture of w x h pixels at (x, y): waves, an edge and a little noise."""
    x, y = x * 400 // w, y * 300 // h
    wave = triangle(3 * x + 2 * y + 50 * c, 150 + 40 * c) + triangle(x - 2 * y + 90 * c, 110)
    edge = 40 if (x - 200) ** 2 + (y - 150) ** 2 < 90**2 else 0
    noise = ((x * 73856093 ^ y * 19349663 ^ c * 83492791) & 0xFFFFFFFF) >> 7 & 7
    return min(255, wave * 2 // 5 + edge + noise)


def plane(w, h, c):
    return Image.frombytes("L", (w, h), bytes(sample(x, y, c, w, h) for y in range(h) for x in range(w)))


def luma(x, y, w, h):
    """Y of a picture of planes, at a contrast that leaves every colour inside RGB."""
    return 64 + sample(x, y, 0, w, h) // 2


def chroma(x, y, c, w, h):
    """Cb (c = 1) and Cr (2), smooth as those of photographs: here they are scaled twice, in augment once."""
    x, y = x * 400 // w, y * 300 // h
    return 96 + (triangle(2 * x + y, 170 + 80 * c) + triangle(y + 40 * c, 210)) // 8


def rgb(y, cb, cr):
    """JFIF's conversion, rounded; Pillow's own cuts fractions off."""
    cb, cr = cb - 128, cr - 128
    return tuple(int(v + 0.5) for v in (y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb))


def filter_of(name):
    return getattr(Image.Resampling, name.split("_")[0].upper(), Image.Resampling.BILINEAR)


def picture(kind, w, h, chroma_filter):
    if kind == "gray":
        return plane(w, h, 0)
    if kind == "rgb":
        return Image.merge("RGB", [plane(w, h, c) for c in range(3)])
    every = 2 if kind == "ycbcr420" else 1
    cw, ch = w // every, h // every
    planes = [[luma(x, y, w, h) for y in range(h) for x in range(w)]]
    for c in (1, 2):
        small = Image.new("F", (cw, ch))
        small.putdata([float(chroma(x, y, c, cw, ch)) for y in range(ch) for x in range(cw)])
        # Chroma lies in the middle of the pixels it stands for, as in JFIF.
        planes.append(small.resize((w, h), chroma_filter).getdata())
    return Image.frombytes("RGB", (w, h), bytes(v for pixel in zip(*planes) for v in rgb(*pixel)))


def main():
    out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "augment", "testdata", "pillow")
    os.makedirs(out, exist_ok=True)
    for name, kind, w, h, w2, h2, kept in CASES:
        scaled = picture(kind, w, h, filter_of(name)).resize((w2, h2), filter_of(name))
        if kept:
            scaled = scaled.crop(kept)
        scaled.save(os.path.join(out, name + ".png"), optimize=True)


if __name__ == "__main__":
    main()
