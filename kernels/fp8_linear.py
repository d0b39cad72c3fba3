"""float8 x float8 products with the fused epilogue: e4m3, a scale for each row of x and weight.

Tensor cores of Hopper sum e4m3 products with some 14 bits of mantissa. So what a step along K sums
is added to float32 sums of its own; by hand, as what Triton 3.8 makes of max_num_imprecise_acc adds
wgmma's registers up before it waits for them.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .activations import activate, activate_ref, activation_kind
from .codes import Codes, check_float8, quantized_ref
from .rows import check_like
from .tiles import fp8_config, programs, tile_of_product

_OP = "fp8_linear"
FLOAT8 = torch.float8_e4m3fn


@triton.jit
def _fp8_linear_kernel(
    x_ptr,
    weight_ptr,
    x_scale_ptr,
    weight_scale_ptr,
    bias_ptr,
    residual_ptr,
    out_ptr,
    m,
    n,
    k,
    x_stride,
    residual_stride,
    step,
    IS_BY_ROW: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    KIND: tl.constexpr,
    IS_CODES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row, column, row_inside, column_inside = tile_of_product(m, n, BLOCK_M, BLOCK_N)
    depth = tl.arange(0, BLOCK_K)
    x_from = x_ptr + row[:, None] * x_stride + depth[None, :]
    weight_from = weight_ptr + column[None, :].to(tl.int64) * k + depth[:, None]
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, k, BLOCK_K):
        left = depth < k - start
        x = tl.load(x_from + start, mask=row_inside[:, None] & left[None, :], other=0.0)
        w = tl.load(weight_from + start, mask=left[:, None] & column_inside[None, :], other=0.0)
        acc += tl.dot(x, w)
    if IS_BY_ROW:
        y = acc * tl.load(x_scale_ptr + row, mask=row_inside, other=0.0)[:, None]
    else:
        y = acc * tl.load(x_scale_ptr)
    y = y * tl.load(weight_scale_ptr + column, mask=column_inside, other=0.0)[None, :]
    if HAS_BIAS:
        bias = tl.load(bias_ptr + column, mask=column_inside, other=0.0)
        y = y + bias.to(tl.float32)[None, :]
    inside = row_inside[:, None] & column_inside[None, :]
    if HAS_RESIDUAL:
        residual_from = residual_ptr + row[:, None] * residual_stride + column[None, :]
        y = y + tl.load(residual_from, mask=inside, other=0.0).to(tl.float32)
    y = activate(y, KIND)
    if IS_CODES:
        one = tl.full([1, 1], 1.0, tl.float32)
        y = y * tl.div_rn(one, tl.full([1, 1], step, tl.float32))
        y = tl.maximum(tl.minimum(y, 448.0), -448.0)  # NaN is 448
    to = out_ptr + row[:, None] * n + column[None, :]
    tl.store(to, y.to(out_ptr.dtype.element_ty), mask=inside)


def fp8_linear(
    x: Tensor,
    weight: Tensor,
    x_scale: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str = "identity",
    out: torch.dtype | Codes = torch.float16,
) -> Tensor:
    """Return activation(x_scale * (x @ weight.T) * weight_scale + bias + residual).

    x: [*, K] float8_e4m3fn, as Codes(float8=True) gives. weight: [N, K] float8_e4m3fn. x_scale:
    float32, of each row [*], or one, []. weight_scale: [N] float32. bias: [N] of a float dtype or
    None. residual: [*, N] float16 or bfloat16 or None. activation: identity, relu, silu, gelu or
    gelu_tanh. out: float16 or bfloat16, or Codes(scale, float8=True).

    Raises:
        TypeError: an argument is of another dtype.
        ValueError: a shape or device does not fit, or the GPU's compute capability is below 8.9.
    """
    if x.dtype != FLOAT8 or weight.dtype != FLOAT8:
        raise TypeError(
            f"{_OP}: expected x and weight {FLOAT8}, got {x.dtype}, {weight.dtype}; quantize_rows "
            "with Codes(float8=True) gives them and their scales"
        )
    if x.dim() == 0 or weight.dim() != 2 or x.shape[-1] != weight.shape[1] or not weight.numel():
        raise ValueError(
            f"{_OP}: expected x [*, K] and weight [N, K], got {list(x.shape)}, {list(weight.shape)}"
        )
    n, k = weight.shape
    check_like(_OP, "weight", weight, [n, k], x, "any")
    check_like(_OP, "x_scale", x_scale, x.shape[:-1] if x_scale.dim() else [], x, "float")
    check_like(_OP, "weight_scale", weight_scale, [n], x, "float")
    check_like(_OP, "bias", bias, [n], x, "float")
    check_like(_OP, "residual", residual, [*x.shape[:-1], n], x, "float")
    if x_scale.dtype != torch.float32 or weight_scale.dtype != torch.float32:
        raise TypeError(
            f"{_OP}: expected scales float32, got {x_scale.dtype}, {weight_scale.dtype}"
        )
    dtype = _result_dtype(out)
    kind = activation_kind(_OP, activation)
    check_float8(_OP, x)
    result = torch.empty((*x.shape[:-1], n), dtype=dtype, device=x.device)
    if result.numel() == 0:
        return result
    rows = x.reshape(-1, k)
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    added = result if residual is None else residual.reshape(-1, n).contiguous()
    m, by_row = rows.shape[0], x_scale.dim() > 0
    config = fp8_config(m, n)
    with torch.cuda.device_of(x):
        _fp8_linear_kernel[(programs(config, m, n),)](
            rows, weight.contiguous(), x_scale.contiguous(), weight_scale.contiguous(),
            weight_scale if bias is None else bias.contiguous(), added, result, m, n, k,
            rows.stride(0), n, out.scale if isinstance(out, Codes) else 1.0, by_row,
            bias is not None, residual is not None, kind, isinstance(out, Codes), config.m,
            config.n, config.k, num_warps=config.warps, num_stages=config.stages,
            enable_fp_fusion=False,
        )  # fmt: skip
    return result


def _result_dtype(out: torch.dtype | Codes) -> torch.dtype:
    if isinstance(out, Codes):
        if not out.float8 or out.scale is None:
            raise ValueError(f"{_OP}: expected out Codes(scale, float8=True), got {out}")
        return out.dtype
    if out not in (torch.float16, torch.bfloat16):
        raise TypeError(f"{_OP}: expected out float16, bfloat16 or Codes, got {out}")
    return out


def fp8_linear_ref(
    x: Tensor,
    weight: Tensor,
    x_scale: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str = "identity",
    out: torch.dtype | Codes = torch.float16,
) -> Tensor:
    """Return what fp8_linear returns, in plain PyTorch: sums in float32, in another order."""
    acc = x.float() @ weight.float().t()
    y = acc * (x_scale[..., None] if x_scale.dim() else x_scale) * weight_scale
    if bias is not None:
        y = y + bias.float()
    if residual is not None:
        y = y + residual.float()
    y = activate_ref(y, activation)
    return quantized_ref(y, out).codes if isinstance(out, Codes) else y.to(out)
