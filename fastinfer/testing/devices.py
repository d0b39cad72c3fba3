"""A case's arguments on another device, with weights packed there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastinfer.types.packed import (
    FLAG_FLOAT_OUTPUT,
    FLAG_STRIDED,
    HEADER_BYTES,
    MAGIC,
    OPS,
    Unpacked,
    unpack,
)


def is_packed(value: Any) -> bool:
    """Return whether a value is a packed weight."""
    if not isinstance(value, Tensor) or value.dtype != torch.uint8 or value.dim() != 1:
        return False
    return value.numel() >= HEADER_BYTES and bytes(value[:4].cpu().tolist()) == MAGIC


def pack_again(parts: Unpacked, device: torch.device | str) -> Tensor:
    """Return the weight of these parts packed for a device; a CPU: for the ISA in force."""
    h = parts.header

    def there(part: Tensor) -> Tensor | None:
        return part.to(device) if part.numel() else None

    op = OPS[h.op]
    groups = h.n if op == "depthwise_conv2d" else h.groups
    return torch.ops.fastinfer.int8_prepack(
        op, parts.weight.to(device), parts.bias.to(device), parts.multiplier.to(device),
        there(parts.residual_multiplier), there(parts.table), there(parts.float_bias), groups,
        h.x_zero_point, h.out_zero_point, h.qmin, h.qmax, h.clamp_min, h.clamp_max,
        h.has(FLAG_FLOAT_OUTPUT), h.has(FLAG_STRIDED),
    )  # fmt: skip


def on_device(arguments: tuple[Any, ...], device: torch.device | str) -> tuple[Any, ...]:
    """Return an op's arguments on a device: tensors with their strides, weights packed again."""

    def moved(value: Any) -> Any:
        if is_packed(value):
            return pack_again(unpack(value), device)
        if isinstance(value, list):
            return [moved(entry) for entry in value]
        return value.to(device) if isinstance(value, Tensor) else value

    return tuple(moved(value) for value in arguments)
