"""Float layers whose weights are mostly zero: products of what is left.

A sum takes the entries of a step (`types.sparse_float`) in turns into two partial sums, by fused
multiply-adds in float32, so its bits depend on the weight and the input alone: neither on the CPU
nor on the batch. Where an input is infinite or NaN dense layers answer NaN even through weights
that are zero; these do not look at it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastinfer.ops.int8_conv2d import output_size
from fastinfer.ops.spec import OpSpec
from fastinfer.types.sparse_float import INPUTS, SparseFloatWeight

Ints = Sequence[int]


def _weight(
    op: str,
    x: Tensor,
    parts: tuple[Tensor, Tensor, Tensor],
    bias: Tensor | None,
    shape: Ints,
    groups: int,
) -> SparseFloatWeight:
    """Return the weight, checked."""
    if x.dtype != torch.float32:
        raise ValueError(f"{op}: expected x float32, got {x.dtype}")
    if bias is not None and (bias.dtype != torch.float32 or list(bias.shape) != [shape[0]]):
        raise ValueError(
            f"{op}: expected bias [{shape[0]}] float32, got {list(bias.shape)} {bias.dtype}"
        )
    weight = SparseFloatWeight(*parts, tuple(shape), groups)
    weight.check()
    return weight


def _fused_multiply_add(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return a * b + c rounded once to float32."""
    product, addend = a.double() * b.double(), c.double()  # exact
    total = product + addend
    # What the sum lost (Knuth's two-sum). Rounded again, to float32, it could tie where it did not:
    # an inexact sum gets an odd last bit ("round to odd"), which never does.
    part = total - product
    lost = (product - (total - part)) + (addend - part)
    bits = total.view(torch.int64)
    step = torch.where((lost > 0) == (total > 0), 1, -1)
    inexact = (lost != 0) & (bits % 2 == 0) & total.isfinite()
    return torch.where(inexact, bits + step, bits).view(torch.float64).float()


def _multiply(x: Tensor, weight: SparseFloatWeight, bias: Tensor | None) -> Tensor:
    """Return the sums of x [groups, K, positions] as [groups, outputs of a group, positions]."""
    groups, outputs = weight.groups, weight.shape[0] // weight.groups
    starts = weight.starts.long()
    total = x.new_zeros(groups, outputs, x.shape[2])
    if bias is not None:
        total = total + bias.view(groups, outputs, 1)
    for group in range(groups):
        for step in range(weight.steps):
            row = (group * weight.steps + step) * outputs
            first, end = starts[row : row + outputs], starts[row + 1 : row + outputs + 1]
            sums = [total[group], torch.zeros_like(total[group])]
            for i in range(int((end - first).max())):
                there = first + i < end
                at = torch.where(there, first + i, 0)
                inputs = step * INPUTS + weight.places[at].long()
                added = _fused_multiply_add(
                    weight.values[at].unsqueeze(1),
                    x[group, torch.where(there, inputs, 0)],
                    sums[i % 2],
                )
                sums[i % 2] = torch.where(there.unsqueeze(1), added, sums[i % 2])
            total[group] = sums[0] + sums[1]
    return total


def _finish(
    op: str, y: Tensor, residual: Tensor | None, clamp_min: float, clamp_max: float
) -> Tensor:
    """Return clamp(y + residual), contiguous."""
    if residual is not None:
        if residual.dtype != torch.float32 or residual.shape != y.shape:
            raise ValueError(
                f"{op}: expected residual {list(y.shape)} float32, got {list(residual.shape)} "
                f"{residual.dtype}"
            )
        y = y + residual
    return torch.clamp(y, clamp_min, clamp_max).contiguous()


def sparse_float_linear_fake(
    x: Tensor,
    values: Tensor,
    places: Tensor,
    starts: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    weight_shape: Ints,
    clamp_min: float,
    clamp_max: float,
) -> Tensor:
    """Shape rule of sparse_float_linear."""
    return x.new_empty((*x.shape[:-1], weight_shape[0]))


