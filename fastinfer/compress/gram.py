"""Gram: all that least squares needs to know of a layer's inputs and wanted outputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Means over rows: of products of inputs, of outputs with inputs, of squared outputs.

    hessian: [K, K] float64. cross: [N, K] float64. power: [N] float64. x_mean [K] and y_mean [N]
    were subtracted where `is_centred`, which is what a bias makes up for.
    """

    hessian: Tensor
    cross: Tensor
    power: Tensor
    x_mean: Tensor
    y_mean: Tensor
    is_centred: bool

    @property
    def is_finite(self) -> bool:
        """True when neither NaN nor infinity went in, nor came out."""
        sums = (self.hessian.sum(), self.cross.sum(), self.power.sum())
        return all(bool(torch.isfinite(total)) for total in sums)

    def relative_error(self, weight: Tensor) -> float:
        """Return |wanted - weight x|² over |wanted|², over all outputs; weight: [N, K].

        Zero where the outputs are constant and so is what the weight answers.
        """
        w = weight.double()
        missed = float(((w @ self.hessian - 2 * self.cross) * w).sum() + self.power.sum())
        wanted = float(self.power.sum())
        return max(missed, 0.0) / wanted if wanted > 0 else 0.0


class Gram:
    """Sums over rows of the inputs x [P, K] of a layer and of what it is to answer, y [P, N].

    Products are taken of float32 differences from the first rows' means, so that a large mean
    costs no digits, and summed in float64. No row is kept.
    """

    def __init__(self, k: int, n: int) -> None:
        self.count = 0
        self.xx = torch.zeros(k, k, dtype=torch.float64)
        self.yx = torch.zeros(n, k, dtype=torch.float64)
        self.yy = torch.zeros(n, dtype=torch.float64)
        self.x = torch.zeros(k, dtype=torch.float64)
        self.y = torch.zeros(n, dtype=torch.float64)
        self._shift: tuple[Tensor, Tensor] | None = None

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add rows: x [P, K] and y [P, N], floating point."""
        if not x.shape[0]:
            return
        x, y = x.float(), y.float()
        if self._shift is None:
            self._shift = x.mean(0), y.mean(0)
        x, y = x - self._shift[0], y - self._shift[1]
        self.count += x.shape[0]
        self.xx += x.t() @ x
        self.yx += y.t() @ x
        self.yy += y.double().square().sum(0)
        self.x += x.double().sum(0)
        self.y += y.double().sum(0)

    def moments(self, *others: Gram, is_centred: bool = True) -> Moments:
        """Return the means over these rows and those of the others, all float64.

        Raises:
            ValueError: there is no row.
        """
        grams = [g for g in (self, *others) if g.count]
        if not grams:
            raise ValueError("Gram: moments: expected at least one row, got none")
        count = sum(g.count for g in grams)
        x_mean = sum((g._x_sum() for g in grams), torch.zeros(())) / count
        y_mean = sum((g._y_sum() for g in grams), torch.zeros(())) / count
        origin = (x_mean, y_mean) if is_centred else (x_mean * 0, y_mean * 0)
        hessian, cross, power = grams[0]._about(*origin)
        for gram in grams[1:]:
            for mine, more in zip((hessian, cross, power), gram._about(*origin), strict=True):
                mine += more
        return Moments(hessian / count, cross / count, power / count, *origin, is_centred)

    def about(self, other: Moments) -> Moments:
        """Return the means over these rows of differences from another set's means.

        Raises:
            ValueError: there is no row.
        """
        if not self.count:
            raise ValueError("Gram: about: expected at least one row, got none")
        sums = self._about(other.x_mean, other.y_mean)
        xx, yx, yy = (part / self.count for part in sums)
        return Moments(xx, yx, yy, other.x_mean, other.y_mean, other.is_centred)

    def _x_sum(self) -> Tensor:
        assert self._shift is not None
        return self.x + self.count * self._shift[0].double()

    def _y_sum(self) -> Tensor:
        assert self._shift is not None
        return self.y + self.count * self._shift[1].double()

    def _about(self, x_origin: Tensor, y_origin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sums of products of differences from these points."""
        assert self._shift is not None
        # x - origin = (x - shift) + a
        a, b = self._shift[0].double() - x_origin, self._shift[1].double() - y_origin
        n = self.count
        xa = torch.outer(self.x, a)
        xx = self.xx + xa + xa.t() + n * torch.outer(a, a)
        yx = self.yx + torch.outer(self.y, a) + torch.outer(b, self.x) + n * torch.outer(b, a)
        yy = self.yy + 2 * self.y * b + n * b.square()
        return xx, yx, yy
