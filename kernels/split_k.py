"""The second half of products whose K is split over programs: the sum of their parts, and the rest.

Few rows of x and a tile of the weight's make too few programs to keep a GPU reading. So each takes
a part of K too, writes its float32 sums, and a second launch adds them up, always in one order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .rows import load_vector

#: Values of a program.
BLOCK, WARPS = 512, 4


@triton.jit
def _sum_parts_kernel(
    parts_ptr,
    scale_ptr,
    bias_ptr,
    out_ptr,
    m,
    n,
    HAS_SCALE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    across = tl.cdiv(n, BLOCK)
    row = (tl.program_id(0) // across).to(tl.int64)
    column = tl.program_id(0) % across * BLOCK + tl.arange(0, BLOCK)
    inside = column < n
    scale = load_vector(scale_ptr, column, n, HAS_SCALE)
    bias = load_vector(bias_ptr, column, n, HAS_BIAS)
    part = tl.arange(0, SPLITS).to(tl.int64)
    from_ptr = parts_ptr + (part[:, None] * m + row) * n + column[None, :]
    y = tl.sum(tl.load(from_ptr, mask=inside[None, :], other=0.0), axis=0)[None, :]
    if HAS_SCALE:
        y = y * scale
    if HAS_BIAS:
        y = y + bias.to(tl.float32)
    to = out_ptr + row * n + column[None, :]
    tl.store(to, y.to(out_ptr.dtype.element_ty), mask=inside[None, :])


@triton.jit
def store_product(
    acc,
    row,
    column,
    row_inside,
    column_inside,
    m,
    n,
    scale_ptr,
    bias_ptr,
    out_ptr,
    HAS_SCALE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    IS_SPLIT: tl.constexpr,
):
    """Store acc [N, M] float32: as this program's part of the sums, or scaled as the result."""
    to = out_ptr + row[None, :] * n + column[:, None]
    if IS_SPLIT:
        to += tl.program_id(1).to(tl.int64) * m * n
    else:
        if HAS_SCALE:
            acc = acc * tl.load(scale_ptr + column, mask=column_inside, other=0.0)[:, None]
        if HAS_BIAS:
            bias = tl.load(bias_ptr + column, mask=column_inside, other=0.0)
            acc = acc + bias.to(tl.float32)[:, None]
    inside = column_inside[:, None] & row_inside[None, :]
    tl.store(to, acc.to(out_ptr.dtype.element_ty), mask=inside)


def sum_parts(parts: Tensor, scale: Tensor | None, bias: Tensor | None, out: Tensor) -> None:
    """Write the sum of parts [S, M, N] float32, times scale [N], plus bias [N], to out [M, N].

    S: a power of two.
    """
    splits, m, n = parts.shape
    _sum_parts_kernel[(m * triton.cdiv(n, BLOCK),)](
        parts, parts if scale is None else scale, parts if bias is None else bias, out, m, n,
        scale is not None, bias is not None, splits, BLOCK, num_warps=WARPS,
    )  # fmt: skip


def new_parts(splits: int, m: int, n: int, out: Tensor) -> Tensor:
    """Return where programs write: parts [S, M, N] float32, or out itself where K is in one."""
    if splits == 1:
        return out
    return torch.empty((splits, m, n), dtype=torch.float32, device=out.device)
