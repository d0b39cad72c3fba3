"""Masks of a pattern that keep what matters most."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fastinfer.types.sparsity import NM, Pattern, Unstructured

#: Channels of a block in which those half a block apart share positions; csrc/cpu/pack_sparse.h.
SHARED_BLOCK = 32


def largest_kept(saliency: Tensor, pattern: Pattern) -> Tensor:
    """Return a bool mask of the pattern's weights with the most saliency.

    Args:
        saliency: [N, K] or [N, C, kh, kw], not negative: squares of weights, say. Where channels
            share positions theirs is added.
        pattern: of NM groups the last one may be shorter, and keeps as large a share of its inputs.

    Returns:
        A mask of saliency's shape, True for what is kept.

    Raises:
        ValueError: saliency is neither 2-D nor 4-D, or holds NaN.
    """
    if saliency.dim() not in (2, 4):
        raise ValueError(
            f"largest_kept: saliency: expected [N, K] or [N, C, kh, kw], got {list(saliency.shape)}"
        )
    if bool(saliency.isnan().any()):
        raise ValueError("largest_kept: saliency: expected numbers, got NaN")
    if isinstance(pattern, Unstructured):
        return _most(saliency.flatten(), round(pattern.density * saliency.numel())).view_as(
            saliency
        )
    rows = saliency.movedim(1, -1).flatten(1)
    kept = _grouped(rows, pattern)
    if saliency.dim() == 2:
        return kept
    n, c, kh, kw = saliency.shape
    return kept.view(n, kh, kw, c).movedim(-1, 1)


def _most(values: Tensor, count: int) -> Tensor:
    """Return True for the `count` largest along the last axis."""
    kept = torch.zeros_like(values, dtype=torch.bool)
    return kept.scatter_(-1, values.topk(count, dim=-1).indices, True)


def _grouped(rows: Tensor, pattern: NM) -> Tensor:
    """Return the mask of saliency rows [N, K]."""
    n, k = rows.shape
    if pattern.share == 2:
        padded = functional.pad(rows, (0, 0, 0, -n % SHARED_BLOCK))
        pairs = padded.view(-1, 2, SHARED_BLOCK // 2, k)
        kept = _grouped(pairs.sum(1).view(-1, k), NM(pattern.n, pattern.m))
        both = kept.view(-1, 1, SHARED_BLOCK // 2, k).expand(-1, 2, -1, -1)
        return both.reshape(-1, k)[:n]
    if pattern.share > 2:
        padded = functional.pad(rows, (0, 0, 0, -n % pattern.share))
        kept = _grouped(padded.view(-1, pattern.share, k).sum(1), NM(pattern.n, pattern.m))
        return kept.repeat_interleave(pattern.share, 0)[:n]
    whole = k // pattern.m * pattern.m
    parts = [_most(rows[:, :whole].view(n, -1, pattern.m), pattern.n).view(n, whole)]
    if whole < k:
        parts.append(_most(rows[:, whole:], round(pattern.density * (k - whole))))
    return torch.cat(parts, 1)
