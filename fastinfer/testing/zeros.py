"""Which weights of a case are zero."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def kept_weights(g: torch.Generator, kind: str, shape: tuple[int, ...]) -> Tensor:
    """Return 1 where a weight of a kind keeps its value, else 0.

    "sparse" has 9 zeros of 10, "shared" the same in channels 16 apart, "shared few" 31 of 32 at the
    same places, and "apart" leaves out seven of every eight runs of 64 products, too. "2:4" has two
    or fewer of every four inputs, and "v128" the same 16 of every 64 in 128 channels, "v128 half"
    32.
    """
    if kind == "2:4":
        return _two_of_four(g, shape)
    if kind in _SHARED:
        return _shared(g, shape, *_SHARED[kind])
    if kind not in ("sparse", "shared", "shared few", "apart"):
        raise ValueError(f"kept_weights: no kind {kind!r}")
    n, k = shape[0], math.prod(shape[1:])
    rows = 16 if kind.startswith("shared") else n
    kept = torch.rand(rows, k, generator=g) < (1 / 32 if kind == "shared few" else 0.1)
    if kind == "apart":
        kept &= torch.arange(k) // 64 % 8 == 0
    return kept.repeat(-(-n // rows), 1)[:n].reshape(shape).to(torch.int8)


#: Kind -> inputs kept of every 64, channels that keep the same ones.
_SHARED = {
    f"v{channels}{name}": (kept, channels)
    for channels in (64, 128, 256)
    for kept, name in ((16, ""), (32, " half"))
}


def _shared(g: torch.Generator, shape: tuple[int, ...], kept: int, channels: int) -> Tensor:
    """Return 1 where one of `kept` of every 64 inputs in the order (kh, kw, c) is, else 0."""
    n, c = shape[:2]
    k = math.prod(shape[1:])
    tiles, chunks = -(-n // channels), -(-k // 64)
    order = torch.rand(tiles, chunks, 64, generator=g).argsort(-1).argsort(-1)
    rows = (order < kept).reshape(tiles, -1)[:, :k].repeat_interleave(channels, 0)[:n]
    return rows.reshape(n, *shape[2:], c).movedim(-1, 1).contiguous().to(torch.int8)


def _two_of_four(g: torch.Generator, shape: tuple[int, ...]) -> Tensor:
    """Return 1 for two of every four neighbours in the order (kh, kw, c), and for fewer of some."""
    n, c = shape[:2]
    rows = n * math.prod(shape[2:])
    quads = -(-c // 4)
    order = torch.rand(rows, quads, 4, generator=g).argsort(-1)
    kept = (order < torch.randint(0, 9, (rows, quads, 1), generator=g).clamp(max=2)).to(torch.int8)
    kept = kept.reshape(n, *shape[2:], quads * 4)[..., :c]
    return kept.movedim(-1, 1).contiguous()
