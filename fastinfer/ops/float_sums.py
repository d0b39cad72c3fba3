"""Float operations of islands between int8 layers that torch rounds differently on other CPUs.

As those of float_rows.py they are defined down to the order of operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from fastinfer.ops.float_rows import exponential, float_softmax_ref, in_float32, lane_sum
from fastinfer.ops.spec import OpSpec
from fastinfer.types.float_functions import (
    OWN_REDUCE,
    OWN_UNARY,
    lies_together,
    memory_order,
)

#: tanh(x) = x + x^3 p(x^2) for |x| <= 0.625 (Cephes, tanhf).
_TANH_POLYNOMIAL = (
    -5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1,
)  # fmt: skip
_TANH_SMALL = 0.625


def _check_float(op: str, **tensors: Tensor | None) -> None:
    for name, t in tensors.items():
        if t is not None and t.dtype != torch.float32:
            raise ValueError(f"{op}: expected {name} float32, got {t.dtype}")


def _check_function(op: str, function: str, known: Sequence[str]) -> None:
    if function not in known:
        raise ValueError(f"{op}: expected function one of {', '.join(known)}, got {function}")


def root(x: Tensor) -> Tensor:
    """Return the float32 nearest to the square root of x, float32."""
    # torch's float32 root is not always the nearest float32; that of float64 is, once rounded.
    return torch.sqrt(x.double()).float()


def float_reduce_fake(x: Tensor, dims: Sequence[int], function: str) -> Tensor:
    """Shape rule of float_reduce."""
    shape = [1 if d in dims else n for d, n in enumerate(x.shape)]
    layout = torch.channels_last if x.dim() == 4 else torch.contiguous_format
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)


def float_reduce_ref(x: Tensor, dims: Sequence[int], function: str) -> Tensor:
    """Return the sum, mean or Euclidean norm of x along dims, which stay with size 1, float32.

    x: any shape, float32. dims: those that lie together in memory: neighbours, where a 4-D x is
    [N, H, W, C] there. function: "sum", "mean" or "norm". Elements are taken in the order of that
    memory and summed in the order of LANES; a norm is the root of the sum of squares.
    """
    op = "float_reduce"
    _check_float(op, x=x)
    _check_function(op, function, OWN_REDUCE)
    if not dims or any(not 0 <= d < x.dim() for d in dims):
        raise ValueError(f"{op}: expected dims in 0..{x.dim() - 1}, got {list(dims)}")
    if not lies_together(x.shape, dims):
        raise ValueError(
            f"{op}: expected dims that lie together in memory, got {list(dims)} of {list(x.shape)}"
        )
    order = memory_order(x.dim())
    kept, reduced = ([d for d in order if (d in dims) is wanted] for wanted in (False, True))
    count = prod(x.shape[d] for d in reduced)
    if count == 0:
        raise ValueError(f"{op}: expected something to reduce, got {list(x.shape)}")
    rows = x.permute(*kept, *reduced).reshape(*(x.shape[d] for d in kept), count)
    total = lane_sum(rows * rows if function == "norm" else rows)[..., 0]
    if function == "mean":
        total = total / in_float32(float(count))
    if function == "norm":
        total = root(total)
    total = total.permute([kept.index(d) for d in sorted(kept)])
    out = float_reduce_fake(x, dims, function)
    return out.copy_(total.reshape(out.shape))


def float_group_norm_fake(
    x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Shape rule of float_group_norm."""
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def float_group_norm_ref(
    x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Return (x - mean) rsqrt(var + eps) weight + bias of every group of channels, float32.

    x: [N, C, H, W] float32; the result is NHWC in memory. weight, bias: [C] float32 or None. mean
    and var are a group's: its channels' sums over the pixels are summed, each in LANES' order.
    """
    op = "float_group_norm"
    _check_float(op, x=x, weight=weight, bias=bias)
    if x.dim() != 4 or groups < 1 or x.shape[1] % groups:
        raise ValueError(
            f"{op}: expected x [N, C, H, W] and groups that divide C, got {list(x.shape)} and "
            f"{groups}"
        )
    n, c, h, w = x.shape
    for name, t in (("weight", weight), ("bias", bias)):
        if t is not None and t.shape != (c,):
            raise ValueError(f"{op}: expected {name} [{c}], got {list(t.shape)}")
    out = float_group_norm_fake(x, groups, weight, bias, eps)
    if out.numel() == 0:
        return out
    count = in_float32(float(c // groups * h * w))

    def mean(values: Tensor) -> Tensor:
        channels = lane_sum(values.flatten(2)).reshape(n, groups, c // groups)
        means = lane_sum(channels) / count
        return means.expand(n, groups, c // groups).reshape(n, c, 1, 1)

    away = x - mean(x)
    y = away * (1.0 / root(mean(away * away) + in_float32(eps)))
    if weight is not None:
        y = y * weight[:, None, None]
    if bias is not None:
        y = y + bias[:, None, None]
    return out.copy_(y)


def _matmul_shape(a: Tensor, b: Tensor) -> list[int]:
    is_right = a.dim() >= 2 and b.dim() == a.dim() and a.shape[-1] == b.shape[-2]
    batches = (a.shape[:-2], b.shape[:-2])
    ones = [all(size == 1 for size in batch) for batch in batches]
    if not is_right or not (batches[0] == batches[1] or any(ones)):
        raise ValueError(
            "float_matmul: expected a [..., M, K] and b [..., K, N] with equal batches or one "
            f"matrix, got {list(a.shape)} and {list(b.shape)}"
        )
    return [*(batches[1] if ones[0] else batches[0]), a.shape[-2], b.shape[-1]]


def float_matmul_fake(a: Tensor, b: Tensor) -> Tensor:
    """Shape rule of float_matmul."""
    return torch.empty(_matmul_shape(a, b), dtype=a.dtype, device=a.device)


def float_matmul_ref(a: Tensor, b: Tensor) -> Tensor:
    """Return a b, float32: ((0 + a0 b0) + a1 b1) + ..., every product and sum rounded.

    a: [..., M, K], b: [..., K, N], of one number of dimensions; batches are equal, or one of the
    two is a single matrix.
    """
    _check_float("float_matmul", a=a, b=b)
    total = torch.zeros(_matmul_shape(a, b), dtype=torch.float32, device=a.device)
    for k in range(a.shape[-1]):
        total = total + a[..., k : k + 1] * b[..., k : k + 1, :]
    return total


def _check_attention(q: Tensor, k: Tensor, v: Tensor) -> None:
    _check_float("float_attention", q=q, k=k, v=v)
    shapes = [list(t.shape) for t in (q, k, v)]
    is_right = q.dim() in (3, 4) and all(
        len(s) == q.dim() and s[:-2] == shapes[0][:-2] for s in shapes
    )
    if not is_right or shapes[1][-1] != shapes[0][-1] or shapes[2][-2] != shapes[1][-2]:
        raise ValueError(
            "float_attention: expected q [..., T, D], k [..., S, D] and v [..., S, E] with some S, "
            f"got {shapes[0]}, {shapes[1]} and {shapes[2]}"
        )


def float_attention_fake(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Shape rule of float_attention."""
    return torch.empty((*q.shape[:-1], v.shape[-1]), dtype=q.dtype, device=q.device)


def float_attention_ref(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Return softmax((q scale) k^T) v, float32, by float_softmax and float_matmul.

    q: [..., T, D], k: [..., S, D], v: [..., S, E], of three or four dimensions, S > 0.
    """
    _check_attention(q, k, v)
    if k.shape[-2] == 0:
        raise ValueError(f"float_attention: expected some S, got k {list(k.shape)}")
    scores = float_matmul_ref(q * in_float32(scale), k.transpose(-1, -2))
    return float_matmul_ref(float_softmax_ref(scores, scores.dim() - 1), v)


def _sigmoid(x: Tensor) -> Tensor:
    return 1.0 / (1.0 + exponential(0.0 - x))


def _tanh(x: Tensor) -> Tensor:
    far = 1.0 - 2.0 / (1.0 + exponential(x + x))
    square = x * x
    p = torch.full_like(x, _TANH_POLYNOMIAL[0])
    for coefficient in _TANH_POLYNOMIAL[1:]:
        p = p * square + in_float32(coefficient)
    return torch.where(x.abs() > in_float32(_TANH_SMALL), far, (p * square) * x + x)


def float_unary_fake(x: Tensor, function: str) -> Tensor:
    """Shape rule of float_unary."""
    return torch.empty_like(x)


def float_unary_ref(x: Tensor, function: str) -> Tensor:
    """Return "sqrt", "exp", "sigmoid", "tanh" or "silu" of x, float32 of any shape.

    exp is the polynomial of float_rows.py, of which the others are made, within a few units in the
    last place; a root is the nearest float32.
    """
    _check_float("float_unary", x=x)
    _check_function("float_unary", function, OWN_UNARY)
    if function == "sqrt":
        return root(x)
    if function == "exp":
        return exponential(x)
    if function == "tanh":
        return _tanh(x)
    return _sigmoid(x) if function == "sigmoid" else x * _sigmoid(x)


FLOAT_REDUCE = OpSpec(
    "float_reduce",
    "(Tensor x, int[] dims, str function) -> Tensor",
    float_reduce_fake,
    float_reduce_ref,
)
FLOAT_GROUP_NORM = OpSpec(
    "float_group_norm",
    "(Tensor x, int groups, Tensor? weight, Tensor? bias, float eps) -> Tensor",
    float_group_norm_fake,
    float_group_norm_ref,
)
FLOAT_MATMUL = OpSpec(
    "float_matmul",
    "(Tensor a, Tensor b) -> Tensor",
    float_matmul_fake,
    float_matmul_ref,
)
FLOAT_ATTENTION = OpSpec(
    "float_attention",
    "(Tensor q, Tensor k, Tensor v, float scale) -> Tensor",
    float_attention_fake,
    float_attention_ref,
)
FLOAT_UNARY = OpSpec(
    "float_unary",
    "(Tensor x, str function) -> Tensor",
    float_unary_fake,
    float_unary_ref,
)
