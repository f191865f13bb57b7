"""Makes golden.safetensors: training steps of a shrunken AlexNet by PyTorch.

    python3 golden.py golden.safetensors

Needs torch; written with 1.13.1. Everything is computed in float64 and stored
as float32. The network is the one of golden.go; nothing here is shared with the
Go code, not even Philox and the safetensors writer, so that a mistake shows.

What is stored:
    conv1.weight ...            the weights at the start
    images, shift, labels       two batches of four: pixels (0..255, N H W C), PCA shift
    logits                      of batch 0 at the start, without dropout
    gradient.conv1.weight ...   of batch 0 at the start, with the dropout of step 0
    losses                      of ten steps, batches 0, 1, 0, 1 ..., before each update
    final.conv1.weight ...      the weights after the ten steps
    momentum.conv1.weight ...   and the momentum
"""

import json
import struct
import sys

import torch
import torch.nn.functional as F

SEED, BATCHES, N, SIDE, CLASSES, STEPS = 2012, 2, 4, 29, 5, 10
MEAN, SCALE, PAD = (120.0, 110.0, 100.0), 1 / 64, 2  # padded right and bottom
RATE = {"drop6": 0.5, "drop7": 0.25}
MOMENTUM, DECAY = 0.9, 0.0005

# name: shape of the weight
SHAPES = {
    "conv1": (8, 3, 7, 7),
    "conv2": (12, 4, 5, 5),
    "conv3": (16, 12, 3, 3),
    "conv4": (16, 8, 3, 3),
    "conv5": (12, 8, 3, 3),
    "fc6": (24, 48),
    "fc7": (24, 24),
    "fc8": (CLASSES, 24),
}


def learning_rate(step):
    return 0.02 if step < 5 else 0.002


def multipliers(name):
    """Of learning rate and decay: conv2 learns as in Caffe."""
    return (2, 0) if name == "conv2.bias" else (1, 1)


def philox(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def fnv1a(text):
    h = 0x811C9DC5
    for byte in text.encode():
        h = ((h ^ byte) * 0x01000193) & 0xFFFFFFFF
    return h


def dropout(x, name, step):
    """The mask of element i in NCHW order is word i%4 of Philox block i//4."""
    keep = 1 - RATE[name]
    words = []
    for block in range((x.numel() + 3) // 4):
        words += philox((block, fnv1a(name), step, 0), (SEED, 0))
    mask = [float(w < int(keep * 2**32)) / keep for w in words[: x.numel()]]
    return x * torch.tensor(mask, dtype=x.dtype).reshape(x.shape)


def lrn(x):
    """The paper's alpha is a term's; PyTorch's is divided by the size."""
    return F.local_response_norm(x, size=5, alpha=0.05 * 5, beta=0.75, k=2.0)


def forward(w, x, step=None):
    def conv(name, x, **options):
        return F.relu(F.conv2d(x, w[name + ".weight"], w[name + ".bias"], **options))

    def dense(name, x):
        return F.linear(x, w[name + ".weight"], w[name + ".bias"])

    def drop(name, x):
        return x if step is None else dropout(x, name, step)

    x = F.max_pool2d(lrn(conv("conv1", x, stride=2)), 3, 2)
    x = F.max_pool2d(lrn(conv("conv2", x, padding=2, groups=2)), 3, 2, ceil_mode=True)
    x = conv("conv3", x, padding=1)
    x = conv("conv4", x, padding=1, groups=2)
    x = conv("conv5", x, padding=1, groups=2)
    x = F.max_pool2d(x, 3, 2, padding=1, ceil_mode=True)
    x = drop("drop6", F.relu(dense("fc6", x.flatten(1))))
    x = drop("drop7", F.relu(dense("fc7", x)))
    return dense("fc8", x)


def write(path, tensors, metadata):
    header, data = {"__metadata__": metadata}, b""
    for name, t in tensors.items():
        raw = struct.pack("<%df" % t.numel(), *t.detach().flatten().tolist())
        header[name] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def main(path):
    torch.manual_seed(1)
    single = lambda t: t.float().double()  # what float32 holds of it
    weights = {}
    for name, shape in SHAPES.items():
        inputs = torch.Size(shape[1:]).numel()
        weights[name + ".weight"] = single(torch.randn(shape).double() * (2 / inputs) ** 0.5)
        weights[name + ".bias"] = single(torch.randn(shape[0]).double() * 0.1)
    images = torch.randint(0, 256, (BATCHES, N, SIDE, SIDE, 3)).double()
    # Something to see, so that the pictures differ by more than noise.
    images = (images * 0.5 + 100 * torch.rand(BATCHES, N, 1, 1, 3).double()).floor()
    shift = single(torch.randn(BATCHES, N, 3).double() * 4)
    labels = torch.randint(0, CLASSES, (BATCHES, N))
    out = dict(weights, images=images, shift=shift, labels=labels.double())

    x = (images + shift[:, :, None, None, :] - torch.tensor(MEAN).double()) * single(torch.tensor(SCALE))
    x = F.pad(x.permute(0, 1, 4, 2, 3), (0, PAD, 0, PAD))

    out["logits"] = forward(weights, x[0])
    velocity = {name: torch.zeros_like(w) for name, w in weights.items()}
    losses = []
    for step in range(STEPS):
        for w in weights.values():
            w.requires_grad_(True)
        loss = F.cross_entropy(forward(weights, x[step % BATCHES], step), labels[step % BATCHES])
        gradients = dict(zip(weights, torch.autograd.grad(loss, list(weights.values()))))
        losses.append(loss.item())
        if step == 0:
            out.update({"gradient." + name: g for name, g in gradients.items()})
        for name, w in weights.items():
            lr, decay = multipliers(name)
            lr, decay = lr * learning_rate(step), decay * DECAY
            w = w.detach()
            velocity[name] = MOMENTUM * velocity[name] - decay * lr * w - lr * gradients[name]
            weights[name] = w + velocity[name]
    out["losses"] = torch.tensor(losses).double()
    out.update({"final." + name: w for name, w in weights.items()})
    out.update({"momentum." + name: v for name, v in velocity.items()})
    write(path, out, {"version": "1", "made_by": "golden.py, PyTorch " + torch.__version__})
    print("losses", ["%.4f" % v for v in losses])


if __name__ == "__main__":
    main(sys.argv[1])
