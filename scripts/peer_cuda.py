#!/usr/bin/env python3
"""Times PyTorch with cuDNN on a card, on the paper's network and torchvision's.

    python3 scripts/peer_cuda.py [--batch 128] [--repeat 5]

prints images/s of a training step (forward, backward, SGD with momentum and weight
decay) in float32 and with TF32, each as it comes and channels_last with cuDNN's choice
of algorithms by measurement, which is the faster one. Batches lie on the card: it is
the step alone that is compared.
"""

import argparse
import statistics
import time

import torch
from torch import nn


def paper(classes=1000):
    """The paper's network: two groups, LRN (k=2, n=5, alpha=1e-4 a term, beta=0.75), overlapping pooling."""
    lrn = lambda: nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
    pool = lambda: nn.MaxPool2d(3, 2)
    relu = lambda: nn.ReLU(inplace=True)
    return nn.Sequential(
        nn.Conv2d(3, 96, 11, 4, 2), relu(), lrn(), pool(),
        nn.Conv2d(96, 256, 5, 1, 2, groups=2), relu(), lrn(), pool(),
        nn.Conv2d(256, 384, 3, 1, 1), relu(), nn.Conv2d(384, 384, 3, 1, 1, groups=2), relu(),
        nn.Conv2d(384, 256, 3, 1, 1, groups=2), relu(), pool(),
        nn.Flatten(), nn.LazyLinear(4096), relu(), nn.Dropout(0.5), nn.Linear(4096, 4096), relu(), nn.Dropout(0.5), nn.Linear(4096, classes))


def torchvision(classes=1000):
    pool = lambda: nn.MaxPool2d(3, 2)
    relu = lambda: nn.ReLU(inplace=True)
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), relu(), pool(), nn.Conv2d(64, 192, 5, 1, 2), relu(), pool(),
        nn.Conv2d(192, 384, 3, 1, 1), relu(), nn.Conv2d(384, 256, 3, 1, 1), relu(), nn.Conv2d(256, 256, 3, 1, 1), relu(), pool(),
        nn.Flatten(), nn.Dropout(0.5), nn.LazyLinear(4096), relu(), nn.Dropout(0.5), nn.Linear(4096, 4096), relu(), nn.Linear(4096, classes))


def measure(make, batch, repeat, tf32, best):
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = best
    layout = torch.channels_last if best else torch.contiguous_format
    model = make().cuda()
    x = torch.randn(batch, 3, 224, 224, device="cuda").to(memory_format=layout)
    y = torch.randint(0, 1000, (batch,), device="cuda")
    model(x)
    model = model.to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    loss = nn.CrossEntropyLoss()

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss(model(x), y).backward()
        optimizer.step()

    for _ in range(10):
        step()
    rates = []
    for _ in range(repeat):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(20):
            step()
        torch.cuda.synchronize()
        rates.append(20 * batch / (time.perf_counter() - began))
    return rates


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--repeat", type=int, default=5)
    o = p.parse_args()
    print(f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, {torch.cuda.get_device_name()}, batch {o.batch}")
    for name, make in (("alexnet", paper), ("alexnet_torchvision", torchvision)):
        for tf32 in (False, True):
            for best in (False, True):
                rates = measure(make, o.batch, o.repeat, tf32, best)
                print(f"{name} {'tf32' if tf32 else 'fp32'} {'best' if best else 'as it comes'}: "
                      f"{statistics.median(rates):.0f} images/s ({min(rates):.0f} to {max(rates):.0f})")


if __name__ == "__main__":
    main()
