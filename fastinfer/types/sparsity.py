"""Which weights of a layer may be zero, as values."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: How many channels may keep the same inputs: two on CPUs, a tile of a GPU's tensor cores.
SHARES = (1, 2, 64, 128, 256)
#: Names that users type -> inputs of a group, and channels that share positions.
NAMED = {"nm64": (64, 1), **{f"nm64x{share}": (64, share) for share in SHARES[1:]}}


@dataclass(frozen=True)
class Unstructured:
    """Any weight may be zero; `density` is the share that is kept, 0..1."""

    density: float

    def __post_init__(self) -> None:
        if not 0 <= self.density <= 1:
            raise ValueError(f"Unstructured: density: expected 0..1, got {self.density}")


@dataclass(frozen=True)
class NM:
    """Of every m neighbouring inputs of a channel n are kept; `share` channels keep the same ones.

    Inputs run in memory order of the activations: (kh, kw, c) for a convolution, so a group of 64
    lies inside one tap where c is a multiple of 64. With share 2 channels 16 apart go together, in
    blocks of 32; with more, so many neighbours.
    """

    n: int
    m: int = 64
    share: int = 1

    def __post_init__(self) -> None:
        if not (self.m > 0 and 0 <= self.n <= self.m):
            raise ValueError(
                f"NM: n, m: expected 0 <= n <= m and m > 0, got n={self.n}, m={self.m}"
            )
        if self.share not in SHARES:
            raise ValueError(f"NM: share: expected one of {SHARES}, got {self.share}")

    @property
    def density(self) -> float:
        """The share of weights that is kept."""
        return self.n / self.m


Pattern = Unstructured | NM


def named_pattern(name: str, sparsity: float | None) -> Pattern:
    """Return the pattern users call `name` with this share of zeros, 0..1.

    name: "unstructured", "nm64", "nm64x2" (also x64, x128, x256), or n kept of every m as "2:4" or
    "1:8", which says the sparsity itself: give the same or None.

    Raises:
        TypeError: name is no string or sparsity no number.
        ValueError: no such name, or a sparsity that the pattern cannot have (the nearest is named).
    """
    if not isinstance(name, str):
        raise TypeError(f"pattern: expected a name, got {type(name).__name__}")
    ratio = re.fullmatch(r"([1-9][0-9]*):([1-9][0-9]*)", name)
    if ratio is None and name != "unstructured" and name not in NAMED:
        raise ValueError(
            f"pattern: expected one of {['unstructured', *NAMED]} or n kept of m as '2:4', "
            f"got {name!r}"
        )
    if ratio is not None and sparsity is None:
        n, m = map(int, ratio.groups())
        return NM(n, m)
    if isinstance(sparsity, bool) or not isinstance(sparsity, (int, float)):
        raise TypeError(
            f"pattern {name!r}: sparsity: expected a number, got {type(sparsity).__name__}"
        )
    if not 0 <= sparsity < 1:
        raise ValueError(f"pattern {name!r}: sparsity: expected 0 <= sparsity < 1, got {sparsity}")
    if name == "unstructured":
        return Unstructured(1 - sparsity)
    if ratio is not None:
        (n, m), share, wanted = map(int, ratio.groups()), 1, f"{ratio[1]} by its name"
    else:
        m, share = NAMED[name]
        n, wanted = max(1, round((1 - sparsity) * m)), "a whole number of at least 1"
    kept = (1 - sparsity) * m
    if abs(kept - n) > 1e-6:
        raise ValueError(
            f"pattern {name!r}: sparsity: {sparsity:g} keeps {kept:g} of {m} inputs, expected "
            f"{wanted}; the nearest sparsity is {1 - n / m:g}"
        )
    return NM(n, m, share)