def sparse_float_linear_ref(
    x: Tensor,
    values: Tensor,
    places: Tensor,
    starts: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    weight_shape: Ints,
    clamp_min: float,
    clamp_max: float,
) -> Tensor:
    """Return clamp(x @ weight.T + bias + residual); x: [*, K] float32 -> [*, N] float32.

    values, places, starts: of `SparseFloatWeight` of a weight of weight_shape [N, K]. bias: [N]
    float32 or None. residual: as the result, or None.
    """
    op = "sparse_float_linear"
    if x.dim() < 1 or x.shape[-1] != weight_shape[1]:
        raise ValueError(
            f"{op}: expected x [*, {weight_shape[1]}] (weight has in_features={weight_shape[1]}), "
            f"got {list(x.shape)}"
        )
    weight = _weight(op, x, (values, places, starts), bias, weight_shape, 1)
    rows = x.reshape(1, -1, x.shape[-1]).transpose(1, 2)
    y = _multiply(rows, weight, bias)[0].t().reshape(*x.shape[:-1], weight_shape[0])
    return _finish(op, y, residual, clamp_min, clamp_max)


def sparse_float_conv2d_fake(
    x: Tensor,
    values: Tensor,
    places: Tensor,
    starts: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    weight_shape: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    clamp_min: float,
    clamp_max: float,
) -> Tensor:
    """Shape rule of sparse_float_conv2d."""
    size = output_size(x, weight_shape[2:], stride, padding, dilation)
    return x.new_empty((x.shape[0], weight_shape[0], *size))


def sparse_float_conv2d_ref(
    x: Tensor,
    values: Tensor,
    places: Tensor,
    starts: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    weight_shape: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    clamp_min: float,
    clamp_max: float,
) -> Tensor:
    """Return clamp(conv2d(x, weight) + bias + residual), contiguous; x: [N, C, H, W] float32.

    values, places, starts: of `SparseFloatWeight` of a weight of weight_shape [out, C / groups, kh,
    kw]. bias: [out] float32 or None. residual: as the result, or None. Pairs are (height, width).
    """
    op, channels = "sparse_float_conv2d", weight_shape[1] * groups
    if x.dim() != 4 or x.shape[1] != channels:
        raise ValueError(
            f"{op}: expected x [N, {channels}, H, W] (weight has in_channels={channels}), got "
            f"{list(x.shape)}"
        )
    weight = _weight(op, x, (values, places, starts), bias, weight_shape, groups)
    size = output_size(x, weight_shape[2:], stride, padding, dilation)
    kernel = tuple(weight_shape[2:])
    windows = F.unfold(x, kernel, tuple(dilation), tuple(padding), tuple(stride))
    by_group = windows.reshape(len(x), groups, weight.inputs, size[0] * size[1])
    sums = _multiply(by_group.permute(1, 2, 0, 3).flatten(2), weight, bias)
    y = sums.reshape(weight_shape[0], len(x), *size).transpose(0, 1)
    return _finish(op, y, residual, clamp_min, clamp_max)


_PARTS = (
    "Tensor x, Tensor values, Tensor places, Tensor starts, Tensor? bias, Tensor? residual, "
    "int[] weight_shape"
)
_BOUNDS = "float clamp_min, float clamp_max"
SPARSE_FLOAT_LINEAR = OpSpec(
    "sparse_float_linear",
    f"({_PARTS}, {_BOUNDS}) -> Tensor",
    sparse_float_linear_fake,
    sparse_float_linear_ref,
)
SPARSE_FLOAT_CONV2D = OpSpec(
    "sparse_float_conv2d",
    f"({_PARTS}, int[] stride, int[] padding, int[] dilation, int groups, {_BOUNDS}) -> Tensor",
    sparse_float_conv2d_fake,
    sparse_float_conv2d_ref,
)
