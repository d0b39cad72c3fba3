"""Range observers: what an activation's lowest and highest value are taken to be.

Each keeps O(channels x bins) memory however many batches it sees, and is deterministic.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

BINS = 2048
#: Rows of a per-channel histogram are shorter: 1280 channels x 512 bins are 5 MB of float64.
CHANNEL_BINS = 512


class Observer(Protocol):
    """Collects statistics batch by batch; `range()` answers after at least one batch."""

    def observe(self, x: Tensor) -> None:
        """Add one batch. x: any shape, floating point."""

    def range(self) -> tuple[Tensor, Tensor]:
        """Return (lo, hi), float64: [1] per tensor, [C] per channel."""


def _rows(x: Tensor, channel_axis: int | None) -> Tensor:
    """Return x as [C, elements] ([1, elements] when channel_axis is None)."""
    if channel_axis is None:
        return x.reshape(1, -1)
    return x.movedim(channel_axis, 0).reshape(x.shape[channel_axis], -1)


def _extrema(x: Tensor, channel_axis: int | None) -> tuple[Tensor, Tensor]:
    """Return (lowest, highest) of x, float64, [1] or [C]."""
    if channel_axis is None:
        lo, hi = torch.aminmax(x)
        return lo.double().reshape(1), hi.double().reshape(1)
    axis = channel_axis % x.dim()
    dims = [d for d in range(x.dim()) if d != axis]
    if not dims:
        return x.double(), x.double()
    return x.amin(dims).double(), x.amax(dims).double()


class MinMax:
    """Lowest and highest value ever seen."""

    def __init__(self, channel_axis: int | None = None) -> None:
        self._axis = channel_axis
        self._lo: Tensor | None = None
        self._hi: Tensor | None = None

    def observe(self, x: Tensor) -> None:
        """Widen the range to x."""
        if x.numel() == 0:
            return
        lo, hi = _extrema(x, self._axis)
        self._lo = lo if self._lo is None else torch.minimum(self._lo, lo)
        self._hi = hi if self._hi is None else torch.maximum(self._hi, hi)

    def range(self) -> tuple[Tensor, Tensor]:
        """Return the range seen."""
        if self._lo is None or self._hi is None:
            raise ValueError("observer: expected at least one batch before range(), got none")
        return self._lo, self._hi


class MovingAverage:
    """Exponential moving average of each batch's extrema; momentum is the weight of the past."""

    def __init__(self, channel_axis: int | None = None, momentum: float = 0.9) -> None:
        self._axis = channel_axis
        self._momentum = momentum
        self._lo: Tensor | None = None
        self._hi: Tensor | None = None

    def observe(self, x: Tensor) -> None:
        """Move the range towards x's."""
        if x.numel() == 0:
            return
        lo, hi = _extrema(x, self._axis)
        if self._lo is None or self._hi is None:
            self._lo, self._hi = lo, hi
        else:
            self._lo = torch.lerp(lo, self._lo, self._momentum)
            self._hi = torch.lerp(hi, self._hi, self._momentum)

    def range(self) -> tuple[Tensor, Tensor]:
        """Return the averaged range."""
        if self._lo is None or self._hi is None:
            raise ValueError("observer: expected at least one batch before range(), got none")
        return self._lo, self._hi


class Histogram:
    """Counts per bin over a range that grows by merging bins, so that no value is lost."""

    def __init__(self, channel_axis: int | None = None, bins: int | None = None) -> None:
        self._axis = channel_axis
        self.bins = bins or (BINS if channel_axis is None else CHANNEL_BINS)
        self.counts: Tensor | None = None
        self.lo: Tensor
        self.hi: Tensor

    def observe(self, x: Tensor) -> None:
        """Add x's values to the counts."""
        if x.numel() == 0:
            return
        rows = _rows(x.detach(), self._axis).float()
        lo, hi = _extrema(x, self._axis)
        if self.counts is None:
            self.lo, self.hi = lo, torch.maximum(hi, lo + 1e-12 + lo.abs() * 1e-9)
            self.counts = lo.new_zeros(rows.shape[0], self.bins)
        else:
            self._grow(torch.minimum(self.lo, lo), torch.maximum(self.hi, hi))
        width = ((self.hi - self.lo) / self.bins).float()
        index = ((rows - self.lo.float()[:, None]) / width[:, None]).long()
        index.clamp_(0, self.bins - 1)
        index += torch.arange(rows.shape[0], device=index.device)[:, None] * self.bins
        added = torch.bincount(index.reshape(-1), minlength=self.counts.numel())
        self.counts += added.reshape(self.counts.shape)

    def _grow(self, lo: Tensor, hi: Tensor) -> None:
        """Move the counts to the range [lo, hi], which contains the old one."""
        assert self.counts is not None
        if torch.equal(lo, self.lo) and torch.equal(hi, self.hi):
            return
        centres = self.centres()
        index = ((centres - lo[:, None]) / ((hi - lo) / self.bins)[:, None]).long()
        index.clamp_(0, self.bins - 1)
        self.counts = torch.zeros_like(self.counts).scatter_add_(1, index, self.counts)
        self.lo, self.hi = lo, hi

    def centres(self) -> Tensor:
        """Return the value in the middle of each bin, [C, bins] float64."""
        steps = torch.arange(self.bins, dtype=torch.float64, device=self.lo.device) + 0.5
        return self.lo[:, None] + steps * ((self.hi - self.lo) / self.bins)[:, None]

    def checked_counts(self) -> Tensor:
        """Return the counts, [C, bins] float64."""
        if self.counts is None:
            raise ValueError("observer: expected at least one batch before range(), got none")
        return self.counts


