"""Labels of channels, and which of them must go together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: One label for each index along an axis. 0 is an index that stays: what is no channel of a layer.
Axis = NDArray[np.int64]
#: None is an axis of zeros.
MaybeAxis = Axis | None


class Labels:
    """Hands out labels and collects what is found out about them; `resolve` puts it together."""

    def __init__(self) -> None:
        self._count = 1
        self._edges: list[tuple[Axis, Axis]] = []
        self._frozen: list[tuple[Axis, str]] = []

    def fresh(self, size: int) -> Axis:
        """Return new labels for the indices of an axis."""
        first = self._count
        self._count += size
        return np.arange(first, self._count, dtype=np.int64)

    def freeze(self, axis: MaybeAxis, reason: str) -> None:
        """Let every index of the axis stay."""
        if axis is not None and bool(axis.any()):
            self._frozen.append((axis[axis > 0], reason))

    def unite(self, a: MaybeAxis, b: MaybeAxis, reason: str) -> MaybeAxis:
        """Let index i of both axes go together, and return the labels of either.

        Where one of them stays the other does, for the reason.
        """
        if a is None or b is None:
            self.freeze(b if a is None else a, reason)
            return a if b is None else b
        if a is b:
            return a
        both = (a > 0) & (b > 0)
        self._edges.append((a[both], b[both]))
        self.freeze(np.where(b == 0, a, 0), reason)
        self.freeze(np.where(a == 0, b, 0), reason)
        return np.where(a > 0, a, b)

    def resolve(self) -> Classes:
        """Return the classes of labels that go together."""
        root = np.arange(self._count, dtype=np.int64)
        if self._edges:
            first = np.concatenate([a for a, _ in self._edges])
            second = np.concatenate([b for _, b in self._edges])
            while True:
                low, high = root[first], root[second]
                low, high = np.minimum(low, high), np.maximum(low, high)
                open_edges = low != high
                if not bool(open_edges.any()):
                    break
                # Hook larger roots under smaller ones, then shorten every path.
                np.minimum.at(root, high[open_edges], low[open_edges])
                while bool((root[root] != root).any()):
                    root = root[root]
        reasons: dict[int, str] = {}
        for axis, reason in self._frozen:
            for label in np.unique(root[axis]):
                reasons.setdefault(int(label), reason)
        return Classes(root, reasons)


@dataclass(frozen=True)
class Classes:
    """root: the class of each label; reasons: of classes that stay, why."""

    root: Axis
    reasons: dict[int, str]

    def of(self, axis: MaybeAxis) -> Axis:
        """Return the class of each index of an axis that is not pruned to nothing; 0 stays."""
        return np.zeros(0, np.int64) if axis is None else self.root[axis]

    def stays(self, axis: Axis) -> bool:
        """Return True when every index of the axis stays."""
        return all(
            int(label) == 0 or int(label) in self.reasons for label in np.unique(self.of(axis))
        )
