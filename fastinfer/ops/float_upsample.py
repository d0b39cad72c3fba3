"""Enlarging float images that a network ends with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastinfer.ops.int8_upsample import check_sizes, resized, weighted_means
from fastinfer.ops.spec import OpSpec

_OP = "float_upsample2d"


def float_upsample2d_fake(
    x: Tensor,
    like: Tensor | None,
    output_size: Sequence[Any],
    scale_factors: Sequence[float],
    align_corners: bool,
) -> Tensor:
    """Shape rule of float_upsample2d."""
    shape = (*x.shape[:2], *resized(_OP, x, like, output_size, scale_factors))
    return torch.empty(shape, dtype=x.dtype, device=x.device)


def float_upsample2d_ref(
    x: Tensor,
    like: Tensor | None,
    output_size: Sequence[int],
    scale_factors: Sequence[float],
    align_corners: bool,
) -> Tensor:
    """Return x with another height and width, bilinear, contiguous.

    x: [N, C, H, W] float32, any layout. Height and width of the result are those of `like`
    [*, *, H, W], or `output_size`, or floor(size * factor): exactly one is given. Source pixels are
    torch's (upsample_bilinear2d); the mean is (a w0 + b w1) h0 + (c w0 + d w1) h1, each operation
    rounded to float32, with w0 = 1 - w1 and h0 = 1 - h1.
    """
    if x.dtype != torch.float32:
        raise ValueError(f"{_OP}: expected x float32, got {x.dtype}")
    out = float_upsample2d_fake(x, like, output_size, scale_factors, align_corners)
    check_sizes(_OP, x, out)
    factors = list(scale_factors) or [0.0, 0.0]
    return out.copy_(weighted_means(x, out.shape[2:], factors, align_corners))


FLOAT_UPSAMPLE2D = OpSpec(
    _OP,
    "(Tensor x, Tensor? like, SymInt[] output_size, float[] scale_factors, bool align_corners) "
    "-> Tensor",
    float_upsample2d_fake,
    float_upsample2d_ref,
)
