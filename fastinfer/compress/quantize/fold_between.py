"""From an operation between layers and the affine maps round it to the numbers its int8 op takes.

Everything is computed in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastinfer.compress.quantize.weights import activation_table, code_bounds
from fastinfer.graph.between import BetweenSpec
from fastinfer.program import BetweenPlan

#: float32 holds multipliers between these with all its digits.
_LEAST, _MOST = 1.2e-38, 3.4e38


@dataclass(frozen=True, eq=False)
class FoldedBetween:
    """A call of torch.ops.fastinfer.<op>: its tensors and sizes, then `numbers`, then `table`.

    table: [256] uint8 or None; int8_add and int8_lookup take it.
    """

    op: str
    numbers: tuple[Any, ...]
    table: Tensor | None = None


def _multiplier(value: float) -> float:
    if not _LEAST < value < _MOST:
        raise ValueError(f"int8: a multiplier of {value:.3g} is out of float32's range")
    return float(torch.tensor(value, dtype=torch.float32))


def fold_between(spec: BetweenSpec, plan: BetweenPlan) -> FoldedBetween:
    """Return the int8 call of an operation.

    Raises:
        ValueError: a multiplier that float32 does not hold.
    """
    target, x = plan.preactivation or plan.output, plan.inputs[0]
    scales = [quant.scale[0] for quant in plan.inputs]
    zeros = [quant.zero_point for quant in plan.inputs]
    out_scale, out_zero = target.scale[0], target.zero_point
    if spec.kind == "max_pool":
        pairs = _pairs(spec.kernel_size, spec.stride, spec.padding, spec.dilation)
        return FoldedBetween("int8_max_pool2d", (*pairs, spec.ceil_mode))
    if spec.kind == "upsample":  # a mean of codes of one map
        numbers = (list(spec.scale_factors), True, spec.align_corners)
        return FoldedBetween("int8_upsample2d", numbers)
    if spec.kind == "activation":
        return FoldedBetween("int8_lookup", (), activation_table(spec.activation, x, plan.output))
    if spec.kind == "cat":
        # Each part meets the result's scale of its own channels: the first of them has it.
        firsts = [sum(spec.sizes[:i]) for i in range(len(scales))]
        outs = plan.output.scale
        outs = tuple(outs[i] for i in firsts) if len(outs) > 1 else outs * len(scales)
        multipliers = [_multiplier(s / out) for s, out in zip(scales, outs, strict=True)]
        return FoldedBetween("int8_cat", (spec.dim, multipliers, zeros, out_zero))
    table = None
    if plan.preactivation is not None:
        table = activation_table(spec.activation, plan.preactivation, plan.output)
    bounds = (0, 255) if table is not None else code_bounds(spec.activation, target)
    if spec.kind == "add":
        parts = [(_multiplier(s / out_scale), z) for s, z in zip(scales, zeros, strict=True)]
        return FoldedBetween("int8_add", (*parts[0], *parts[1], out_zero, *bounds), table)
    if spec.kind == "mul":
        multiplier = _multiplier(scales[0] * scales[1] / out_scale)
        return FoldedBetween("int8_mul", (multiplier, *zeros, out_zero, *bounds))
    requantize = (_multiplier(scales[0] / out_scale), x.zero_point, out_zero, *bounds)
    if spec.kind == "avg_pool":
        pairs = _pairs(spec.kernel_size, spec.stride, spec.padding)
        geometry = (*pairs, spec.ceil_mode, spec.count_include_pad)
        return FoldedBetween("int8_avg_pool2d", (*geometry, *requantize))
    return FoldedBetween("int8_adaptive_avg_pool2d", (list(spec.output_size), *requantize))


def _pairs(*pairs: Sequence[int]) -> tuple[list[int], ...]:
    return tuple(list(pair) for pair in pairs)
