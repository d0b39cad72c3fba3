"""Products of few rows with int8 weights: what moves is half of what float16 weights would."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .rows import check_like
from .split_k import new_parts, store_product, sum_parts
from .tiles import programs, split_of_k, tile_of_product, weight_only_config

_OP = "weight_only_linear"


@triton.jit
def _weights(w, dtype: tl.constexpr):
    """Return int8 as float16 or bfloat16, which hold it exactly.

    w + 128 are the low bits of 1024 + w + 128 in float16: no slow conversion.
    """
    if dtype == tl.float16:
        codes = (w.to(tl.uint8, bitcast=True) ^ 128).to(tl.int16)
        return (codes | 0x6400).to(dtype, bitcast=True) - 1152.0
    return w.to(dtype)


@triton.jit
def _weight_only_linear_kernel(
    x_ptr,
    weight_ptr,
    scale_ptr,
    bias_ptr,
    out_ptr,
    m,
    n,
    k,
    x_stride,
    k_part,
    HAS_BIAS: tl.constexpr,
    IS_SPLIT: tl.constexpr,
    IS_WEIGHT_LEFT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row, column, row_inside, column_inside = tile_of_product(m, n, BLOCK_M, BLOCK_N)
    depth = tl.arange(0, BLOCK_K)
    first = tl.program_id(1) * k_part
    last = tl.minimum(first + k_part, k)
    if IS_WEIGHT_LEFT:
        # Hopper's tensor cores take the left factor from the registers that it is converted in.
        x_from = x_ptr + row[None, :] * x_stride + depth[:, None]
        weight_from = weight_ptr + column[:, None].to(tl.int64) * k + depth[None, :]
        acc = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
        for start in range(first, last, BLOCK_K):
            left = depth < k - start
            w = tl.load(weight_from + start, mask=column_inside[:, None] & left[None, :], other=0)
            x = tl.load(x_from + start, mask=left[:, None] & row_inside[None, :], other=0.0)
            acc = tl.dot(_weights(w, x.dtype), x, acc)
    else:
        x_from = x_ptr + row[:, None] * x_stride + depth[None, :]
        weight_from = weight_ptr + column[None, :].to(tl.int64) * k + depth[:, None]
        sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        for start in range(first, last, BLOCK_K):
            left = depth < k - start
            x = tl.load(x_from + start, mask=row_inside[:, None] & left[None, :], other=0.0)
            w = tl.load(weight_from + start, mask=left[:, None] & column_inside[None, :], other=0)
            sums = tl.dot(x, _weights(w, x.dtype), sums)
        acc = tl.trans(sums)
    store_product(
        acc, row, column, row_inside, column_inside, m, n, scale_ptr, bias_ptr, out_ptr, True,
        HAS_BIAS, IS_SPLIT,
    )  # fmt: skip


def weight_only_linear(
    x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Return x @ (scale * weight).T + bias as x's dtype; sums in float32.

    x: [*, K] float16 or bfloat16. weight: [N, K] int8. scale: [N] float32. bias: [N] of a float
    dtype or None. Meant for up to some 64 rows, where reading the weight takes the time.

    Raises:
        TypeError: x, weight, scale or bias is of another dtype.
        ValueError: a shape or device does not fit.
    """
    if x.dtype not in (torch.float16, torch.bfloat16):
        raise TypeError(f"{_OP}: expected x float16 or bfloat16, got {x.dtype}")
    if weight.dtype != torch.int8 or scale.dtype != torch.float32:
        raise TypeError(
            f"{_OP}: expected weight int8 and scale float32, got {weight.dtype}, {scale.dtype}"
        )
    if x.dim() == 0 or weight.dim() != 2 or x.shape[-1] != weight.shape[1] or not weight.numel():
        raise ValueError(
            f"{_OP}: expected x [*, K] and weight [N, K], got {list(x.shape)}, {list(weight.shape)}"
        )
    n, k = weight.shape
    check_like(_OP, "weight", weight, [n, k], x, "any")
    check_like(_OP, "scale", scale, [n], x, "float")
    check_like(_OP, "bias", bias, [n], x, "float")
    out = torch.empty((*x.shape[:-1], n), dtype=x.dtype, device=x.device)
    if out.numel() == 0:
        return out
    rows = x.reshape(-1, k)
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    m, scale = rows.shape[0], scale.contiguous()
    config = weight_only_config(m)
    is_weight_left = config.n >= 64
    splits, k_part = split_of_k(config, m, n, k) if is_weight_left else (1, k)
    parts = new_parts(splits, m, n, out)
    with torch.cuda.device_of(x):
        _weight_only_linear_kernel[(programs(config, m, n), splits)](
            rows, weight.contiguous(), scale, scale if bias is None else bias.contiguous(), parts,
            m, n, k, rows.stride(0), k_part, bias is not None, splits > 1, is_weight_left,
            config.m, config.n, config.k, num_warps=config.warps, num_stages=config.stages,
        )  # fmt: skip
        if splits > 1:
            sum_parts(parts, scale, bias, out)
    return out


def weight_only_linear_ref(
    x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Return what weight_only_linear returns, in plain PyTorch: computed in float32."""
    y = (x.float() @ weight.float().t()) * scale
    return (y if bias is None else y + bias.float()).to(x.dtype)
