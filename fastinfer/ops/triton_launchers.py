"""What serves ops on CUDA tensors where no CUDA kernel was built: fastinfer.kernels, by Triton.

Triton is imported at the first call. What a launcher cannot serve, the op's reference does.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from fastinfer.ops.kernels_package import load_kernels
from fastinfer.types.packed import FLAG_DYNAMIC, FLAG_FLOAT_OUTPUT, OPS, Unpacked, unpack

#: Packed weight -> its parts, and the kernel's layer or None where it is no weight of it; as long
#: as the packed tensor lives.
_layers = WeakTensorKeyDictionary()


def _kernels(name: str) -> Any:
    load_kernels()
    return import_module(f"fastinfer.kernels.{name}")


def most_values() -> int:
    """Return how many values a row may have that quantize_rows takes."""
    return int(_kernels("rows").ROW_CONFIGS[-1].columns)


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (codes uint8, scale float32, zero_point int32) of each row of x [*, K] float32."""
    codes, scale, zero_point = _kernels("quantize_rows").quantize_rows(x)
    return codes, scale, zero_point


def int8_layer(packed: Tensor) -> tuple[Unpacked, Any]:
    """Return the parts of a packed linear weight, and the layer that int8_linear takes."""
    if packed not in _layers:
        parts = unpack(packed.cpu())  # the header is read: a wait, once for a layer
        h = parts.header

        def there(part: Tensor) -> Tensor | None:
            return part.to(packed.device) if part.numel() else None

        layer = None
        if OPS[h.op] == "linear" and not h.has(FLAG_DYNAMIC):
            layer = _kernels("int8_linear").Int8Weight(
                parts.weight.to(packed.device), parts.bias.to(packed.device),
                parts.multiplier.to(packed.device), there(parts.residual_multiplier),
                there(parts.table), h.out_zero_point, h.qmin, h.qmax, h.clamp_min, h.clamp_max,
                h.has(FLAG_FLOAT_OUTPUT),
            )  # fmt: skip
        _layers[packed] = parts, layer
    found: tuple[Unpacked, Any] = _layers[packed]
    return found


def int8_linear(x: Tensor, layer: Any, residual: Tensor | None) -> Tensor:
    """Return epilogue(bias + x @ weight.T); x: [*, K] uint8 -> [*, N] uint8 or float32."""
    result: Tensor = _kernels("int8_linear").int8_linear(x, layer, residual)
    return result


def is_row(x: Tensor) -> bool:
    """Return whether quantize_rows takes x's rows; an empty or a very long one it does not."""
    return x.dim() > 0 and 0 < x.shape[-1] <= most_values()


def quantize_dynamic(x: Tensor, per_token: bool) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return (codes, scale, zero_point) of x [*, K] float32, a range a row or one; None: not here.

    One range for all is that of a row of all values.
    """
    if not per_token:
        flat = x.reshape(-1)
        if not is_row(flat):
            return None
        codes, scale, zero_point = quantize_rows(flat)
        return codes.reshape(x.shape), scale, zero_point
    if not is_row(x) or x.dtype != torch.float32:
        return None
    return quantize_rows(x)
