"""Addition, multiplication and concatenation of uint8 tensors that have maps of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastinfer.ops.int8_epilogue import check_requantize, check_uint8
from fastinfer.ops.quantize import memory_format_of, round_clamp
from fastinfer.ops.spec import OpSpec


def _like(x: Tensor) -> Tensor:
    return torch.empty(
        x.shape, dtype=torch.uint8, device=x.device, memory_format=memory_format_of(x)
    )


def _float32(value: float, like: Tensor) -> Tensor:
    return torch.tensor(value, dtype=torch.float32, device=like.device)


def _check_second(op: str, x: Tensor, y: Tensor, y_zero_point: int) -> None:
    check_uint8(op, x)
    if y.dtype != torch.uint8:
        raise TypeError(f"{op}: expected y uint8, got {y.dtype}; quantize it first")
    if not 0 <= y_zero_point <= 255:
        raise ValueError(f"{op}: expected y_zero_point in 0..255, got {y_zero_point}")
    per_channel = x.dim() == 4 and list(y.shape) == [*x.shape[:2], 1, 1]
    if y.shape != x.shape and not per_channel:
        raise ValueError(
            f"{op}: expected y with x's shape {list(x.shape)} or [N, C, 1, 1] for a 4-D x, got "
            f"{list(y.shape)}"
        )


def int8_add_fake(
    x: Tensor,
    y: Tensor,
    x_multiplier: float,
    x_zero_point: int,
    y_multiplier: float,
    y_zero_point: int,
    out_zero_point: int,
    qmin: int,
    qmax: int,
    table: Tensor | None,
) -> Tensor:
    """Shape rule of int8_add."""
    return _like(x)


def int8_add_ref(
    x: Tensor,
    y: Tensor,
    x_multiplier: float,
    x_zero_point: int,
    y_multiplier: float,
    y_zero_point: int,
    out_zero_point: int,
    qmin: int,
    qmax: int,
    table: Tensor | None,
) -> Tensor:
    """Return clamp(rint((x - zx) mx + (y - zy) my) + zo, qmin, qmax), through table when given.

    x: any shape, uint8; y: the same, or [N, C, 1, 1] for a 4-D x. A multiplier is a tensor's scale
    over the result's. Products and their sum are rounded to float32 one after the other. table:
    [256] uint8. The result has x's shape and memory format (NHWC stays NHWC).
    """
    _check_second("int8_add", x, y, y_zero_point)
    check_requantize("int8_add", x_zero_point, out_zero_point, qmin, qmax)
    first = (x.int() - x_zero_point).float() * _float32(x_multiplier, x)
    second = (y.int() - y_zero_point).float() * _float32(y_multiplier, x)
    q = round_clamp(first + second, out_zero_point, qmin, qmax)
    return _like(x).copy_(q if table is None else table.to(x.device)[q.long()])


def int8_mul_fake(
    x: Tensor,
    y: Tensor,
    multiplier: float,
    x_zero_point: int,
    y_zero_point: int,
    out_zero_point: int,
    qmin: int,
    qmax: int,
) -> Tensor:
    """Shape rule of int8_mul."""
    return _like(x)


def int8_mul_ref(
    x: Tensor,
    y: Tensor,
    multiplier: float,
    x_zero_point: int,
    y_zero_point: int,
    out_zero_point: int,
    qmin: int,
    qmax: int,
) -> Tensor:
    """Return clamp(rint((x - zx)(y - zy) multiplier) + zo, qmin, qmax).

    Shapes as int8_add's. The multiplier is the product of both scales over the result's; the
    integer product is exact and rounded to float32 once, times the multiplier.
    """
    _check_second("int8_mul", x, y, y_zero_point)
    check_requantize("int8_mul", x_zero_point, out_zero_point, qmin, qmax)
    product = (x.int() - x_zero_point) * (y.int() - y_zero_point)
    f = product.float() * _float32(multiplier, x)
    return _like(x).copy_(round_clamp(f, out_zero_point, qmin, qmax))


def int8_cat_fake(
    xs: Sequence[Tensor],
    dim: int,
    multipliers: Sequence[float],
    zero_points: Sequence[int],
    out_zero_point: int,
) -> Tensor:
    """Shape rule of int8_cat."""
    shape = list(xs[0].shape)
    shape[dim] = sum(x.shape[dim] for x in xs)
    return torch.empty(
        shape, dtype=torch.uint8, device=xs[0].device, memory_format=memory_format_of(xs[0])
    )


def int8_cat_ref(
    xs: Sequence[Tensor],
    dim: int,
    multipliers: Sequence[float],
    zero_points: Sequence[int],
    out_zero_point: int,
) -> Tensor:
    """Return cat of clamp(rint((x - z) m) + zo, 0, 255) over dim, one m and z for each x.

    xs: uint8, equal but for dim (0 <= dim). A multiplier is a part's scale over the result's: 1
    with the result's zero point copies it. The result has the first part's memory format.
    """
    if not xs or len(multipliers) != len(xs) or len(zero_points) != len(xs):
        raise ValueError(
            f"int8_cat: expected at least one tensor, and a multiplier and a zero point for each, "
            f"got {len(xs)}, {len(multipliers)} and {len(zero_points)}"
        )
    if not 0 <= dim < xs[0].dim():
        raise ValueError(f"int8_cat: expected dim in 0..{xs[0].dim() - 1}, got {dim}")
    parts = []
    for x, multiplier, zero_point in zip(xs, multipliers, zero_points, strict=True):
        check_uint8("int8_cat", x)
        check_requantize("int8_cat", zero_point, out_zero_point)
        f = (x.int() - zero_point).float() * _float32(multiplier, x)
        parts.append(round_clamp(f, out_zero_point, 0, 255))
    q = torch.cat(parts, dim)
    return int8_cat_fake(xs, dim, multipliers, zero_points, out_zero_point).copy_(q)


INT8_ADD = OpSpec(
    "int8_add",
    "(Tensor x, Tensor y, float x_multiplier, int x_zero_point, float y_multiplier, "
    "int y_zero_point, int out_zero_point, int qmin, int qmax, Tensor? table) -> Tensor",
    int8_add_fake,
    int8_add_ref,
)
INT8_MUL = OpSpec(
    "int8_mul",
    "(Tensor x, Tensor y, float multiplier, int x_zero_point, int y_zero_point, "
    "int out_zero_point, int qmin, int qmax) -> Tensor",
    int8_mul_fake,
    int8_mul_ref,
)
INT8_CAT = OpSpec(
    "int8_cat",
    "(Tensor[] xs, int dim, float[] multipliers, int[] zero_points, int out_zero_point) -> Tensor",
    int8_cat_fake,
    int8_cat_ref,
)
