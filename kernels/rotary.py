"""Rotary position embedding, the halves of a head turned against each other."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .rows import as_rows, check_float, check_like

_OP = "rotary"
#: Values of a program in each half, eight a thread; and the widest half of a head.
VALUES, MOST_HALF = 2048, 256


def rotary_config(heads: int, half: int) -> tuple[int, int, int]:
    """Return a program's heads, a power of two, its width of a half, and its warps."""
    width = max(16, triton.next_power_of_2(half))
    block = min(VALUES // width, triton.next_power_of_2(heads))
    return block, width, max(1, block * width // 256)


@triton.jit
def _rotary_kernel(
    x_ptr,
    cos_ptr,
    sin_ptr,
    out_ptr,
    heads,
    half,
    token_stride,
    head_stride,
    cos_stride,
    sin_stride,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)
    column = tl.arange(0, BLOCK_HALF)
    inside = (head < heads)[:, None] & (column < half)[None, :]
    cos = tl.load(cos_ptr + token * cos_stride + column, mask=column < half, other=0.0)
    sin = tl.load(sin_ptr + token * sin_stride + column, mask=column < half, other=0.0)
    cos = cos.to(tl.float32)[None, :]
    sin = sin.to(tl.float32)[None, :]
    from_ptr = x_ptr + token * token_stride + head[:, None] * head_stride + column[None, :]
    front = tl.load(from_ptr, mask=inside, other=0.0).to(tl.float32)
    back = tl.load(from_ptr + half, mask=inside, other=0.0).to(tl.float32)
    to_ptr = out_ptr + (token * heads + head[:, None]) * (2 * half) + column[None, :]
    dtype = out_ptr.dtype.element_ty
    tl.store(to_ptr, (front * cos - back * sin).to(dtype), mask=inside)
    tl.store(to_ptr + half, (back * cos + front * sin).to(dtype), mask=inside)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return x with every head turned: (a cos - b sin, b cos + a sin) of its halves a and b.

    x: [T, heads, 2 h] float32, float16 or bfloat16, computed in float32; T tokens, their rows dense
    (q and k are read where they lie in one projection). cos, sin: [T, h] of a float dtype, of each
    token's position.

    Raises:
        TypeError: x, cos or sin is no float tensor.
        ValueError: a shape or device does not fit, or a head has more than 512 values.

    Source: Su et al., "RoFormer", equation 34, with halves in place of neighbours.
    """
    check_float(_OP, "x", x)
    if x.dim() != 3 or x.shape[2] % 2 or x.shape[2] > 2 * MOST_HALF:
        raise ValueError(
            f"{_OP}: expected x [T, heads, d] with an even d of at most {2 * MOST_HALF}, "
            f"got {list(x.shape)}; flatten batch and time into T"
        )
    tokens, heads, half = x.shape[0], x.shape[1], x.shape[2] // 2
    for name, value in (("cos", cos), ("sin", sin)):
        check_like(_OP, name, value, [tokens, half], x, "float")
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if out.numel() == 0:
        return out
    x = x if x.stride(2) == 1 else x.contiguous()
    cos, sin = as_rows(cos), as_rows(sin)
    block, width, warps = rotary_config(heads, half)
    with torch.cuda.device_of(x):
        _rotary_kernel[(tokens, triton.cdiv(heads, block))](
            x, cos, sin, out, heads, half, x.stride(0), x.stride(1), cos.stride(0), sin.stride(0),
            block, width, num_warps=warps, enable_fp_fusion=False,
        )  # fmt: skip
    return out


def rotary_ref(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return what rotary returns, in plain PyTorch: every product rounded, so to the last bit."""
    front, back = x.float().chunk(2, -1)
    cos, sin = cos.float()[:, None], sin.float()[:, None]
    return torch.cat((front * cos - back * sin, back * cos + front * sin), -1).to(x.dtype)
