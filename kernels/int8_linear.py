"""uint8 x int8 products with the fused epilogue: the portable path, where no CUDA kernel is built.

Tensor cores multiply bytes of one sign, so x is taken as int8 by flipping its top bit, which is x
- 128; 128 times the sum of a weight's row is in the bias from the start. The integers are those of
fastinfer::int8_linear.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import triton
import triton.language as tl
from torch import Tensor

from .codes import round_to_codes
from .tiles import int8_config, programs, tile_of_product

_OP = "int8_linear"


@dataclass(frozen=True, eq=False)
class Int8Weight:
    """A layer's weight [N, K] int8 and what its epilogue needs.

    bias: [N] int32 with the zero-point correction folded in. multiplier: [N] float32, from sums to
    output steps. shifted_bias: what the kernel adds.

    residual_multiplier: [N] float32, of a uint8 residual's codes. table: [256] uint8, applied to
    the codes. qmin, qmax bound codes; clamp_min, clamp_max float results.
    """

    weight: Tensor
    bias: Tensor
    multiplier: Tensor
    residual_multiplier: Tensor | None = None
    table: Tensor | None = None
    out_zero_point: int = 0
    qmin: int = 0
    qmax: int = 255
    clamp_min: float = float("-inf")
    clamp_max: float = float("inf")
    float_output: bool = False
    shifted_bias: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.weight.dtype != torch.int8 or self.weight.dim() != 2 or not self.weight.numel():
            raise ValueError(
                f"Int8Weight: expected weight int8 [N, K] with elements, got {self.weight.dtype} "
                f"{list(self.weight.shape)}"
            )
        n = self.weight.shape[0]
        for name, dtype, size in (
            ("bias", torch.int32, n),
            ("multiplier", torch.float32, n),
            ("residual_multiplier", torch.float32, n),
            ("table", torch.uint8, 256),
        ):
            value = getattr(self, name)
            if value is not None and (value.dtype != dtype or list(value.shape) != [size]):
                raise ValueError(
                    f"Int8Weight: expected {name} {dtype} [{size}], got {value.dtype} "
                    f"{list(value.shape)}"
                )
        if not 0 <= self.qmin <= self.qmax <= 255 or not 0 <= self.out_zero_point <= 255:
            raise ValueError(
                "Int8Weight: expected 0 <= qmin <= qmax <= 255 and out_zero_point in 0..255, got "
                f"{self.qmin}, {self.qmax}, {self.out_zero_point}"
            )
        shifted = self.bias.long() + 128 * self.weight.long().sum(1)
        # Sums wrap in int32 as they are taken, and back: only what they end at must fit.
        object.__setattr__(self, "shifted_bias", shifted.to(torch.int32))


@triton.jit
def _int8_linear_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    multiplier_ptr,
    residual_ptr,
    residual_multiplier_ptr,
    table_ptr,
    out_ptr,
    m,
    n,
    k,
    x_stride,
    residual_stride,
    low,
    high,
    zero_point,
    HAS_RESIDUAL: tl.constexpr,
    HAS_TABLE: tl.constexpr,
    FLOAT_OUTPUT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row, column, row_inside, column_inside = tile_of_product(m, n, BLOCK_M, BLOCK_N)
    depth = tl.arange(0, BLOCK_K)
    x_from = x_ptr + row[:, None] * x_stride + depth[None, :]
    weight_from = weight_ptr + column[None, :].to(tl.int64) * k + depth[:, None]
    top_bit = tl.full([1, 1], 128, tl.uint8)
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.int32)
    for start in range(0, k, BLOCK_K):
        left = depth < k - start
        x = tl.load(x_from + start, mask=row_inside[:, None] & left[None, :], other=0)
        w = tl.load(weight_from + start, mask=left[:, None] & column_inside[None, :], other=0)
        acc = tl.dot((x ^ top_bit).to(tl.int8, bitcast=True), w, acc, out_dtype=tl.int32)
    acc = acc + tl.load(bias_ptr + column, mask=column_inside, other=0)[None, :]
    multiplier = tl.load(multiplier_ptr + column, mask=column_inside, other=0.0)
    f = acc.to(tl.float32) * multiplier[None, :]
    inside = row_inside[:, None] & column_inside[None, :]
    if HAS_RESIDUAL:
        residual_from = residual_ptr + row[:, None] * residual_stride + column[None, :]
        residual = tl.load(residual_from, mask=inside, other=0).to(tl.float32)
        if not FLOAT_OUTPUT:
            by = tl.load(residual_multiplier_ptr + column, mask=column_inside, other=0.0)
            residual = residual * by[None, :]
        f = f + residual
    to = out_ptr + row[:, None] * n + column[None, :]
    least = tl.full([1, 1], low, tl.float32)
    most = tl.full([1, 1], high, tl.float32)
    if FLOAT_OUTPUT:
        f = tl.where(f < least, least, f)  # NaN stays
        tl.store(to, tl.where(f > most, most, f), mask=inside)
    else:
        codes = round_to_codes(f, zero_point, least, most)
        if HAS_TABLE:
            codes = tl.load(table_ptr + codes)  # codes are 0..255
        tl.store(to, codes.to(tl.uint8), mask=inside)


def int8_linear(x: Tensor, layer: Int8Weight, residual: Tensor | None = None) -> Tensor:
    """Return epilogue(bias + x @ weight.T): [*, N] uint8, or float32 where the layer says so.

    x: [*, K] uint8, rows of it dense. residual: of the result's shape and dtype, exactly where the
    layer has a residual_multiplier or, with float results, anywhere.

    Raises:
        TypeError: x or the residual is of another dtype.
        ValueError: a shape or device does not fit, or the residual is missing or not wanted.
    """
    n, k = layer.weight.shape
    if x.dtype != torch.uint8:
        raise TypeError(f"{_OP}: expected x uint8, got {x.dtype}; quantize it first")
    if x.dim() == 0 or x.shape[-1] != k:
        raise ValueError(
            f"{_OP}: expected x [*, {k}] (weight has in_features={k}), got {list(x.shape)}"
        )
    if layer.weight.device != x.device:
        raise ValueError(f"{_OP}: expected layer on {x.device} as x, got {layer.weight.device}")
    shape = (*x.shape[:-1], n)
    dtype = torch.float32 if layer.float_output else torch.uint8
    _check_residual(residual, layer, shape, dtype)
    out = torch.empty(shape, dtype=dtype, device=x.device)
    if out.numel() == 0:
        return out
    rows = x.reshape(-1, k)
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    added = rows if residual is None else residual.reshape(-1, n).contiguous()
    low, high = layer.qmin - layer.out_zero_point, layer.qmax - layer.out_zero_point
    config = int8_config(rows.shape[0], n)
    with torch.cuda.device_of(x):
        _int8_linear_kernel[(programs(config, rows.shape[0], n),)](
            rows, layer.weight.contiguous(), layer.shifted_bias, layer.multiplier, added,
            _or(layer.residual_multiplier, layer.multiplier), _or(layer.table, rows), out,
            rows.shape[0], n, k, rows.stride(0), added.stride(0),
            layer.clamp_min if layer.float_output else float(low),
            layer.clamp_max if layer.float_output else float(high), layer.out_zero_point,
            residual is not None, layer.table is not None, layer.float_output, config.m, config.n,
            config.k, num_warps=config.warps, num_stages=config.stages, enable_fp_fusion=False,
        )  # fmt: skip
    return out


def _or(value: Tensor | None, otherwise: Tensor) -> Tensor:
    return otherwise if value is None else value


def _check_residual(
    residual: Tensor | None, layer: Int8Weight, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    is_wanted = layer.residual_multiplier is not None
    if (residual is not None) != is_wanted and not (layer.float_output and residual is not None):
        raise ValueError(f"{_OP}: residual: the layer has {'one' if is_wanted else 'none'}")
    if residual is not None and (residual.dtype != dtype or residual.shape != shape):
        raise ValueError(
            f"{_OP}: expected residual {dtype} {list(shape)}, got {residual.dtype} "
            f"{list(residual.shape)}"
        )


def int8_linear_ref(x: Tensor, layer: Int8Weight, residual: Tensor | None = None) -> Tensor:
    """Return what int8_linear returns, in plain PyTorch; sums in float64 are exact."""
    acc = x.double() @ layer.weight.double().t() + layer.bias
    f = acc.to(torch.int32).float() * layer.multiplier
    if layer.float_output:
        f = f if residual is None else f + residual
        return f.clamp(layer.clamp_min, layer.clamp_max)
    if residual is not None:
        f = f + residual.float() * layer.residual_multiplier
    zero = layer.out_zero_point
    q = torch.round(f.clamp(layer.qmin - zero, layer.qmax - zero)).to(torch.int32) + zero
    return q.to(torch.uint8) if layer.table is None else layer.table[q.long()]
