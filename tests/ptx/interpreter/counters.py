"""What a run is counted by: instructions, bank conflicts, sectors, source lines."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from .decode import Instruction, Kernel, Line
from .lanes import WARP

#: Bytes that shared memory serves in one pass, and its banks.
PASS_BYTES, BANKS = 128, 32
SECTOR = 32


@dataclass
class Traffic:
    """Requests of one instruction, and what they took: passes, or sectors."""

    requests: int = 0
    taken: int = 0

    @property
    def per_request(self) -> float:
        """Passes or sectors of a request."""
        return self.taken / max(self.requests, 1)


@dataclass
class Counters:
    """Sums over all runs of one kernel; `issued` is by instruction, of warps."""

    kernel: Kernel
    issued: np.ndarray = field(init=False)
    shared: dict[int, Traffic] = field(default_factory=dict)
    sectors: dict[int, Traffic] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.issued = np.zeros(len(self.kernel.code) + 1, np.int64)

    def classes(self) -> Counter[str]:
        """Return warps' instructions by opcode."""
        found: Counter[str] = Counter()
        for instruction, count in zip(self.kernel.code, self.issued, strict=False):
            found[instruction.opcode] += int(count)
        return +found

    def executed(self) -> set[Line]:
        """Return the source lines that were executed."""
        ran = (i for i in self.kernel.code if self.issued[i.index] > 0)
        return {line for i in ran for line in i.lines}

    def lines(self) -> set[Line]:
        """Return the source lines that have instructions."""
        return {line for i in self.kernel.code for line in i.lines}

    def passes(self, *opcodes: str) -> dict[Instruction, Traffic]:
        """Return shared memory's traffic of the instructions with these opcodes."""
        code = self.kernel.code
        return {code[i]: t for i, t in self.shared.items() if code[i].opcode in opcodes}

    def count_shared(self, index: int, address: np.ndarray, size: int, warp: np.ndarray) -> None:
        """Count accesses [lanes] of `size` bytes by an instruction.

        A request is what one pass could serve: 32 lanes of 4 bytes, 16 of 8, 8 of 16.
        """
        lanes = PASS_BYTES // max(size, 4)
        order = warp * WARP + _rank_in(warp) // lanes
        request = np.unique(order, return_inverse=True)[1]
        words = address[:, None] // 4 + np.arange(max(size // 4, 1))
        self._add(self.shared, index, *_passes(np.repeat(request, words.shape[1]), words.ravel()))

    def count_rows(self, index: int, address: np.ndarray) -> None:
        """Count matrices of eight rows of 16 bytes: address [matrices, 8]."""
        # Eight rows in eight different places of 16 bytes, modulo a pass, are one pass.
        places = np.bitwise_or.reduce(1 << (address // 16 % 8), axis=1)
        one = places == 0xFF
        count = int(one.sum())
        self._add(self.shared, index, count, count)
        if one.all():
            return
        rest = address[~one]
        words = (rest[..., None] // 4 + np.arange(4)).reshape(len(rest), -1)
        request = np.repeat(np.arange(len(rest)), words.shape[1])
        self._add(self.shared, index, *_passes(request, words.ravel()))

    def count_global(self, index: int, address: np.ndarray, size: int, warp: np.ndarray) -> None:
        """Count the sectors that a warp's access touches; aligned accesses lie in one each."""
        touched = np.unique(warp.astype(np.int64) << 48 | address // SECTOR)
        self._add(self.sectors, index, len(np.unique(touched >> 48)), len(touched))

    def _add(self, to: dict[int, Traffic], index: int, requests: int, taken: int) -> None:
        traffic = to.setdefault(index, Traffic())
        traffic.requests += requests
        traffic.taken += taken


def _rank_in(warp: np.ndarray) -> np.ndarray:
    """Return each lane's number among the active lanes of its warp; lanes are in order."""
    starts = np.r_[0, np.flatnonzero(np.diff(warp)) + 1]
    return np.arange(len(warp)) - np.repeat(starts, np.diff(np.r_[starts, len(warp)]))


def _passes(request: np.ndarray, word: np.ndarray) -> tuple[int, int]:
    """Return how many requests there are, and passes: of each, the most words in one bank."""
    count = int(request.max()) + 1
    distinct = np.unique(request.astype(np.int64) << 40 | word)
    in_bank = np.bincount((distinct >> 40) * BANKS + distinct % BANKS, minlength=count * BANKS)
    return count, int(in_bank.reshape(count, BANKS).max(1).sum())
