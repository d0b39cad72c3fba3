"""Float operations of islands between int8 layers that torch rounds differently on other CPUs.

As those of float_rows.py they are defined down to the order of operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf, pi, prod

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
#: log(erfc(z) exp(z^2) / (2 t)), t = 1 / (1 + z / 2), z >= 0: a fit by least squares, within 2e-7.
_ERFC_POLYNOMIAL = (
    7.97697320737e-2, -5.62165478390e-1, 1.49263448461, -1.80554965520, 8.71190759649e-1,
    -2.45071234220e-1, 4.41755313565e-1, 9.92605553638e-1, -1.95831685713,
)  # fmt: skip
_ROOT_HALF, _GELU_CUBE, _GELU_SCALE = 0.5**0.5, 0.044715, (8 / pi) ** 0.5


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


def _check_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> None:
    _check_float("float_attention", q=q, k=k, v=v, mask=mask)
    shapes = [list(t.shape) for t in (q, k, v)]
    is_right = q.dim() in (3, 4) and all(
        len(s) == q.dim() and s[:-2] == shapes[0][:-2] for s in shapes
    )
    if not is_right or shapes[1][-1] != shapes[0][-1] or shapes[2][-2] != shapes[1][-2]:
        raise ValueError(
            "float_attention: expected q [..., T, D], k [..., S, D] and v [..., S, E] with some S, "
            f"got {shapes[0]}, {shapes[1]} and {shapes[2]}"
        )
    if mask is None:
        return
    scores, given = [*shapes[0][:-1], shapes[1][-2]], list(mask.shape)
    if len(given) == 4 and given[0] > 0 and scores[0] % given[0] == 0:
        given[0] = 1
    if len(given) != len(scores) or any(
        n not in (1, size) for n, size in zip(given, scores, strict=True)
    ):
        raise ValueError(
            f"float_attention: expected mask [..., T, S] like the scores of q {shapes[0]} and k "
            f"{shapes[1]}, 1 for a size, or a part of the samples, got {list(mask.shape)}"
        )


def float_attention_fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    mask: Tensor | None = None,
    is_causal: bool = False,
) -> Tensor:
    """Shape rule of float_attention."""
    return torch.empty((*q.shape[:-1], v.shape[-1]), dtype=q.dtype, device=q.device)


def float_attention_ref(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    mask: Tensor | None = None,
    is_causal: bool = False,
) -> Tensor:
    """Return softmax((q scale) k^T + mask) v, float32, by float_softmax and float_matmul.

    q: [..., T, D], k: [..., S, D], v: [..., S, E], of three or four dimensions, S > 0. mask:
    [..., T, S] float32, or 1 in the place of a size; of four dimensions it may be one of a part of
    the samples, and repeats. A query for which all scores are -inf then answers zeros, as torch's.
    is_causal: query i sees keys 0 to i.
    """
    _check_attention(q, k, v, mask)
    if k.shape[-2] == 0:
        raise ValueError(f"float_attention: expected some S, got k {list(k.shape)}")
    scores = float_matmul_ref(q * in_float32(scale), k.transpose(-1, -2))
    if mask is not None and mask.dim() == 4 and mask.shape[0] not in (0, 1):
        mask = mask.repeat(scores.shape[0] // mask.shape[0], 1, 1, 1)
    if is_causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -inf)
    shares = float_softmax_ref(scores if mask is None else scores + mask, scores.dim() - 1)
    if mask is not None:
        hidden = (scores + mask).amax(-1, keepdim=True) == -inf
        shares = shares.masked_fill(hidden, 0.0)
    return float_matmul_ref(shares, v)


def _sigmoid(x: Tensor) -> Tensor:
    return 1.0 / (1.0 + exponential(0.0 - x))


def _polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """Return the polynomial of x, highest power first."""
    p = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        p = p * x + in_float32(coefficient)
    return p


def _tanh(x: Tensor) -> Tensor:
    far = 1.0 - 2.0 / (1.0 + exponential(x + x))
    square = x * x
    p = _polynomial(_TANH_POLYNOMIAL, square)
    return torch.where(x.abs() > in_float32(_TANH_SMALL), far, (p * square) * x + x)


def _gelu(x: Tensor) -> Tensor:
    z = x.abs() * in_float32(_ROOT_HALF)
    t = 1.0 / (1.0 + z * 0.5)
    tail = t * exponential(_polynomial(_ERFC_POLYNOMIAL, t) - z * z)
    return x * torch.where(x > 0, 1.0 - tail, tail)


def _gelu_tanh(x: Tensor) -> Tensor:
    inner = (x + ((x * x) * x) * in_float32(_GELU_CUBE)) * in_float32(_GELU_SCALE)
    return x * _sigmoid(inner)


def _silu(x: Tensor) -> Tensor:
    return x * _sigmoid(x)


_FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sqrt": root,
    "exp": exponential,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "silu": _silu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
}
assert tuple(_FUNCTIONS) == OWN_UNARY


def float_unary_fake(x: Tensor, function: str) -> Tensor:
    """Shape rule of float_unary."""
    return torch.empty_like(x)


def float_unary_ref(x: Tensor, function: str) -> Tensor:
    """Return one of OWN_UNARY, "sqrt" to "gelu_tanh", of x, float32 of any shape.

    exp is the polynomial of float_rows.py, of which the others are made, within a few units in the
    last place; a root is the nearest float32.
    """
    _check_float("float_unary", x=x)
    _check_function("float_unary", function, OWN_UNARY)
    return _FUNCTIONS[function](x)


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
    "(Tensor q, Tensor k, Tensor v, float scale, Tensor? mask=None, bool is_causal=False) "
    "-> Tensor",
    float_attention_fake,
    float_attention_ref,
)
FLOAT_UNARY = OpSpec(
    "float_unary",
    "(Tensor x, str function) -> Tensor",
    float_unary_fake,
    float_unary_ref,
)
