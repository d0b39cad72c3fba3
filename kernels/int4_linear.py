"""Products of few rows with int4 weights, a scale for every 128: a quarter of float16's bytes."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .rows import check_like
from .split_k import new_parts, store_product, sum_parts
from .tiles import int4_config, programs, split_of_k, tile_of_product

_OP = "int4_linear"
#: Weights that share a scale. Byte j of a group holds weight j in its low half and j + 64 above, so
#: that the halves are two products and nothing is shuffled.
GROUP = 128


class Int4Weight(NamedTuple):
    """codes [N, K / 2] uint8, two weights + 8 each; scale [K / 128, N] float32."""

    codes: Tensor
    scale: Tensor


def quantize_int4(weight: Tensor) -> Int4Weight:
    """Return a weight [N, K] of a float dtype as codes -7..7 of each group's largest magnitude.

    Raises:
        ValueError: K is no multiple of 128.
    """
    if weight.dim() != 2 or weight.shape[1] % GROUP or not weight.numel():
        raise ValueError(
            f"quantize_int4: expected weight [N, K] with K a multiple of {GROUP}, got "
            f"{list(weight.shape)}; pad K with zeros"
        )
    groups = weight.float().reshape(weight.shape[0], -1, GROUP)
    scale = groups.abs().amax(-1) / 7
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    codes = (torch.round(groups / scale[..., None]).clamp(-7, 7) + 8).to(torch.uint8)
    low, high = codes.chunk(2, -1)
    return Int4Weight((low | high << 4).flatten(1), scale.t().contiguous())


def dequantize_int4(weight: Int4Weight) -> Tensor:
    """Return the weight [N, K] float32."""
    groups = weight.codes.reshape(weight.codes.shape[0], -1, GROUP // 2)
    codes = torch.cat((groups & 15, groups >> 4), -1).float() - 8
    return (codes * weight.scale.t()[..., None]).flatten(1)


@triton.jit
def _weights(codes, dtype: tl.constexpr):
    """Return codes - 8 as float16 or bfloat16, without a slow conversion.

    Codes are the low bits of 1024 + code in float16, and of 128 + code in bfloat16.
    """
    if dtype == tl.float16:
        return (codes.to(tl.int16) | 0x6400).to(dtype, bitcast=True) - 1032.0
    return (codes.to(tl.int16) | 0x4300).to(dtype, bitcast=True) - 136.0


@triton.jit
def _int4_linear_kernel(
    x_ptr,
    codes_ptr,
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
    HALF: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    row, column, row_inside, column_inside = tile_of_product(m, n, BLOCK_M, BLOCK_N)
    depth = tl.arange(0, HALF)
    x_from = x_ptr + row[None, :] * x_stride + depth[:, None]
    codes_from = codes_ptr + column[:, None].to(tl.int64) * (k // 2) + depth[None, :]
    acc = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
    first = tl.program_id(1) * k_part
    for start in range(first, tl.minimum(first + k_part, k), 2 * HALF):
        codes = tl.load(codes_from + start // 2, mask=column_inside[:, None], other=0)
        front = tl.load(x_from + start, mask=row_inside[None, :], other=0.0)
        back = tl.load(x_from + start + HALF, mask=row_inside[None, :], other=0.0)
        scale_from = scale_ptr + start // (2 * HALF) * n
        scale = tl.load(scale_from + column, mask=column_inside, other=0.0)
        low = _weights(codes & 15, x_ptr.dtype.element_ty)
        high = _weights(codes >> 4, x_ptr.dtype.element_ty)
        part = tl.dot(low, front)
        part = tl.dot(high, back, part)
        acc += part * scale[:, None]
    store_product(
        acc, row, column, row_inside, column_inside, m, n, scale_ptr, bias_ptr, out_ptr, False,
        HAS_BIAS, IS_SPLIT,
    )  # fmt: skip


def int4_linear(x: Tensor, weight: Int4Weight, bias: Tensor | None = None) -> Tensor:
    """Return x @ dequantized.T + bias as x's dtype; sums in float32.

    x: [*, K] float16 or bfloat16. weight: of quantize_int4. bias: [N] of a float dtype or None.
    Meant for up to some 64 rows, where reading the weight takes the time.

    Raises:
        TypeError: x is of another dtype, or the weight's parts are.
        ValueError: a shape or device does not fit.
    """
    codes, scale = weight
    if x.dtype not in (torch.float16, torch.bfloat16):
        raise TypeError(f"{_OP}: expected x float16 or bfloat16, got {x.dtype}")
    if codes.dtype != torch.uint8 or scale.dtype != torch.float32:
        raise TypeError(
            f"{_OP}: expected codes uint8 and scale float32, got {codes.dtype}, {scale.dtype}"
        )
    if x.dim() == 0 or codes.dim() != 2 or x.shape[-1] != 2 * codes.shape[1] or not codes.numel():
        raise ValueError(
            f"{_OP}: expected x [*, K] and codes [N, K / 2], got {list(x.shape)}, "
            f"{list(codes.shape)}"
        )
    n, k = codes.shape[0], x.shape[-1]
    check_like(_OP, "codes", codes, [n, k // 2], x, "any")
    check_like(_OP, "scale", scale, [k // GROUP, n], x, "float")
    check_like(_OP, "bias", bias, [n], x, "float")
    out = torch.empty((*x.shape[:-1], n), dtype=x.dtype, device=x.device)
    if out.numel() == 0:
        return out
    rows = x.reshape(-1, k)
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    m = rows.shape[0]
    config = int4_config(m)
    splits, k_part = split_of_k(config, m, n, k)
    parts = new_parts(splits, m, n, out)
    with torch.cuda.device_of(x):
        _int4_linear_kernel[(programs(config, m, n), splits)](
            rows, codes.contiguous(), scale.contiguous(),
            scale if bias is None else bias.contiguous(), parts, m, n, k, rows.stride(0), k_part,
            bias is not None, splits > 1, config.k // 2, config.m, config.n,
            num_warps=config.warps, num_stages=config.stages,
        )  # fmt: skip
        if splits > 1:
            sum_parts(parts, None, bias, out)
    return out


def int4_linear_ref(x: Tensor, weight: Int4Weight, bias: Tensor | None = None) -> Tensor:
    """Return what int4_linear returns, in plain PyTorch: computed in float32."""
    y = x.float() @ dequantize_int4(weight).t()
    return (y if bias is None else y + bias.float()).to(x.dtype)
