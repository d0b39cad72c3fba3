"""Rows of floats to int8 or uint8 codes, each row by its own range."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .codes import OF_ROW, Codes, QuantizedRows, is_of_row, new_result, quantized_ref, store_rows
from .rows import as_rows, check_float, row_programs, tile_of_rows, value_config

_OP = "quantize_rows"


@triton.jit
def _quantize_rows_kernel(
    x_ptr,
    out_ptr,
    scale_ptr,
    zero_point_ptr,
    rows,
    n,
    x_stride,
    step,
    zero,
    MODE: tl.constexpr,
    CODE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    row, column, row_inside, inside = tile_of_rows(
        rows, n, MODE == OF_ROW, BLOCK_ROWS, BLOCK_COLUMNS
    )
    x = tl.load(x_ptr + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0)
    store_rows(
        x.to(tl.float32), row, column, row_inside, inside, n, out_ptr, scale_ptr, zero_point_ptr,
        step, zero, MODE, CODE,
    )  # fmt: skip


def quantize_rows(x: Tensor, codes: Codes | None = None) -> QuantizedRows:
    """Return x [*, n] float32, float16 or bfloat16 as codes, with scale and zero point a row.

    codes: Codes() where None, uint8 by each row's range: what fastinfer::quantize_dynamic returns
    per token of a float32 x, bit for bit. A range always holds zero; a row of zeros has scale 1.

    Raises:
        TypeError: x is no float tensor.
        ValueError: a row is empty, or longer than the largest tile.
    """
    check_float(_OP, "x", x)
    codes = codes or Codes()
    config = value_config(_OP, x.shape[-1], is_of_row(codes))
    result = new_result(_OP, x, codes)
    rows = as_rows(x)
    if rows.shape[0]:
        with torch.cuda.device_of(x):
            _quantize_rows_kernel[(row_programs(config, *rows.shape),)](
                rows, result.out, result.scale, result.zero_point, *rows.shape, rows.stride(0),
                result.step, result.zero, result.mode, result.code, config.rows, config.columns,
                num_warps=config.warps, enable_fp_fusion=False,
            )  # fmt: skip
    return QuantizedRows(*result.value)


def quantize_rows_ref(x: Tensor, codes: Codes | None = None) -> QuantizedRows:
    """Return what quantize_rows returns, in plain PyTorch."""
    return quantized_ref(x.float(), codes or Codes())
