"""Activations by name, in Triton and in PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

#: Name -> the constant that a kernel gets.
ACTIVATIONS = {"identity": 0, "relu": 1, "silu": 2, "gelu": 3, "gelu_tanh": 4}


def activation_kind(op: str, name: str) -> int:
    """Return the constant of an activation; ValueError for a name that is none."""
    if name not in ACTIVATIONS:
        raise ValueError(f"{op}: expected activation in {list(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]


@triton.jit
def activate(x, KIND: tl.constexpr):
    """Return the activation of float32 x."""
    if KIND == 1:
        x = tl.where(x < 0.0, 0.0, x)  # NaN stays
    elif KIND == 2:
        x = x / (1.0 + tl.exp(-x))
    elif KIND == 3:
        x = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif KIND == 4:
        # 1 + tanh(u) = 2 / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3)
        x = x / (1.0 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)))
    return x


def activate_ref(x: Tensor, name: str) -> Tensor:
    """Return the activation of float32 x, in plain PyTorch."""
    if name == "relu":
        return torch.relu(x)
    if name == "silu":
        return F.silu(x)
    if name in ("gelu", "gelu_tanh"):
        return F.gelu(x, approximate="tanh" if name == "gelu_tanh" else "none")
    return x
