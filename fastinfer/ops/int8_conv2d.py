"""uint8 x int8 convolutions, NHWC in memory, with a fused epilogue."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastinfer.ops.int8_epilogue import (
    check_packed,
    check_residual,
    check_uint8,
    dynamic_epilogue,
    static_epilogue,
)
from fastinfer.ops.quantize import quantize_rows
from fastinfer.ops.spec import OpSpec
from fastinfer.types.packed import OPS, Unpacked, unpack

Ints = Sequence[int]


def output_size(
    x: Tensor, kernel_size: Ints, stride: Ints, padding: Ints, dilation: Ints
) -> tuple[int, int]:
    """Return (height, width) of the result of a convolution over x [N, C, H, W]."""
    sizes = []
    for i in range(2):
        span = dilation[i] * (kernel_size[i] - 1) + 1
        sizes.append((x.shape[2 + i] + 2 * padding[i] - span) // stride[i] + 1)
    return sizes[0], sizes[1]


def _result(x: Tensor, channels: int, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    return torch.empty(
        (x.shape[0], channels, *size),
        dtype=dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )


def _check_geometry(
    op: str, x: Tensor, parts: Unpacked, kernel_size: Ints, groups: int, channels: int
) -> None:
    h = parts.header
    is_depthwise = OPS[h.op] == "depthwise_conv2d"
    wanted = h.n if is_depthwise else h.c_per_group * h.groups
    if x.dim() != 4 or x.shape[1] != wanted:
        raise ValueError(
            f"{op}: expected x [N, {wanted}, H, W] (weight has in_channels={wanted}), "
            f"got {list(x.shape)}"
        )
    packed_groups = h.n if is_depthwise else h.groups
    if [h.kh, h.kw] != list(kernel_size) or packed_groups != groups or h.n != channels:
        raise ValueError(
            f"{op}: expected kernel_size={[h.kh, h.kw]}, groups={packed_groups}, "
            f"out_channels={h.n} as packed, got {list(kernel_size)}, {groups}, {channels}"
        )


def _accumulate(
    x: Tensor,
    pad_value: Tensor | int,
    parts: Unpacked,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> Tensor:
    """Return the exact convolution as float64 [N, OH, OW, C]; padding holds pad_value [N]."""
    wide = x.to(torch.float64)
    pad = [padding[1], padding[1], padding[0], padding[0]]
    if isinstance(pad_value, int):
        wide = F.pad(wide, pad, value=float(pad_value))
    else:
        inside = F.pad(torch.ones_like(wide), pad)
        wide = F.pad(wide, pad) + (1 - inside) * pad_value.to(torch.float64).view(-1, 1, 1, 1)
    weight = parts.weight.to(x.device, torch.float64)
    acc = F.conv2d(wide, weight, None, tuple(stride), 0, tuple(dilation), groups)
    return acc.permute(0, 2, 3, 1)


def _static(
    op: str,
    kind: str,
    x: Tensor,
    packed: Tensor,
    residual: Tensor | None,
    channels: int,
    kernel_size: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    float_output: bool,
) -> Tensor:
    check_uint8(op, x)
    parts = unpack(packed)
    check_packed(op, parts, kind, False, float_output)
    _check_geometry(op, x, parts, kernel_size, groups, channels)
    size = output_size(x, kernel_size, stride, padding, dilation)
    check_residual(op, parts, residual, [x.shape[0], channels, *size])
    dtype = torch.float32 if float_output else torch.uint8
    out = _result(x, channels, size, dtype)
    if out.numel() == 0:
        return out
    acc = _accumulate(x, parts.header.x_zero_point, parts, stride, padding, dilation, groups)
    acc = acc + parts.bias.to(x.device)
    last = None if residual is None else residual.permute(0, 2, 3, 1)
    return out.copy_(static_epilogue(acc, parts, last).permute(0, 3, 1, 2))


def int8_conv2d_fake(
    x: Tensor,
    packed: Tensor,
    residual: Tensor | None,
    out_channels: int,
    kernel_size: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    float_output: bool,
) -> Tensor:
    """Shape rule of int8_conv2d."""
    size = output_size(x, kernel_size, stride, padding, dilation)
    return _result(x, out_channels, size, torch.float32 if float_output else torch.uint8)


def int8_conv2d_ref(
    x: Tensor,
    packed: Tensor,
    residual: Tensor | None,
    out_channels: int,
    kernel_size: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    float_output: bool,
) -> Tensor:
    """Return epilogue(bias + conv2d(x, weight)); padding holds the input's zero point.

    x: [N, C, H, W] uint8 (any strides) -> [N, out_channels, OH, OW] uint8 or float32, NHWC memory.
    """
    return _static(
        "int8_conv2d", "conv2d", x, packed, residual, out_channels, kernel_size, stride, padding,
        dilation, groups, float_output,
    )  # fmt: skip


def int8_depthwise_conv2d_fake(
    x: Tensor,
    packed: Tensor,
    residual: Tensor | None,
    kernel_size: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    float_output: bool,
) -> Tensor:
    """Shape rule of int8_depthwise_conv2d."""
    size = output_size(x, kernel_size, stride, padding, dilation)
    return _result(x, x.shape[1], size, torch.float32 if float_output else torch.uint8)


def int8_depthwise_conv2d_ref(
    x: Tensor,
    packed: Tensor,
    residual: Tensor | None,
    kernel_size: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    float_output: bool,
) -> Tensor:
    """Return the convolution with one filter a channel; arguments as int8_conv2d."""
    channels = x.shape[1] if x.dim() > 1 else -1
    return _static(
        "int8_depthwise_conv2d", "depthwise_conv2d", x, packed, residual, channels, kernel_size,
        stride, padding, dilation, channels, float_output,
    )  # fmt: skip


def int8_conv2d_dynamic_fake(
    x: Tensor,
    packed: Tensor,
    out_channels: int,
    kernel_size: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> Tensor:
    """Shape rule of int8_conv2d_dynamic."""
    size = output_size(x, kernel_size, stride, padding, dilation)
    return _result(x, out_channels, size, torch.float32)


def int8_conv2d_dynamic_ref(
    x: Tensor,
    packed: Tensor,
    out_channels: int,
    kernel_size: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> Tensor:
    """Return conv2d(x, weight) + bias with each sample of x quantized by its own range.

    x: [N, C, H, W] float32 -> [N, out_channels, OH, OW] float32, NHWC memory. One range a sample
    keeps the result of a sample independent of the batch it came in.
    """
    op = "int8_conv2d_dynamic"
    if x.dtype != torch.float32:
        raise TypeError(f"{op}: expected x float32, got {x.dtype}")
    parts = unpack(packed)
    kind = OPS[parts.header.op]
    check_packed(op, parts, "conv2d" if kind == "linear" else kind, True, True)
    _check_geometry(op, x, parts, kernel_size, groups, out_channels)
    out = _result(
        x, out_channels, output_size(x, kernel_size, stride, padding, dilation), torch.float32
    )
    if out.numel() == 0:
        return out
    q, scale, zero_point = quantize_rows(x.reshape(x.shape[0], -1))
    acc = _accumulate(q.reshape(x.shape), zero_point, parts, stride, padding, dilation, groups)
    return out.copy_(dynamic_epilogue(acc, parts, scale, zero_point).permute(0, 3, 1, 2))


_GEOMETRY = "int[2] kernel_size, int[2] stride, int[2] padding, int[2] dilation"
INT8_CONV2D = OpSpec(
    "int8_conv2d",
    f"(Tensor x, Tensor packed, Tensor? residual, int out_channels, {_GEOMETRY}, int groups, "
    "bool float_output) -> Tensor",
    int8_conv2d_fake,
    int8_conv2d_ref,
)
INT8_DEPTHWISE_CONV2D = OpSpec(
    "int8_depthwise_conv2d",
    f"(Tensor x, Tensor packed, Tensor? residual, {_GEOMETRY}, bool float_output) -> Tensor",
    int8_depthwise_conv2d_fake,
    int8_depthwise_conv2d_ref,
)
INT8_CONV2D_DYNAMIC = OpSpec(
    "int8_conv2d_dynamic",
    f"(Tensor x, Tensor packed, int out_channels, {_GEOMETRY}, int groups) -> Tensor",
    int8_conv2d_dynamic_fake,
    int8_conv2d_dynamic_ref,
)
