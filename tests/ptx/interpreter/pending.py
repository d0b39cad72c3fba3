"""What threads and warpgroups have under way and wait for in groups."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Copy:
    """One cp.async of some lanes: places [lanes, size] in shared memory, each lane's group."""

    lanes: np.ndarray
    at: np.ndarray
    group: np.ndarray


@dataclass
class ThreadCopies:
    """The copies under way, and how many groups each lane committed."""

    committed: np.ndarray
    copies: list[Copy] = field(default_factory=list)


@dataclass
class Product:
    """A product under way: sums [registers, 128] to be added, and the places it reads.

    held: registers that it reads, as they were when it began.
    """

    registers: list[np.ndarray]
    sums: np.ndarray
    adds: bool
    places: list[np.ndarray]
    held: list[tuple[np.ndarray, np.ndarray]]


@dataclass
class GroupProducts:
    """Products of one warpgroup: open, and committed in groups."""

    open: list[Product] = field(default_factory=list)
    groups: list[list[Product]] = field(default_factory=list)
    is_fenced: bool = False
