"""Makes the goldens of the importers: files of random weights as PyTorch and Caffe
write them, and the logits that PyTorch computes with them.

    python3 scripts/goldens_import.py

Needs torch; written with 1.13. It writes into net/torch/testdata,
net/caffe/testdata and cmd/testdata/squeezenet. Networks are those of torchvision's AlexNet, Caffe's
bvlc_alexnet and SqueezeNet 1.0 with narrow layers, so that the files are small. The image
is that of net/nettest.Picture. Logits are computed in float64. Nothing is shared
with the Go code, so that a mistake shows: not the writer of protocol buffers, nor
the normalisation. Files come out with the same bytes every time, but for those of
torch.save's first format, which holds addresses of memory.
"""

import json
import os
import struct

import torch
import torch.nn.functional as F

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
CLASSES = 5


def picture(h, w):
    """1 x 3 x H x W levels, RGB."""
    y, x, c = torch.meshgrid(torch.arange(h), torch.arange(w), torch.arange(3), indexing="ij")
    levels = (7 * y + 13 * x + 71 * c + (y * x) % 251) % 256
    return levels.permute(2, 0, 1)[None].double()


def folder(*names):
    path = os.path.join(ROOT, *names)
    os.makedirs(path, exist_ok=True)
    return path


def write_safetensors(path, tensors):
    header, at = {}, 0
    for name, t in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [at, at + 4 * t.numel()]}
        at += 4 * t.numel()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for t in tensors.values():
            f.write(t.contiguous().numpy().tobytes())


def write_logits(path, logits):
    with open(path, "w") as f:
        json.dump([float(v) for v in logits.flatten()], f)
        f.write("\n")


# torchvision: models/alexnet.py with other widths.
def torchvision():
    out = folder("net", "torch", "testdata")
    torch.manual_seed(2014)
    convs = [("features.0", 3, 6, 11, 4, 2), ("features.3", 6, 8, 5, 1, 2), ("features.6", 8, 12, 3, 1, 1),
             ("features.8", 12, 8, 3, 1, 1), ("features.10", 8, 8, 3, 1, 1)]
    denses = [("classifier.1", 8 * 36, 16), ("classifier.4", 16, 12), ("classifier.6", 12, CLASSES)]
    state = {}
    for name, i, o, size, _, _ in convs:
        state[name + ".weight"] = torch.randn(o, i, size, size) * (2 / (i * size * size)) ** 0.5
        state[name + ".bias"] = torch.randn(o) * 0.1
    for name, i, o in denses:
        state[name + ".weight"] = torch.randn(o, i) * (2 / i) ** 0.5
        state[name + ".bias"] = torch.randn(o) * 0.1
    mean = torch.tensor([0.485, 0.456, 0.406]).double().view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).double().view(1, 3, 1, 1)
    x = (picture(224, 224) / 255 - mean) / std
    for i, (name, _, _, _, stride, padding) in enumerate(convs):
        x = F.relu(F.conv2d(x, state[name + ".weight"].double(), state[name + ".bias"].double(), stride, padding))
        if i in (0, 1, 4):
            x = F.max_pool2d(x, 3, 2)
    x = F.adaptive_avg_pool2d(x, (6, 6)).flatten(1)
    for name, _, _ in denses:
        x = F.linear(x, state[name + ".weight"].double(), state[name + ".bias"].double())
        x = x if name == "classifier.6" else F.relu(x)
    torch.save(state, os.path.join(out, "alexnet.pth"))
    checkpoint = {"epoch": 3, "state_dict": {"module." + k: v for k, v in state.items()}}
    torch.save(checkpoint, os.path.join(out, "alexnet_legacy.pth"), _use_new_zipfile_serialization=False)
    write_safetensors(os.path.join(out, "alexnet.safetensors"), state)
    write_logits(os.path.join(out, "alexnet.json"), x)

    # The types of numbers, and tensors that are views: each beside itself in plain float32.
    base = torch.randn(4, 6)
    kinds = {
        "half": base.half(), "bfloat16": base.bfloat16(), "double": base.double(),
        "turned": base.t(), "part": base[1:3, 2:5], "small": (base * 1e-6).half(), "parameter": torch.nn.Parameter(base),
    }
    both = {}
    for name, t in kinds.items():
        both[name] = t
        both[name + ".plain"] = t.detach().float().contiguous().clone()
    torch.save(both, os.path.join(out, "kinds.pth"))
    torch.save(both, os.path.join(out, "kinds_legacy.pth"), _use_new_zipfile_serialization=False)
    torch.save({"steps": torch.arange(3)}, os.path.join(out, "integers.pth"))
    torch.save(torch.nn.Linear(2, 2), os.path.join(out, "module.pth"))
    torch.save({"a": base}, os.path.join(out, "protocol4.pth"), pickle_protocol=4)


