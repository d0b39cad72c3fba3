"""Softmax of rows."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .codes import Codes, QuantizedRows, is_of_row, new_result, result_ref, store_rows
from .rows import as_rows, check_float, row_config, row_programs, tile_of_rows

_OP = "softmax"


@triton.jit
def _softmax_kernel(
    x_ptr,
    out_ptr,
    scale_ptr,
    zero_point_ptr,
    rows,
    n,
    x_stride,
    factor,
    step,
    zero,
    MODE: tl.constexpr,
    CODE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    row, column, row_inside, inside = tile_of_rows(rows, n, True, BLOCK_ROWS, BLOCK_COLUMNS)
    from_ptr = x_ptr + row[:, None] * x_stride + column[None, :]
    x = tl.load(from_ptr, mask=inside, other=0.0).to(tl.float32)
    # A negative factor would turn -inf round.
    x = tl.where(inside, x * tl.full([1, 1], factor, tl.float32), float("-inf"))
    power = tl.exp(x - tl.max(x, axis=1)[:, None])  # 0 outside, or NaN where all of the row is
    y = power * (1.0 / tl.sum(power, axis=1))[:, None]
    store_rows(
        y, row, column, row_inside, inside, n, out_ptr, scale_ptr, zero_point_ptr, step, zero, MODE,
        CODE,
    )  # fmt: skip


def softmax(x: Tensor, factor: float = 1.0, codes: Codes | None = None) -> Tensor | QuantizedRows:
    """Return the softmax of factor * x over the last dimension, as x's dtype or codes.

    x: [*, n] float32, float16 or bfloat16, computed in float32. A row without a finite number is
    NaN.

    Raises:
        TypeError: x is no float tensor.
        ValueError: a row is empty, or longer than the largest tile.
    """
    check_float(_OP, "x", x)
    config = row_config(_OP, x.shape[-1], is_of_row(codes))
    result = new_result(_OP, x, codes)
    rows = as_rows(x)
    if rows.shape[0]:
        with torch.cuda.device_of(x):
            _softmax_kernel[(row_programs(config, *rows.shape),)](
                rows, result.out, result.scale, result.zero_point, *rows.shape, rows.stride(0),
                factor, result.step, result.zero, result.mode, result.code, config.rows,
                config.columns, num_warps=config.warps,
                enable_fp_fusion=False,
            )  # fmt: skip
    return result.value


def softmax_ref(
    x: Tensor, factor: float = 1.0, codes: Codes | None = None
) -> Tensor | QuantizedRows:
    """Return what softmax returns, in plain PyTorch; the sum in another order."""
    return result_ref(torch.softmax(x.float() * factor, -1), x.dtype, codes)
