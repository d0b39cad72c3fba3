"""The bounds tests judge by; no test holds a tolerance of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def assert_equal(value: Tensor, reference: Tensor) -> None:
    """Raise AssertionError unless shape, dtype and every element agree."""
    assert value.shape == reference.shape, f"shape {value.shape} != {reference.shape}"
    assert value.dtype == reference.dtype, f"dtype {value.dtype} != {reference.dtype}"
    if not torch.equal(value, reference):
        wrong = (value != reference) & ~(value.isnan() & reference.isnan())
        count = int(wrong.sum())
        if count:
            where = tuple(int(i) for i in wrong.nonzero()[0])
            raise AssertionError(
                f"{count} of {value.numel()} elements differ, first at {where}: "
                f"{value[where].item()} != {reference[where].item()}"
            )


def float32_bound(k: int, a: Tensor, b: Tensor) -> float:
    """Return 2 (K + 1) eps max|a| max|b|: how far two float32 sums of K products may differ."""
    if a.numel() == 0 or b.numel() == 0:
        return 0.0
    return 2 * (k + 1) * torch.finfo(torch.float32).eps * float(a.abs().max() * b.abs().max())


def row_bound(n: int, largest: float) -> float:
    """Return how far layer norm or softmax of n float32 may be from exact.

    largest: the most that a result's terms are, 1 for softmax. Sums of n terms err by n / 16 + 4
    roundings, and some ten operations follow.
    """
    return (n / 16 + 14) * torch.finfo(torch.float32).eps * max(largest, 1.0)


def sixteen_bit_bound(reference: Tensor, own: Tensor) -> float:
    """Return how far a float16 or bfloat16 result may be from the float32 reference.

    own: torch's result at that dtype. Twice its error, and a rounding where it has none by chance.
    """
    if reference.numel() == 0:
        return 0.0
    error = float((own.float() - reference).abs().max())
    return 2 * error + torch.finfo(own.dtype).eps * float(reference.abs().max())


def sqnr_db(reference: Tensor, value: Tensor) -> float:
    """Return the signal-to-noise ratio of value against reference in dB (inf when equal)."""
    reference, value = reference.detach().double(), value.detach().double()
    noise = float((reference - value).square().sum())
    signal = float(reference.square().sum())
    if noise == 0.0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def top1_agreement(reference: Tensor, value: Tensor) -> float:
    """Return the share (0..1) of rows [N, classes] whose largest entry is at the same place."""
    return float((reference.argmax(-1) == value.argmax(-1)).double().mean())
