"""Layer norm of rows, and quantizing in the same pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .codes import Codes, QuantizedRows, is_of_row, new_result, result_ref, store_rows
from .rows import (
    as_rows,
    check_float,
    check_like,
    load_vector,
    row_config,
    row_programs,
    tile_of_rows,
)

_OP = "layer_norm"


@triton.jit
def _layer_norm_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    scale_ptr,
    zero_point_ptr,
    rows,
    n,
    x_stride,
    eps,
    step,
    zero,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    MODE: tl.constexpr,
    CODE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    row, column, row_inside, inside = tile_of_rows(rows, n, True, BLOCK_ROWS, BLOCK_COLUMNS)
    x = tl.load(x_ptr + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0)
    weight = load_vector(weight_ptr, column, n, HAS_WEIGHT)  # on its way before x is waited for
    bias = load_vector(bias_ptr, column, n, HAS_BIAS)
    x = x.to(tl.float32)
    share = 1.0 / (tl.full([BLOCK_ROWS], 0.0, tl.float32) + n)
    mean = tl.sum(x, axis=1) * share
    away = tl.where(inside, x - mean[:, None], 0.0)
    variance = tl.sum(away * away, axis=1) * share
    y = away * tl.rsqrt(variance + tl.full([1], eps, tl.float32))[:, None]
    if HAS_WEIGHT:
        y = y * weight.to(tl.float32)
    if HAS_BIAS:
        y = y + bias.to(tl.float32)
    store_rows(
        y, row, column, row_inside, inside, n, out_ptr, scale_ptr, zero_point_ptr, step, zero, MODE,
        CODE,
    )  # fmt: skip


def layer_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    codes: Codes | None = None,
) -> Tensor | QuantizedRows:
    """Return (x - mean) / sqrt(variance + eps) * weight + bias of each row, as x's dtype or codes.

    x: [*, n] float32, float16 or bfloat16, computed in float32; variance: the mean of
    (x - mean)^2. weight, bias: [n] of a float dtype, or None.

    Raises:
        TypeError: x, weight or bias is no float tensor.
        ValueError: a shape or device does not fit, or a row is longer than the largest tile.
    """
    check_float(_OP, "x", x)
    n = x.shape[-1]
    check_like(_OP, "weight", weight, [n], x, "float")
    check_like(_OP, "bias", bias, [n], x, "float")
    config = row_config(_OP, n, is_of_row(codes))
    result = new_result(_OP, x, codes)
    rows = as_rows(x)
    if rows.shape[0]:
        with torch.cuda.device_of(x):
            _layer_norm_kernel[(row_programs(config, *rows.shape),)](
                rows, rows if weight is None else weight.contiguous(),
                rows if bias is None else bias.contiguous(), result.out, result.scale,
                result.zero_point, *rows.shape, rows.stride(0), eps, result.step, result.zero,
                weight is not None, bias is not None, result.mode, result.code, config.rows,
                config.columns, num_warps=config.warps,
                enable_fp_fusion=False,
            )  # fmt: skip
    return result.value


def layer_norm_ref(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    codes: Codes | None = None,
) -> Tensor | QuantizedRows:
    """Return what layer_norm returns, in plain PyTorch; sums in another order."""
    f = x.float()
    away = f - f.mean(-1, keepdim=True)
    y = away * (1.0 / torch.sqrt(away.square().mean(-1, keepdim=True) + eps))
    if weight is not None:
        y = y * weight.float()
    if bias is not None:
        y = y + bias.float()
    return result_ref(y, x.dtype, codes)
