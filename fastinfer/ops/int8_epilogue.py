"""The epilogue every int8 op shares: from the int32 accumulator to the result."""

from __future__ import annotations

import torch
from torch import Tensor

from fastinfer.ops.quantize import round_clamp
from fastinfer.types.packed import FLAG_DYNAMIC, FLAG_FLOAT_OUTPUT, FLAG_RESIDUAL, OPS, Unpacked


def check_packed(op: str, parts: Unpacked, kind: str, dynamic: bool, float_output: bool) -> None:
    """Raise ValueError unless the buffer was packed for this op and output."""
    got = OPS[parts.header.op]
    if got != kind:
        raise ValueError(f"{op}: packed: expected a weight packed for {kind}, got one for {got}")
    if parts.header.has(FLAG_DYNAMIC) != dynamic:
        want, came = ("dynamic", "static") if dynamic else ("static", "dynamic")
        raise ValueError(f"{op}: packed: expected a {want} weight, got a {came} one")
    if parts.header.has(FLAG_FLOAT_OUTPUT) != float_output:
        raise ValueError(
            f"{op}: float_output={float_output}, but the weight was packed with "
            f"float_output={not float_output}"
        )


def check_uint8(op: str, x: Tensor) -> None:
    """Raise TypeError unless x is uint8."""
    if x.dtype != torch.uint8:
        raise TypeError(f"{op}: expected x uint8, got {x.dtype}; quantize it first")


def check_requantize(
    op: str, x_zero_point: int, out_zero_point: int, qmin: int = 0, qmax: int = 255
) -> None:
    """Raise ValueError unless zero points and bounds are codes of uint8."""
    for name, value in (("x_zero_point", x_zero_point), ("out_zero_point", out_zero_point)):
        if not 0 <= value <= 255:
            raise ValueError(f"{op}: expected {name} in 0..255, got {value}")
    if not 0 <= qmin <= qmax <= 255:
        raise ValueError(f"{op}: expected 0 <= qmin <= qmax <= 255, got {qmin}, {qmax}")


def check_residual(op: str, parts: Unpacked, residual: Tensor | None, shape: list[int]) -> None:
    """Raise unless the residual is there exactly when packed for, with the result's shape."""
    if parts.header.has(FLAG_RESIDUAL) != (residual is not None):
        wanted = "a residual" if parts.header.has(FLAG_RESIDUAL) else "no residual"
        raise ValueError(f"{op}: residual: the weight was packed for {wanted}")
    if residual is None:
        return
    dtype = torch.float32 if parts.header.has(FLAG_FLOAT_OUTPUT) else torch.uint8
    if list(residual.shape) != shape or residual.dtype != dtype:
        raise ValueError(
            f"{op}: expected residual {dtype} {shape}, got {residual.dtype} {list(residual.shape)}"
        )


def static_epilogue(acc: Tensor, parts: Unpacked, residual: Tensor | None) -> Tensor:
    """Return the op's result from acc [..., N] (float64 holding exact integers, bias included).

    residual: [..., N], uint8 for an int8 result, float32 for a float one.
    """
    h = parts.header
    f = acc.to(torch.int32).to(torch.float32) * parts.multiplier.to(acc.device)
    if h.has(FLAG_FLOAT_OUTPUT):
        if residual is not None:
            f = f + residual
        return f.clamp(h.clamp_min, h.clamp_max)
    if residual is not None:
        f = f + residual.to(torch.float32) * parts.residual_multiplier.to(acc.device)
    q = round_clamp(f, h.out_zero_point, h.qmin, h.qmax)
    if parts.table.numel():
        q = parts.table.to(acc.device)[q.long()]
    return q


def dynamic_epilogue(acc: Tensor, parts: Unpacked, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Return the float result from acc [R, ..., N] with one scale and zero point a row R."""
    h = parts.header
    weight_sum = parts.weight.reshape(h.n, -1).to(torch.float64).sum(1).to(acc.device)
    view = [-1] + [1] * (acc.dim() - 1)
    corrected = acc - zero_point.to(torch.float64).view(view) * weight_sum
    f = corrected.to(torch.int32).to(torch.float32) * parts.multiplier.to(acc.device)
    f = f * scale.view(view) + parts.float_bias.to(acc.device)
    return f.clamp(h.clamp_min, h.clamp_max)
