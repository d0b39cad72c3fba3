"""A layer's integers before they are packed for an instruction set."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class FoldedLayer:
    """The arguments of int8_prepack, canonical (not packed for any ISA).

    weight: [N, K] or [N, C/groups, kh, kw] int8; bias: [N] int32; multiplier: [N] float32;
    residual_multiplier: [N] float32 or None; table: [256] uint8 or None; float_bias: [N] float32
    or None (dynamic layers only).
    """

    op: str
    weight: Tensor
    bias: Tensor
    multiplier: Tensor
    residual_multiplier: Tensor | None = None
    table: Tensor | None = None
    float_bias: Tensor | None = None
    groups: int = 1
    x_zero_point: int = 0
    out_zero_point: int = 0
    qmin: int = 0
    qmax: int = 255
    clamp_min: float = -math.inf
    clamp_max: float = math.inf
    float_output: bool = False
