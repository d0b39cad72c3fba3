"""Float operations beside int8 layers that sum: layer norm, softmax, the mean of an image.

torch's own round differently from one CPU to the next. These are defined down to the order of
additions, so that a region gives the same bits on every CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastinfer.ops.spec import OpSpec

#: Element i of a row is added to partial sum i mod LANES; the partial sums are added pairwise.
LANES = 16

_LOG2_E, _LN2_HIGH, _LN2_LOW = 1.44269504088896341, 0.693359375, -2.12194440e-4
#: exp(r) = 1 + r + r^2 p(r) for |r| <= ln(2) / 2, to 2 units in the last place (Cephes, expf).
_POLYNOMIAL = (
    1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
    5.0000001201e-1,
)  # fmt: skip
_LEAST, _MOST = -104.0, 89.0


def _check(op: str, x: Tensor, dim: int) -> None:
    if x.dtype != torch.float32:
        raise ValueError(f"{op}: expected x float32, got {x.dtype}")
    if x.dim() == 0 or not (dim == x.dim() - 1 or (dim == 1 and x.dim() == 4)):
        raise ValueError(
            f"{op}: expected dim to be the last or an image's channels, got dim {dim} of "
            f"{list(x.shape)}"
        )


def _result(x: Tensor, dim: int) -> Tensor:
    is_image = dim == 1 and x.dim() == 4
    layout = torch.channels_last if is_image else torch.contiguous_format
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=layout)


def lane_sum(x: Tensor) -> Tensor:
    """Return the sums of the last dimension in the order of LANES, [..., 1]."""
    terms = -(-x.shape[-1] // LANES)
    padded = torch.nn.functional.pad(x, (0, terms * LANES - x.shape[-1]))
    parts = padded.reshape(*x.shape[:-1], terms, LANES)
    total = torch.zeros_like(parts[..., 0, :])
    for i in range(terms):
        total = total + parts[..., i, :]
    while total.shape[-1] > 1:
        half = total.shape[-1] // 2
        total = total[..., :half] + total[..., half:]
    return total


def exponential(x: Tensor) -> Tensor:
    """Return exp(x), float32, by the polynomial of this file."""
    bounded = torch.clamp(x, _LEAST, _MOST)
    n = torch.round(bounded * in_float32(_LOG2_E))
    r = (bounded - n * in_float32(_LN2_HIGH)) - n * in_float32(_LN2_LOW)
    p = torch.full_like(r, _POLYNOMIAL[0])
    for coefficient in _POLYNOMIAL[1:]:
        p = p * r + in_float32(coefficient)
    y = ((p * r) * r + r) + 1.0
    whole = torch.nan_to_num(n).to(torch.int32)
    half = whole >> 1
    for power in (half, whole - half):
        y = y * ((power + 127) << 23).view(torch.float32)
    return y


def in_float32(value: float) -> Tensor:
    """Return a number as a float32 tensor, so that what it meets is rounded to float32."""
    return torch.tensor(value, dtype=torch.float32)


def float_layer_norm_fake(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, dim: int
) -> Tensor:
    """Shape rule of float_layer_norm."""
    return _result(x, dim)


def float_layer_norm_ref(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, dim: int
) -> Tensor:
    """Return (x - mean) rsqrt(var + eps) weight + bias along dim of x, float32.

    x: any shape; dim: the last one, or 1 of [N, C, H, W] (the result is NHWC in memory then).
    weight, bias: [C] float32 or None. var: the mean of (x - mean)^2. Every operation is rounded to
    float32; sums are taken in the order of LANES.
    """
    op = "float_layer_norm"
    _check(op, x, dim)
    n = x.shape[dim]
    for name, t in (("weight", weight), ("bias", bias)):
        if t is not None and (t.dtype != torch.float32 or t.shape != (n,)):
            raise ValueError(f"{op}: expected {name} [{n}] float32, got {list(t.shape)} {t.dtype}")
    rows = x.movedim(dim, -1)
    count = in_float32(float(n))
    away = rows - lane_sum(rows) / count
    variance = lane_sum(away * away) / count
    # torch's float32 root is not always the nearest float32; that of float64 is, once rounded.
    inverse = 1.0 / torch.sqrt((variance + in_float32(eps)).double()).float()
    y = away * inverse
    if weight is not None:
        y = y * weight
    if bias is not None:
        y = y + bias
    return _result(x, dim).copy_(y.movedim(-1, dim))


def float_softmax_fake(x: Tensor, dim: int) -> Tensor:
    """Shape rule of float_softmax."""
    return _result(x, dim)


def float_softmax_ref(x: Tensor, dim: int) -> Tensor:
    """Return exp(x - max) / sum(exp(x - max)) along dim of x, float32.

    x: any shape; dim: the last one, or 1 of [N, C, H, W] (the result is NHWC in memory then). exp
    is the polynomial of this file, within 2 units in the last place; the quotient is a product with
    the sum's inverse. A row with NaN or positive infinity, or without a finite number, is NaN.
    """
    _check("float_softmax", x, dim)
    out = _result(x, dim)
    if out.numel() == 0:
        return out
    rows = x.movedim(dim, -1)
    powers = exponential(rows - rows.amax(-1, keepdim=True))
    return out.copy_((powers * (1.0 / lane_sum(powers))).movedim(-1, dim))


def float_global_avg_pool2d_fake(x: Tensor) -> Tensor:
    """Shape rule of float_global_avg_pool2d."""
    shape = (*x.shape[:2], 1, 1)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def float_global_avg_pool2d_ref(x: Tensor) -> Tensor:
    """Return the mean of every channel's pixels, [N, C, 1, 1] float32, NHWC in memory.

    x: [N, C, H, W] float32. Pixels are summed in the order of LANES.
    """
    if x.dtype != torch.float32 or x.dim() != 4:
        raise ValueError(
            f"float_global_avg_pool2d: expected x float32 [N, C, H, W], got {x.dtype} "
            f"{list(x.shape)}"
        )
    out = float_global_avg_pool2d_fake(x)
    count = in_float32(float(x.shape[2] * x.shape[3]))
    return out.copy_((lane_sum(x.flatten(2)) / count).unsqueeze(-1))


FLOAT_LAYER_NORM = OpSpec(
    "float_layer_norm",
    "(Tensor x, Tensor? weight, Tensor? bias, float eps, int dim) -> Tensor",
    float_layer_norm_fake,
    float_layer_norm_ref,
)
FLOAT_SOFTMAX = OpSpec(
    "float_softmax",
    "(Tensor x, int dim) -> Tensor",
    float_softmax_fake,
    float_softmax_ref,
)
FLOAT_GLOBAL_AVG_POOL2D = OpSpec(
    "float_global_avg_pool2d",
    "(Tensor x) -> Tensor",
    float_global_avg_pool2d_fake,
    float_global_avg_pool2d_ref,
)
