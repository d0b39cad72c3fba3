"""A layer's integers before they are packed for an instruction set, and those of its weight."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """A weight as integers; none of it depends on what comes behind the product.

    weight: [N, K] or [N, C/groups, kh, kw] int8; scale: [N] float64; sums and magnitudes: [N]
    int64, of each output channel's integers and of their absolute values.
    """

    weight: Tensor
    scale: Tensor
    sums: Tensor
    magnitudes: Tensor


class KnownWeights:
    """The quantized weight of each layer, the last one made, for the stages that need it again.

    Planning, timing, simulating and packing fold the same layer up to five times.
    """

    def __init__(self) -> None:
        self._known: dict[object, tuple[tuple[float, ...], QuantizedWeight]] = {}

    def get(
        self, layer: object, scale: tuple[float, ...], make: Callable[[], QuantizedWeight]
    ) -> QuantizedWeight:
        """Return layer's weight folded with the scales of its input, made by make if not known."""
        known = self._known.get(layer)
        if known is None or known[0] != scale:
            known = self._known[layer] = (scale, make())
        return known[1]


@dataclass(frozen=True, eq=False)
class FoldedLayer:
    """The arguments of int8_prepack, canonical (not packed for any ISA).

    weight: [N, K] or [N, C/groups, kh, kw] int8; bias: [N] int32; multiplier: [N] float32;
    residual_multiplier: [N] float32 or None; table: [256] uint8 or None; float_bias: [N] float32
    or None (dynamic layers only). strided: the convolution's step is more than 1.
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
    strided: bool = False
