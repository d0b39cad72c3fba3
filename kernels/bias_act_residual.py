"""What follows a float product: + bias, + residual, activation, and quantizing in the same pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .activations import activate, activate_ref, activation_kind
from .codes import OF_ROW, Codes, QuantizedRows, is_of_row, new_result, result_ref, store_rows
from .rows import (
    as_rows,
    check_float,
    check_like,
    load_vector,
    row_programs,
    tile_of_rows,
    value_config,
)

_OP = "bias_act_residual"


@triton.jit
def _bias_act_residual_kernel(
    x_ptr,
    bias_ptr,
    residual_ptr,
    out_ptr,
    scale_ptr,
    zero_point_ptr,
    rows,
    n,
    x_stride,
    residual_stride,
    step,
    zero,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    KIND: tl.constexpr,
    MODE: tl.constexpr,
    CODE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    row, column, row_inside, inside = tile_of_rows(
        rows, n, MODE == OF_ROW, BLOCK_ROWS, BLOCK_COLUMNS
    )
    x = tl.load(x_ptr + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0)
    bias = load_vector(bias_ptr, column, n, HAS_BIAS)
    residual = x  # all that is read is on its way before any is waited for
    if HAS_RESIDUAL:
        from_ptr = residual_ptr + row[:, None] * residual_stride + column[None, :]
        residual = tl.load(from_ptr, mask=inside, other=0.0)
    y = x.to(tl.float32)
    if HAS_BIAS:
        y = y + bias.to(tl.float32)
    if HAS_RESIDUAL:
        y = y + residual.to(tl.float32)
    store_rows(
        activate(y, KIND), row, column, row_inside, inside, n, out_ptr, scale_ptr, zero_point_ptr,
        step, zero, MODE, CODE,
    )  # fmt: skip


def bias_act_residual(
    x: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str = "identity",
    codes: Codes | None = None,
) -> Tensor | QuantizedRows:
    """Return activation(x + bias + residual), as x's dtype or codes: the epilogue's order.

    x, residual: [*, n] float32, float16 or bfloat16, computed in float32; bias: [n] of a float
    dtype. activation: identity, relu, silu, gelu or gelu_tanh.

    Raises:
        TypeError: x or bias is no float tensor, or residual of another dtype than x.
        ValueError: an unknown activation, a shape or device that does not fit, or a row that is
            longer than the largest tile.
    """
    check_float(_OP, "x", x)
    check_like(_OP, "bias", bias, [x.shape[-1]], x, "float")
    check_like(_OP, "residual", residual, x.shape, x)
    kind = activation_kind(_OP, activation)
    config = value_config(_OP, x.shape[-1], is_of_row(codes))
    result = new_result(_OP, x, codes)
    rows = as_rows(x)
    residuals = rows if residual is None else as_rows(residual)
    if rows.shape[0]:
        with torch.cuda.device_of(x):
            _bias_act_residual_kernel[(row_programs(config, *rows.shape),)](
                rows, rows if bias is None else bias.contiguous(), residuals, result.out,
                result.scale, result.zero_point, *rows.shape, rows.stride(0), residuals.stride(0),
                result.step, result.zero, bias is not None, residual is not None, kind,
                result.mode, result.code, config.rows, config.columns, num_warps=config.warps,
                enable_fp_fusion=False,
            )  # fmt: skip
    return result.value


def bias_act_residual_ref(
    x: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str = "identity",
    codes: Codes | None = None,
) -> Tensor | QuantizedRows:
    """Return what bias_act_residual returns, in plain PyTorch."""
    y = x.float()
    if bias is not None:
        y = y + bias.float()
    if residual is not None:
        y = y + residual.float()
    return result_ref(activate_ref(y, activation), x.dtype, codes)
