"""RMS norm of rows, and quantizing in the same pass."""

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

_OP = "rms_norm"


@triton.jit
def _rms_norm_kernel(
    x_ptr,
    weight_ptr,
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
    MODE: tl.constexpr,
    CODE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    row, column, row_inside, inside = tile_of_rows(rows, n, True, BLOCK_ROWS, BLOCK_COLUMNS)
    x = tl.load(x_ptr + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0)
    weight = load_vector(weight_ptr, column, n, HAS_WEIGHT)  # on its way before x is waited for
    x = x.to(tl.float32)
    square = tl.sum(x * x, axis=1) / (tl.full([BLOCK_ROWS], 0.0, tl.float32) + n)
    y = x * tl.rsqrt(square + tl.full([1], eps, tl.float32))[:, None]
    if HAS_WEIGHT:
        y = y * weight.to(tl.float32)
    store_rows(
        y, row, column, row_inside, inside, n, out_ptr, scale_ptr, zero_point_ptr, step, zero, MODE,
        CODE,
    )  # fmt: skip


def rms_norm(
    x: Tensor, weight: Tensor | None = None, eps: float = 1e-6, codes: Codes | None = None
) -> Tensor | QuantizedRows:
    """Return x / sqrt(mean(x^2) + eps) * weight of each row, as x's dtype or codes.

    x: [*, n] float32, float16 or bfloat16, computed in float32. weight: [n] of a float dtype or
    None.

    Raises:
        TypeError: x or weight is no float tensor.
        ValueError: a shape or device does not fit, or a row is longer than the largest tile.

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", equation 4.
    """
    check_float(_OP, "x", x)
    check_like(_OP, "weight", weight, [x.shape[-1]], x, "float")
    config = row_config(_OP, x.shape[-1], is_of_row(codes))
    result = new_result(_OP, x, codes)
    rows = as_rows(x)
    if rows.shape[0]:
        with torch.cuda.device_of(x):
            _rms_norm_kernel[(row_programs(config, *rows.shape),)](
                rows, rows if weight is None else weight.contiguous(), result.out, result.scale,
                result.zero_point, *rows.shape, rows.stride(0), eps, result.step, result.zero,
                weight is not None, result.mode, result.code, config.rows, config.columns,
                num_warps=config.warps,
                enable_fp_fusion=False,
            )  # fmt: skip
    return result.value


def rms_norm_ref(
    x: Tensor, weight: Tensor | None = None, eps: float = 1e-6, codes: Codes | None = None
) -> Tensor | QuantizedRows:
    """Return what rms_norm returns, in plain PyTorch; the sum in another order."""
    f = x.float()
    y = f * (1.0 / torch.sqrt(f.square().mean(-1, keepdim=True) + eps))
    return result_ref(y if weight is None else y * weight.float(), x.dtype, codes)
