"""Loads a weights file as anyone with PyTorch would, and prints what is in it.

    python3 load_safetensors.py FILE
"""

import sys

import torch
from safetensors import safe_open
from safetensors.torch import load_file

for name, t in load_file(sys.argv[1]).items():
    flat = t.flatten().double()
    weights = torch.arange(flat.numel()) % 7 + 1
    print(name, t.dtype, "x".join(map(str, t.shape)), "%.6f" % ((flat * weights).sum().item() + 0.0))
with safe_open(sys.argv[1], framework="pt") as f:
    print("classes", f.metadata()["classes"])
