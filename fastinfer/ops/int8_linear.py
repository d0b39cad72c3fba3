"""uint8 x int8 matrix products with a fused epilogue."""

from __future__ import annotations

import torch
from torch import Tensor

from fastinfer.ops import triton_launchers
from fastinfer.ops.int8_epilogue import (
    check_packed,
    check_residual,
    check_uint8,
    dynamic_epilogue,
    static_epilogue,
)
from fastinfer.ops.quantize import quantize_rows
from fastinfer.ops.spec import OpSpec
from fastinfer.types.packed import Unpacked, unpack


def _result(x: Tensor, out_features: int, dtype: torch.dtype) -> Tensor:
    return torch.empty((*x.shape[:-1], out_features), dtype=dtype, device=x.device)


def _check_features(op: str, x: Tensor, parts: Unpacked, out_features: int) -> None:
    h = parts.header
    if x.dim() < 1 or x.shape[-1] != h.k:
        raise ValueError(
            f"{op}: expected x [*, {h.k}] (weight has in_features={h.k}), got {list(x.shape)}"
        )
    if out_features != h.n:
        raise ValueError(f"{op}: expected out_features={h.n} as packed, got {out_features}")


def _multiply(x: Tensor, parts: Unpacked) -> Tensor:
    """Return x [R, K] times the weight, exactly, in float64."""
    return x.to(torch.float64) @ parts.weight.to(x.device, torch.float64).t()


def int8_linear_fake(
    x: Tensor, packed: Tensor, residual: Tensor | None, out_features: int, float_output: bool
) -> Tensor:
    """Shape rule of int8_linear."""
    return _result(x, out_features, torch.float32 if float_output else torch.uint8)


def int8_linear_ref(
    x: Tensor, packed: Tensor, residual: Tensor | None, out_features: int, float_output: bool
) -> Tensor:
    """Return epilogue(bias + x @ weight.T); x: [*, K] uint8 -> [*, N] uint8 or float32."""
    check_uint8("int8_linear", x)
    parts = unpack(packed)
    check_packed("int8_linear", parts, "linear", False, float_output)
    _check_features("int8_linear", x, parts, out_features)
    shape = [*x.shape[:-1], out_features]
    check_residual("int8_linear", parts, residual, shape)
    acc = _multiply(x.reshape(-1, parts.header.k), parts) + parts.bias.to(x.device)
    flat = None if residual is None else residual.reshape(-1, out_features)
    return static_epilogue(acc, parts, flat).reshape(shape)


def int8_linear_triton(
    x: Tensor, packed: Tensor, residual: Tensor | None, out_features: int, float_output: bool
) -> Tensor:
    """Return what the reference does, by Triton."""
    check_uint8("int8_linear", x)
    parts, layer = triton_launchers.int8_layer(packed)
    check_packed("int8_linear", parts, "linear", False, float_output)
    _check_features("int8_linear", x, parts, out_features)
    check_residual("int8_linear", parts, residual, [*x.shape[:-1], out_features])
    return triton_launchers.int8_linear(x, layer, residual)


def int8_linear_dynamic_fake(
    x: Tensor, packed: Tensor, out_features: int, per_token: bool
) -> Tensor:
    """Shape rule of int8_linear_dynamic."""
    return _result(x, out_features, torch.float32)


def int8_linear_dynamic_ref(
    x: Tensor, packed: Tensor, out_features: int, per_token: bool
) -> Tensor:
    """Return x @ weight.T + bias with x quantized on the fly; x: [*, K] float32 -> [*, N].

    per_token: one range a row, otherwise one for the tensor.
    """
    if x.dtype != torch.float32:
        raise TypeError(f"int8_linear_dynamic: expected x float32, got {x.dtype}")
    parts = unpack(packed)
    check_packed("int8_linear_dynamic", parts, "linear", True, True)
    _check_features("int8_linear_dynamic", x, parts, out_features)
    rows = x.reshape(-1, parts.header.k)
    if rows.numel() == 0 and rows.shape[0] == 0:
        return _result(x, out_features, torch.float32)
    q, scale, zero_point = quantize_rows(rows if per_token else rows.reshape(1, -1))
    acc = _multiply(q.reshape(rows.shape), parts)
    return dynamic_epilogue(acc, parts, scale, zero_point).reshape(*x.shape[:-1], out_features)


INT8_LINEAR = OpSpec(
    "int8_linear",
    "(Tensor x, Tensor packed, Tensor? residual, int out_features, bool float_output) -> Tensor",
    int8_linear_fake,
    int8_linear_ref,
    int8_linear_triton,
)
INT8_LINEAR_DYNAMIC = OpSpec(
    "int8_linear_dynamic",
    "(Tensor x, Tensor packed, int out_features, bool per_token) -> Tensor",
    int8_linear_dynamic_fake,
    int8_linear_dynamic_ref,
)