class Percentile(Histogram):
    """The range that holds `percentile` % of the values, the rest split between both ends."""

    def __init__(self, channel_axis: int | None = None, percentile: float = 99.99) -> None:
        super().__init__(channel_axis)
        if not 50.0 < percentile <= 100.0:
            raise ValueError(f"Percentile: expected percentile in (50, 100], got {percentile}")
        self._tail = (100.0 - percentile) / 200.0

    def range(self) -> tuple[Tensor, Tensor]:
        """Return the range between both tails."""
        counts = self.checked_counts()
        share = counts.cumsum(1) / counts.sum(1, keepdim=True)
        step = (self.hi - self.lo) / self.bins
        first = (share <= self._tail).sum(1)
        last = (share < 1.0 - self._tail - 1e-12).sum(1)
        return self.lo + first * step, torch.minimum(self.hi, self.lo + (last + 1) * step)


class Mse(Histogram):
    """The range, shrunk from the observed one, with the least mean squared rounding error."""

    def range(self) -> tuple[Tensor, Tensor]:
        """Return the best of 80 shrunk ranges."""
        counts, x = self.checked_counts(), self.centres()
        best_error = counts.new_full((counts.shape[0],), torch.inf)
        best = torch.ones_like(best_error)
        for ratio in torch.linspace(0.2, 1.0, 80, dtype=torch.float64).flip(0):
            lo, hi = self.lo.clamp(max=0) * ratio, self.hi.clamp(min=0) * ratio
            step = ((hi - lo) / 255).clamp(min=1e-30)[:, None]
            inside = torch.minimum(torch.maximum(x, lo[:, None]), hi[:, None])
            error = ((torch.round(inside / step) * step - x) ** 2 * counts).sum(1)
            better = error < best_error
            best_error = torch.where(better, error, best_error)
            best = torch.where(better, ratio, best)
        return self.lo * best, self.hi * best


class Entropy(Histogram):
    """The range whose 256-level histogram diverges least (Kullback-Leibler) from the full one.

    Source: Migacz, "8-bit inference with TensorRT", GTC 2017, on the histogram of magnitudes.
    """

    def range(self) -> tuple[Tensor, Tensor]:
        """Return the range, row by row."""
        # Some hundred small steps a row, each of which a GPU would be asked for.
        counts, x = self.checked_counts().cpu(), self.centres().cpu()
        limits = []
        for row, centre in zip(counts, x, strict=True):
            limits.append(_entropy_limit(row, centre.abs()))
        limit = torch.stack(limits).to(self.lo.device)
        return torch.maximum(self.lo, -limit), torch.minimum(self.hi, limit)


def _entropy_limit(counts: Tensor, magnitude: Tensor, levels: int = 128) -> Tensor:
    """Return the magnitude at which one row is best clipped, a float64 scalar."""
    bins = counts.numel()
    top = magnitude.max().clamp(min=1e-30)
    index = (magnitude / top * bins).long().clamp_(0, bins - 1)
    folded = torch.zeros(bins, dtype=torch.float64).scatter_add_(0, index, counts)
    best, best_divergence = bins, float("inf")
    for end in range(min(levels, bins), bins + 1, max(1, bins // 128)):
        p = folded[:end].clone()
        p[-1] += folded[end:].sum()
        bucket = torch.arange(end) * levels // end
        filled = (folded[:end] > 0).double()
        mass = torch.zeros(levels, dtype=torch.float64).scatter_add_(0, bucket, folded[:end])
        cells = torch.zeros(levels, dtype=torch.float64).scatter_add_(0, bucket, filled)
        q = (mass / cells.clamp(min=1))[bucket] * filled
        p, q = p / p.sum(), q / q.sum().clamp(min=1e-30)
        seen = p > 0
        divergence = float((p[seen] * (p[seen] / q[seen].clamp(min=1e-12)).log()).sum())
        if divergence < best_divergence:
            best, best_divergence = end, divergence
    return top * best / bins


_OBSERVERS = {
    "minmax": MinMax,
    "moving_average": MovingAverage,
    "percentile": Percentile,
    "mse": Mse,
    "entropy": Entropy,
}


def make_observer(name: str, channel_axis: int | None = None) -> Observer:
    """Return a new observer by name, over the whole tensor or per channel.

    Raises:
        ValueError: name is none of minmax, moving_average, percentile, mse, entropy.
    """
    if name not in _OBSERVERS:
        raise ValueError(f"observer: expected one of {sorted(_OBSERVERS)}, got {name!r}")
    return _OBSERVERS[name](channel_axis)
