"""From ranges to affine maps: the scale, zero point and shift of an activation tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastinfer.types import Activation, TensorQuant

#: A range below this share of the tensor's widest channel is taken to be this share.
NARROWEST_SHARE = 1e-3
#: Networks with random weights shrink their signal to 1e-15 and below, and int8 follows as float
#: does. What limits a scale is float32: its inverse, and its product with a weight's scale.
SMALLEST_SCALE = 1e-30

#: Beyond these inputs an activation is constant or linear to within half a step of a usual range.
SATURATION: dict[str, tuple[float, float]] = {
    "hardswish": (-3.0, math.inf),
    "hardsigmoid": (-3.0, 3.0),
    "sigmoid": (-8.0, 8.0),
    "tanh": (-4.5, 4.5),
    "silu": (-9.0, math.inf),
    "gelu": (-4.0, math.inf),
    "gelu_tanh": (-4.0, math.inf),
    "mish": (-9.0, math.inf),
    "softplus": (-8.0, math.inf),
}


def per_tensor(lo: float, hi: float) -> TensorQuant:
    """Return the map of [lo, hi], widened to hold zero exactly, onto codes 0..255."""
    lo, hi = min(lo, 0.0), max(hi, 0.0)
    scale = max((hi - lo) / 255, SMALLEST_SCALE)
    return TensorQuant((_float32(scale),), min(max(round(-lo / scale), 0), 255))


def before_activation(activation: Activation, lo: float, hi: float) -> TensorQuant:
    """Return the map of an activation's input, without the part where the output stands still."""
    least, most = SATURATION.get(activation.name, (-math.inf, math.inf))
    return per_tensor(max(lo, least), min(hi, most))


def _float32(value: float) -> float:
    """Return value as float32 holds it, so that ops and this code use one scale."""
    return float(torch.tensor(value, dtype=torch.float32))


def _map(scale: Tensor, zero_point: int, shift: Tensor | None = None) -> TensorQuant:
    values = tuple(scale.float().double().tolist())
    if shift is None:
        return TensorQuant(values, zero_point)
    return TensorQuant(values, zero_point, tuple(shift.double().tolist()))


def widths(lo: Tensor, hi: Tensor) -> Tensor:
    """Return the width of each channel's range, none of them zero, [C] float64."""
    width = hi - lo
    return width.clamp(min=max(float(width.max()) * NARROWEST_SHARE, 255 * SMALLEST_SCALE))


def smoothing(width: Tensor, weight_extent: Tensor | None, alpha: float) -> Tensor:
    """Return widths, each enlarged so that wide channels with small weights are the coarse ones.

    The result r satisfies r >= width, with equality for the channel where
    width^alpha * weight_extent^(1 - alpha) is largest: the channel that bounds the precision.

    Source: Xiao et al., "SmoothQuant", section 4, with the migration folded into the scales.
    """
    if weight_extent is None:
        return width
    extent = weight_extent.clamp(min=float(weight_extent.max()) * 1e-3 + 1e-30)
    factor = width**alpha / extent ** (1 - alpha)
    return factor * (width / factor).max()


def per_channel_positive(width: Tensor, limit: float) -> TensorQuant:
    """Return the map of channels in [0, width], zero point 0; no code passes limit."""
    width = width.clamp(max=limit) if math.isfinite(limit) else width
    return _map(width / 255, 0)


def per_channel_shifted(lo: Tensor, hi: Tensor, width: Tensor) -> TensorQuant:
    """Return the map of channels centred on the middle of [lo, hi], width wide, zero point 128."""
    # Codes 0..255 around 128 reach 128 steps down and 127 up.
    return _map(width / 254, 128, (lo + hi) / 2)


def common_zero_point(parts: Sequence[TensorQuant]) -> int:
    """Return the zero point that coarsens per-tensor maps least; their own where all have one.

    Measured by the mean square of the ratios of new to old scale.
    """
    zero_points = {part.zero_point for part in parts}
    if len(zero_points) == 1:
        return zero_points.pop()
    loss = {z: sum(_coarser(part, z) ** 2 for part in parts) for z in range(1, 255)}
    return min(loss, key=loss.__getitem__)


def with_zero_point(quant: TensorQuant, zero_point: int) -> TensorQuant:
    """Return the per-tensor map of this zero point that reaches as far as quant."""
    if quant.zero_point == zero_point:
        return quant
    return TensorQuant((_float32(quant.scale[0] * _coarser(quant, zero_point)),), zero_point)


def joined(parts: Sequence[TensorQuant], sizes: Sequence[int], zero_point: int) -> TensorQuant:
    """Return the map of a cat of per-tensor parts of so many channels: one scale for each part.

    Parts of this zero point keep their scales and their codes.
    """
    scales = [with_zero_point(part, zero_point).scale[0] for part in parts]
    values = [s for s, size in zip(scales, sizes, strict=True) for _ in range(size)]
    return TensorQuant(tuple(values), zero_point)


def _coarser(quant: TensorQuant, zero_point: int) -> float:
    """Return by what the scale grows for zero_point, 1..254, to cover what codes 0..255 cover."""
    below, above = quant.zero_point, 255 - quant.zero_point
    return max(below / zero_point, above / (255 - zero_point))
