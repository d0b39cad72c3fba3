"""mbarrier objects: phases that end when all arrivals and all announced bytes have come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .faults import BARRIER, INVALID, RACE, Fault
from .lanes import AT_MBARRIER, RUNS

if TYPE_CHECKING:
    from .machine import Machine

LARGEST_COUNT = (1 << 20) - 1


@dataclass
class Mbarrier:
    """One barrier: what its phase still waits for, and what those who arrived knew."""

    count: int
    pending: int
    known: np.ndarray  # [2, agents]: of arrivals so far, for the generic and the async proxy
    passed: np.ndarray  # the same at the end of the last phase
    made_by: int  # the initialising agent's place in its cluster
    made_at: int  # and its clock
    is_fenced: bool = False  # visible to the copy engine
    expected: int = 0  # bytes
    phase: int = 0


class Mbarriers:
    """The mbarriers of a machine's blocks, by block and offset in its shared memory."""

    def __init__(self, machine: Machine):
        self._m = machine
        self._all: dict[tuple[int, int], Mbarrier] = {}

    def init(self, block: int, warp: int, offset: int, count: int) -> None:
        """Make a barrier that waits for `count` arrivals."""
        if not 0 < count <= LARGEST_COUNT:
            raise Fault(INVALID, f"mbarrier for {count} arrivals")
        clocks = self._m.shared.clocks
        self._all[block, offset] = Mbarrier(
            count,
            count,
            np.zeros((2, clocks.known.shape[2]), np.uint16),
            np.zeros((2, clocks.known.shape[2]), np.uint16),
            int(clocks.column(block, warp)),
            int(clocks.known[block, warp, clocks.column(block, warp)]),
        )

    def fence(self, block: int) -> None:
        """Make a block's barriers visible to the copy engine."""
        for (owner, _), barrier in self._all.items():
            barrier.is_fenced |= owner == block

    def find(self, block: int, offset: int, user: tuple[int, int] | None = None) -> Mbarrier:
        """Return a barrier; faults where there is none that its user, a warp, may know of."""
        if (block, offset) not in self._all:
            raise Fault(BARRIER, f"no mbarrier was initialised at shared {offset:#x}")
        if self._m.has_ended(block):
            raise Fault(BARRIER, f"mbarrier {offset:#x} used after its block has ended")
        barrier = self._all[block, offset]
        if user is not None:
            seen = self._m.shared.clocks.known[user][barrier.made_by]
            if seen < barrier.made_at:
                raise Fault(RACE, f"mbarrier {offset:#x} used, no barrier after its initialisation")
        return barrier

    def arrive(self, block: int, offset: int, user: tuple[int, int], expected: int = 0) -> None:
        """Arrive for a warp, announcing bytes."""
        barrier = self.find(block, offset, user)
        clocks = self._m.shared.clocks
        barrier.known[0] = np.maximum(barrier.known[0], clocks.known[user])
        barrier.known[1] = np.maximum(barrier.known[1], clocks.fenced[user])
        clocks.tick(*user)
        barrier.expected += expected
        barrier.pending -= 1
        if barrier.pending < 0:
            raise Fault(BARRIER, f"mbarrier {offset:#x}: more than {barrier.count} arrivals")
        self._settle(barrier)

    def complete(self, block: int, offset: int, size: int, agent: int, clock: int) -> None:
        """Note that a copy of so many bytes by a copy engine has ended."""
        barrier = self.find(block, offset)
        barrier.known[:, agent] = np.maximum(barrier.known[:, agent], clock)
        barrier.expected -= size
        self._settle(barrier)

    def _settle(self, barrier: Mbarrier) -> None:
        if barrier.pending > 0 or barrier.expected != 0:
            return
        barrier.phase ^= 1
        barrier.pending = barrier.count
        barrier.passed = barrier.known.copy()
        m = self._m
        m.status[m.status == AT_MBARRIER] = RUNS

    def try_wait(self, block: int, offset: int, user: tuple[int, int], parity: int) -> bool:
        """Return whether the phase of this parity has ended; the warp then knows what it knew."""
        barrier = self.find(block, offset, user)
        if barrier.phase == parity:
            return False
        clocks = self._m.shared.clocks
        clocks.known[user] = np.maximum(clocks.known[user], barrier.passed[0])
        clocks.fenced[user] = np.maximum(clocks.fenced[user], barrier.passed[1])
        return True