# Protocol buffers, as far as Caffe's need them.
def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def number(field, n):
    return varint(field << 3) + varint(n)


def data(field, b):
    b = b.encode() if isinstance(b, str) else b
    return varint(field << 3 | 2) + varint(len(b)) + b


def real(field, x):
    return varint(field << 3 | 5) + struct.pack("<f", x)


def blob(t, legacy_dims=None):
    if legacy_dims:
        shape = b"".join(number(i + 1, d) for i, d in enumerate(legacy_dims))
    else:
        shape = data(7, data(1, b"".join(varint(d) for d in t.shape)))
    return shape + data(5, t.contiguous().numpy().tobytes())


# name, out, size, stride, padding, groups
CAFFE = [("conv1", 8, 11, 4, 0, 1), ("conv2", 8, 5, 1, 2, 2), ("conv3", 12, 3, 1, 1, 1), ("conv4", 12, 3, 1, 1, 2), ("conv5", 8, 3, 1, 1, 2)]
DENSE = [("fc6", 16), ("fc7", 12), ("fc8", CLASSES)]


def caffe():
    out = folder("net", "caffe", "testdata")
    torch.manual_seed(2012)
    weights, channels = {}, 3
    for name, o, size, _, _, groups in CAFFE:
        weights[name] = torch.randn(o, channels // groups, size, size) * (2 / (channels // groups * size * size)) ** 0.5, torch.randn(o)
        channels = o
    wide = channels * 36
    for name, o in DENSE:
        weights[name] = torch.randn(o, wide) * (2 / wide) ** 0.5, torch.randn(o)
        wide = o

    def logits(bgr_mean, pool_first):
        x = picture(227, 227)[:, [2, 1, 0]] - torch.tensor(bgr_mean).double().view(1, 3, 1, 1)
        for name, _, _, stride, padding, groups in CAFFE:
            w, b = weights[name]
            x = F.relu(F.conv2d(x, w.double(), b.double(), stride, padding, 1, groups))
            if name in ("conv1", "conv2"):
                steps = [norm, pool]
                for step in reversed(steps) if pool_first else steps:
                    x = step(x)
            elif name == "conv5":
                x = pool(x)
        x = x.flatten(1)
        for name, _ in DENSE:
            w, b = weights[name]
            x = F.linear(x, w.double(), b.double())
            x = x if name == "fc8" else F.relu(x)
        return x

    def pool(x):
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    def norm(x):
        """Caffe's: alpha over the size of the window, k = 1."""
        squares = F.pad(x * x, (0, 0, 0, 0, 2, 2))
        sums = sum(squares[:, i:i + x.shape[1]] for i in range(5))
        return x / (1 + 1e-4 / 5 * sums) ** 0.75

    def v1(name, kind, bottoms, tops, options=b"", blobs=()):
        body = b"".join(data(2, b) for b in bottoms) + b"".join(data(3, t) for t in tops) + data(4, name) + number(5, kind)
        return data(2, body + b"".join(data(6, b) for b in blobs) + options)

    def v2(name, kind, bottoms, tops, options=b"", blobs=()):
        body = data(1, name) + data(2, kind) + b"".join(data(3, b) for b in bottoms) + b"".join(data(4, t) for t in tops)
        return data(100, body + b"".join(data(7, b) for b in blobs) + options)

    def model(layer, kinds, fields, source, pool_first, new_blobs):
        conv, dense, lrn, pooling, dropout = fields
        net = data(1, "AlexNet") + source
        last = "data"
        for name, o, size, stride, padding, groups in CAFFE:
            w, b = weights[name]
            options = number(1, o) + number(4, size) + number(6, stride)
            options += number(3, padding) if padding else b""
            options += number(5, groups) if groups > 1 else b""
            blobs = [blob(w), blob(b)] if new_blobs else [blob(w, w.shape), blob(b, (1, 1, 1, o))]
            net += layer(name, kinds["conv"], [last], [name], data(conv, options), blobs)
            net += layer("relu" + name[-1], kinds["relu"], [name], [name])
            last, i = name, name[-1]
            norm_layer = ("norm" + i, kinds["lrn"], data(lrn, number(1, 5) + real(2, 1e-4) + real(3, 0.75)))
            pool_layer = ("pool" + i, kinds["pool"], data(pooling, number(1, 0) + number(2, 3) + number(3, 2)))
            layers = {"1": [norm_layer, pool_layer], "2": [norm_layer, pool_layer], "5": [pool_layer]}.get(i, [])
            for n, kind, options in reversed(layers) if pool_first else layers:
                net += layer(n, kind, [last], [n], options)
                last = n
        for name, o in DENSE:
            w, b = weights[name]
            blobs = [blob(w), blob(b)] if new_blobs else [blob(w, (1, 1) + tuple(w.shape)), blob(b, (1, 1, 1, o))]
            net += layer(name, kinds["dense"], [last], [name], data(dense, number(1, o)), blobs)
            last = name
            if name != "fc8":
                net += layer("relu" + name[-1], kinds["relu"], [name], [name])
                net += layer("drop" + name[-1], kinds["drop"], [name], [name], data(dropout, real(1, 0.5)))
        return net + layer("loss", kinds["loss"], [last, "label"], ["loss"])

    # bvlc_alexnet as it was published: the first form, trained from LMDB with a mean image.
    transform = data(36, number(2, 1) + number(3, 227) + data(4, "data/ilsvrc12/imagenet_mean.binaryproto"))
    source = v1("data", 5, [], ["data", "label"], transform)
    kinds = {"conv": 4, "relu": 18, "lrn": 15, "pool": 17, "dense": 14, "drop": 6, "loss": 21}
    with open(os.path.join(out, "bvlc_alexnet.caffemodel"), "wb") as f:
        f.write(model(v1, kinds, (10, 17, 18, 19, 12), source, False, False))
    # The mean image of 4 x 4, which gives other numbers than the built-in mean.
    mean = torch.stack([torch.full((4, 4), m) + torch.arange(16).view(4, 4) for m in (90.0, 100.0, 110.0)])
    with open(os.path.join(out, "mean.binaryproto"), "wb") as f:
        f.write(blob(mean, (1, 3, 4, 4)))
    write_logits(os.path.join(out, "bvlc_alexnet.json"), logits(mean.mean((1, 2)).tolist(), False))

    # bvlc_reference_caffenet's order, in the later form, with mean values.
    source = v2("data", "Input", [], ["data"], data(143, data(1, data(1, b"".join(varint(d) for d in (10, 3, 227, 227)))))
                + data(100, real(5, 104) + real(5, 117) + real(5, 123)))
    kinds = {"conv": "Convolution", "relu": "ReLU", "lrn": "LRN", "pool": "Pooling", "dense": "InnerProduct", "drop": "Dropout", "loss": "SoftmaxWithLoss"}
    with open(os.path.join(out, "caffenet.caffemodel"), "wb") as f:
        f.write(model(v2, kinds, (106, 117, 118, 121, 108), source, True, True))
    write_logits(os.path.join(out, "caffenet.json"), logits([104.0, 117.0, 123.0], True))


# SqueezeNet 1.0 with an eighth of its channels, for images less the mean 104, 117, 123.
def squeezenet():
    out = folder("cmd", "testdata", "squeezenet")
    torch.manual_seed(2016)
    state = {}

    def conv(name, i, o, size):
        state[name + ".weight"] = torch.randn(o, i, size, size) * (2 / (i * size * size)) ** 0.5
        state[name + ".bias"] = torch.randn(o)

    def apply(name, x, stride=1, padding=0):
        return F.relu(F.conv2d(x, state[name + ".weight"].double(), state[name + ".bias"].double(), stride, padding))

    conv("conv1", 3, 12, 7)
    x = picture(227, 227)[:, [2, 1, 0]] - torch.tensor([104.0, 117.0, 123.0]).double().view(1, 3, 1, 1)
    x = F.max_pool2d(apply("conv1", x, 2), 3, 2, ceil_mode=True)
    for n, squeeze, expand in [(2, 2, 8), (3, 2, 8), (4, 4, 16), (5, 4, 16), (6, 6, 24), (7, 6, 24), (8, 8, 32), (9, 8, 32)]:
        fire = "fire%d/" % n
        conv(fire + "conv1x1_1", x.shape[1], squeeze, 1)
        conv(fire + "conv1x1_2", squeeze, expand, 1)
        conv(fire + "conv3x3_2", squeeze, expand, 3)
        x = apply(fire + "conv1x1_1", x)
        x = torch.cat([apply(fire + "conv1x1_2", x), apply(fire + "conv3x3_2", x, 1, 1)], 1)
        if n in (4, 8):
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    conv("conv_final", x.shape[1], 125, 1)
    scores = apply("conv_final", x, 1, 1).mean((2, 3))
    write_safetensors(os.path.join(out, "squeezenet.safetensors"), state)
    write_logits(os.path.join(out, "scores.json"), torch.cat([scores, x.mean((2, 3))], 1))


torchvision()
caffe()
squeezenet()
