"""Makes solver.json: updates by PyTorch with what a solver does to gradients.

    python3 solver.py solver.json

Needs torch; written with 1.13.1, in float64. A dense layer of 4 x 4 pixels and a
softmax learn from five batches of three images, of which two and two, and then the
one that is left, make an update: torch.nn.CrossEntropyLoss(label_smoothing=0.1), the
mean of the batches' gradients, clip_grad_norm_ to CLIP, then clip_grad_value_ to
LIMIT, and torch.optim.SGD, whose momentum equals the paper's while lr is constant.
"""

import json
import sys

import torch

SIDE, CLASSES, BATCHES, N = 4, 5, 5, 3
MEAN, SCALE, LR, MOMENTUM, DECAY, SMOOTHING, CLIP, LIMIT = 128.0, 1 / 64, 0.05, 0.9, 0.01, 0.1, 1.5, 0.25


def main(path):
    torch.manual_seed(5)
    single = lambda t: t.float().double()
    weight = single(torch.randn(CLASSES, 3 * SIDE * SIDE).double() * 0.2).requires_grad_(True)
    bias = single(torch.randn(CLASSES).double() * 0.2).requires_grad_(True)
    images = torch.randint(0, 256, (BATCHES, N, SIDE, SIDE, 3))
    labels = torch.randint(0, CLASSES, (BATCHES, N))
    flat = lambda t: t.detach().flatten().tolist()
    out = {"weight": flat(weight), "bias": flat(bias), "images": flat(images), "labels": flat(labels), "losses": [], "norms": []}
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    sgd = torch.optim.SGD([weight, bias], lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
    x = ((images.double() - MEAN) * SCALE).permute(0, 1, 4, 2, 3).flatten(2)
    for group in ([0, 1], [2, 3], [4]):
        sgd.zero_grad()
        for b in group:
            loss = criterion(torch.nn.functional.linear(x[b], weight, bias), labels[b])
            (loss / len(group)).backward()
            out["losses"].append(loss.item())
        out["norms"].append(torch.nn.utils.clip_grad_norm_([weight, bias], CLIP).item())
        torch.nn.utils.clip_grad_value_([weight, bias], LIMIT)
        sgd.step()
    out.update(final_weight=flat(weight), final_bias=flat(bias))
    with open(path, "w") as f:
        json.dump(out, f)
        f.write("\n")


main(sys.argv[1])
