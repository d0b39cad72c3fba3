"""Enlarging and shrinking uint8 images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastinfer.ops.int8_epilogue import check_uint8
from fastinfer.ops.spec import OpSpec

_OP = "int8_upsample2d"


def resized(
    op: str,
    x: Tensor,
    like: Tensor | None,
    output_size: Sequence[Any],
    scale_factors: Sequence[float],
) -> list[Any]:
    """Return (height, width) of the result, from the one argument that says it."""
    if x.dim() != 4:
        raise ValueError(f"{op}: expected x [N, C, H, W], got {list(x.shape)}")
    given = (like is not None) + bool(output_size) + bool(scale_factors)
    if given != 1 or len(output_size) not in (0, 2) or len(scale_factors) not in (0, 2):
        raise ValueError(
            f"{op}: expected one of like, output_size [H, W] and scale_factors [H, W], got "
            f"{'a' if like is not None else 'no'} like, {list(output_size)}, {list(scale_factors)}"
        )
    if like is not None:
        if like.dim() != 4:
            raise ValueError(f"{op}: expected like [N, C, H, W], got {list(like.shape)}")
        return list(like.shape[2:])
    if output_size:
        return list(output_size)
    return [int(size * factor) for size, factor in zip(x.shape[2:], scale_factors, strict=True)]


def int8_upsample2d_fake(
    x: Tensor,
    like: Tensor | None,
    output_size: Sequence[Any],
    scale_factors: Sequence[float],
    bilinear: bool,
    align_corners: bool,
) -> Tensor:
    """Shape rule of int8_upsample2d."""
    return torch.empty(
        (*x.shape[:2], *resized(_OP, x, like, output_size, scale_factors)),
        dtype=torch.uint8,
        device=x.device,
        memory_format=torch.channels_last,
    )


def int8_upsample2d_ref(
    x: Tensor,
    like: Tensor | None,
    output_size: Sequence[int],
    scale_factors: Sequence[float],
    bilinear: bool,
    align_corners: bool,
) -> Tensor:
    """Return x with another height and width: the nearest codes, or their weighted mean.

    x: [N, C, H, W] uint8; the result has its affine map and is NHWC in memory. Its height and width
    are those of `like` [*, *, H, W], or `output_size`, or floor(size * factor): exactly one is
    given. Source pixels are torch's (upsample_nearest2d, upsample_bilinear2d), computed in float32.
    The mean is rint((a w0 + b w1) h0 + (c w0 + d w1) h1) of the codes, each operation rounded to
    float32; w0 = 1 - w1 and h0 = 1 - h1.
    """
    check_uint8(_OP, x)
    out = int8_upsample2d_fake(x, like, output_size, scale_factors, bilinear, align_corners)
    check_sizes(_OP, x, out)
    factors = list(scale_factors) or [0.0, 0.0]
    if not bilinear:
        rows, columns = (_nearest(x.shape[i + 2], out.shape[i + 2], factors[i]) for i in range(2))
        return out.copy_(x[:, :, rows][..., columns])
    mean = weighted_means(x.float(), out.shape[2:], factors, align_corners)
    return out.copy_(torch.round(mean).to(torch.uint8))


def check_sizes(op: str, x: Tensor, out: Tensor) -> None:
    """Refuse images without pixels: they have nothing to take a mean of."""
    if 0 in x.shape[2:] or min(out.shape[2:]) < 1:
        raise ValueError(f"{op}: expected sizes >= 1, got {list(x.shape)} to {list(out.shape)}")


def weighted_means(
    x: Tensor, size: Sequence[int], factors: Sequence[float], align_corners: bool
) -> Tensor:
    """Return (a w0 + b w1) h0 + (c w0 + d w1) h1 of the four pixels round each of the result's."""
    (y0, y1, h1), (x0, x1, w1) = (
        _linear(x.shape[i + 2], size[i], factors[i], align_corners) for i in range(2)
    )
    w0, h0 = 1 - w1, (1 - h1)[:, None]
    rows = x[..., x0] * w0 + x[..., x1] * w1
    return rows[:, :, y0] * h0 + rows[:, :, y1] * h1[:, None]


def _scale(size: int, out: int, factor: float) -> Tensor:
    """Return how many pixels of x a pixel of the result is apart from the next, float32."""
    if factor > 0:
        return torch.tensor(1.0 / factor, dtype=torch.float32)
    return torch.tensor(size, dtype=torch.float32) / torch.tensor(out, dtype=torch.float32)


def _nearest(size: int, out: int, factor: float) -> Tensor:
    source = torch.floor(torch.arange(out, dtype=torch.float32) * _scale(size, out, factor))
    return source.long().clamp(max=size - 1)


def _linear(
    size: int, out: int, factor: float, align_corners: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each output's two source pixels and the second one's weight."""
    index = torch.arange(out, dtype=torch.float32)
    if size == out:
        return index.long(), index.long(), torch.zeros(out)
    if align_corners:
        source = index * (_scale(size - 1, out - 1, 0) if out > 1 else torch.zeros(()))
    else:
        source = ((index + 0.5) * _scale(size, out, factor) - 0.5).clamp(min=0)
    first = torch.floor(source).long().clamp(max=size - 1)
    weight = (source - first).clamp(0, 1)
    return first, (first + 1).clamp(max=size - 1), weight


INT8_UPSAMPLE2D = OpSpec(
    _OP,
    "(Tensor x, Tensor? like, SymInt[] output_size, float[] scale_factors, bool bilinear, "
    "bool align_corners) -> Tensor",
    int8_upsample2d_fake,
    int8_upsample2d_ref,
)
