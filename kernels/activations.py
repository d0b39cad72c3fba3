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
def _sigmoid_times(u, x):
    """Return x / (1 + exp(-u)), the quotient by the square of an inverse root.

    It saves SwiGLU 5 of 28 instructions: a division scales its operands, which need not be here.
    """
    r = tl.rsqrt(1.0 + tl.exp(-u))
    return x * r * r


@triton.jit
def _gelu(x):
    """Return x times the normal distribution's integral, to 5e-7 |x|.

    Half the instructions of tl.erf. Source: Abramowitz and Stegun, "Handbook of Mathematical
    Functions", 7.1.26, which is erfc of a positive argument: small values of it keep their digits.
    """
    r = tl.rsqrt(1.0 + 0.23164189 * tl.abs(x))
    t = r * r
    p = tl.fma(t, 0.53070271, -0.72657601)
    p = tl.fma(t, p, 0.71070687)
    p = tl.fma(t, p, -0.14224837)
    p = tl.fma(t, p, 0.1274148)
    outside = t * p * tl.exp(-0.5 * x * x)
    return x * tl.where(x < 0.0, outside, 1.0 - outside)


@triton.jit
def activate(x, KIND: tl.constexpr):
    """Return the activation of float32 x."""
    if KIND == 1:
        x = tl.where(x < 0.0, 0.0, x)  # NaN stays
    elif KIND == 2:
        x = _sigmoid_times(x, x)
    elif KIND == 3:
        x = _gelu(x)
    elif KIND == 4:
        # 1 + tanh(u) = 2 / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3)
        x = _sigmoid_times(x * (1.5957691216057308 + 0.07135481627159762 * x * x), x)
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
