#!/usr/bin/env python3
"""Times PyTorch on the networks of Sluice, as installed and at its best.

    python3 scripts/peer_pytorch.py [--net alexnet|alexnet_torchvision] [--batch 128] [--threads 2]

prints a line a setting: images/s of a training step (forward, backward, update
of SGD with momentum and weight decay) and of inference to fc7, medians of
--repeat runs with the spread, with PyTorch's version. "as installed" is
what a user types; "best" keeps freed memory in the process, asks for huge pages,
lays tensors out channels_last, fuses the update where PyTorch can, and writes local
response normalisation as a convolution, which PyTorch's own is slow at; "compiled"
is that under torch.compile, from PyTorch 2 on (it needs g++, and minutes). A peer
is only beaten fairly at its best, the faster of the last two.

Debian's PyTorch 1.13 (apt-get install python3-torch) takes the BLAS of the system,
so have an OpenBLAS there (apt-get install libopenblas0-openmp); the reference BLAS
is five times slower. The newest comes from PyPI with a BLAS of its own:

    python3 -m venv DIR && DIR/bin/pip install torch numpy
    DIR/bin/python scripts/peer_pytorch.py

takes 5.4 GB of disk (2.15): it does not import without the CUDA libraries that it
brings, though none is used here.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

SETTINGS = ("installed", "best", "compiled")

BEST = {
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TOP_PAD_": "268435456",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--net", choices=["alexnet", "alexnet_torchvision"], default="alexnet")
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--repeat", type=int, default=7)
    p.add_argument("--setting", choices=SETTINGS, help=argparse.SUPPRESS)
    return p.parse_args()


def lrn(nn, torch, channels, as_convolution):
    """k=2, n=5, alpha=1e-4 a term (PyTorch divides its alpha by n), beta=0.75."""
    if not as_convolution:
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

    class Convolved(nn.Module):
        def __init__(self):
            super().__init__()
            band = torch.zeros(channels, channels, 1, 1)
            for i in range(channels):
                band[i, max(0, i - 2) : i + 3] = 1e-4
            self.register_buffer("band", band)
            self.register_buffer("k", torch.full((channels,), 2.0))

        def forward(self, x):
            scale = torch.conv2d(x * x, self.band, self.k)
            root = scale.rsqrt()
            return x * root * root.sqrt()  # scale ** -0.75

    return Convolved()


def build(net, best):
    import torch
    from torch import nn

    def conv(i, o, size, **kw):
        return [nn.Conv2d(i, o, size, **kw), nn.ReLU(inplace=True)]

    def pool():
        return nn.MaxPool2d(3, 2)

    if net == "alexnet":
        side = 227
        maps = [
            *conv(3, 96, 11, stride=4), lrn(nn, torch, 96, best), pool(),
            *conv(96, 256, 5, padding=2, groups=2), lrn(nn, torch, 256, best), pool(),
            *conv(256, 384, 3, padding=1), *conv(384, 384, 3, padding=1, groups=2),
            *conv(384, 256, 3, padding=1, groups=2), pool(),
        ]
    else:
        side = 224
        maps = [
            *conv(3, 64, 11, stride=4, padding=2), pool(), *conv(64, 192, 5, padding=2), pool(),
            *conv(192, 384, 3, padding=1), *conv(384, 256, 3, padding=1), *conv(256, 256, 3, padding=1), pool(),
        ]
    body = nn.Sequential(
        *maps, nn.Flatten(),
        nn.Linear(9216, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5),
        nn.Linear(4096, 4096), nn.ReLU(inplace=True),
    )
    head = nn.Sequential(nn.Dropout(0.5), nn.Linear(4096, 1000))
    return body, head, side


def clock(step, repeat, batch):
    for _ in range(2):
        step()
    rates = []
    for _ in range(repeat):
        began = time.perf_counter()
        step()
        rates.append(batch / (time.perf_counter() - began))
    return {"median": round(statistics.median(rates), 1), "least": round(min(rates), 1), "most": round(max(rates), 1)}


def measure(args):
    import torch
    from torch import nn

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    best = args.setting != "installed"
    body, head, side = build(args.net, best)
    x = torch.randn(args.batch, 3, side, side)
    labels = torch.randint(0, 1000, (args.batch,))
    if best:
        body, x = body.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    parameters = [*body.parameters(), *head.parameters()]
    rule = {"lr": 0.001, "momentum": 0.9, "weight_decay": 0.0005}
    try:
        solver = torch.optim.SGD(parameters, fused=True, **rule) if best else torch.optim.SGD(parameters, **rule)
    except (TypeError, RuntimeError):  # before 2.4
        solver = torch.optim.SGD(parameters, **rule)
    loss = nn.CrossEntropyLoss()
    whole, features = nn.Sequential(body, head), body
    if args.setting == "compiled":
        whole, features = torch.compile(whole), torch.compile(body)

    def train():
        solver.zero_grad(set_to_none=not best)
        loss(whole(x), labels).backward()
        solver.step()

    @torch.no_grad()
    def infer():
        features(x)

    out = {"torch": torch.__version__, "net": args.net, "setting": args.setting, "batch": args.batch, "threads": args.threads}
    out["train_images_per_second"] = clock(train, args.repeat, args.batch)
    whole.eval()
    body.eval()
    out["infer_fc7_images_per_second"] = clock(infer, args.repeat, args.batch)
    print(json.dumps(out), flush=True)


def main():
    args = parse()
    if args.setting:
        measure(args)
        return
    try:
        import torch
    except ImportError:
        sys.exit("PyTorch is not installed: apt-get install python3-torch, or pip install torch")
    for setting in SETTINGS:
        if setting == "compiled" and not hasattr(torch, "compile"):
            continue
        # OPENBLAS_CORETYPE slows a current OpenBLAS down.
        env = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
        if setting != "installed":
            env.update(BEST)
        if setting == "compiled":
            env["TORCHINDUCTOR_FREEZING"] = "1"  # inference: weights laid out once
        done = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--setting", setting], env=env)
        if done.returncode:
            hint = ": torch.compile needs g++" if setting == "compiled" else ""
            sys.exit(f"the setting {setting} failed{hint}")


if __name__ == "__main__":
    main()
