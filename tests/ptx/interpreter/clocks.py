"""Who knows of which accesses to shared memory: vector clocks of warps, and the races they show.

An agent is a warp, or a block's copy engine. Its clock counts its releases; `known[b, a]` is how
far warp a of block b has seen every agent of its cluster. An access is stamped with its agent's
clock; another that does not know of it races with it. `PENDING` is the clock of a copy that nobody
has waited for.

Generic accesses reach the async proxy (bulk copies, wgmma) only through a proxy fence, so there is
a second set of clocks, `fenced`, of what that proxy may rely on.

Accesses of lanes of one warp are taken to be ordered.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from .faults import RACE, UNSUPPORTED, Fault

PENDING = 0xFFFF
_UNORDERED = "no barrier between"

#: One agent, or many.
Index = TypeVar("Index", int, np.ndarray)


class Clocks:
    """Vector clocks of `blocks` blocks of `warps` warps, and the stamps of their shared bytes."""

    def __init__(self, blocks: int, warps: int, cluster: int, bytes_per_block: int):
        self.engine = warps  # the copy engine's place among a block's agents
        self.per_block = warps + 1
        agents = cluster * self.per_block
        self._cluster = cluster
        self.known = np.zeros((blocks, self.per_block, agents), np.uint16)
        for block in range(blocks):
            for agent in range(self.per_block):
                self.known[block, agent, self.column(block, agent)] = 1
        self.fenced = np.zeros_like(self.known)
        total = blocks * bytes_per_block
        self._write_clock = np.zeros(total, np.uint16)
        self._write_agent = np.zeros(total, np.uint8)
        self._is_generic = np.zeros(total, bool)
        self._under_way = np.zeros(total, np.uint8)  # reads by tensor cores
        self._read_clock = np.zeros((total, agents), np.uint16)

    def column(self, block: Index, agent: Index) -> Index:
        """Return an agent's place among those of its cluster."""
        return block % self._cluster * self.per_block + agent

    def now(self, block: Index, agent: Index) -> np.ndarray:
        """Return agents' own clocks."""
        return self.known[block, agent, self.column(block, agent)]

    def tick(self, block: Index, agent: Index) -> None:
        """Begin a new interval of agents, behind a release."""
        self.known[block, agent, self.column(block, agent)] += 1
        if (self.now(block, agent) == PENDING).any():
            raise Fault(UNSUPPORTED, f"more than {PENDING} barriers in a run")

    def fence(self, block: np.ndarray, agent: np.ndarray) -> None:
        """Let the async proxy see all that these warps know of."""
        known = self.known[block, agent]
        self.fenced[block, agent] = np.maximum(self.fenced[block, agent], known)

    def meet(self, block: np.ndarray, agent: np.ndarray) -> None:
        """Let warps that came to one barrier know what each of them knew."""
        for clock in (self.known, self.fenced):
            clock[block, agent] = clock[block, agent].max(0)
        self.tick(block, agent)

    def check_read(self, at: np.ndarray, block: np.ndarray, agent: np.ndarray) -> None:
        """Fault where bytes [lanes, size] hold a write that their reader [lanes] may not see."""
        known = self.known[block[:, None], agent[:, None], self._write_agent[at]]
        self._check_writes("read", at, known, is_async=False)

    def check_write(
        self, at: np.ndarray, block: np.ndarray, agent: np.ndarray, is_async: bool = False
    ) -> None:
        """Fault where a write [lanes, size] may overtake an earlier access to its bytes."""
        place = block[:, None], agent[:, None], self._write_agent[at]
        known = self.known[place]
        if is_async:
            known = np.where(self._is_generic[at], self.fenced[place], known)
        self._check_writes("written", at, known, is_async)
        if self._under_way[at].any():
            raise Fault(RACE, "shared memory written while tensor cores read it")
        late = self._read_clock[at] > self.known[block, agent][:, None, :]
        if late.any():
            raise Fault(RACE, f"shared memory written after a read by another warp: {_UNORDERED}")

    def _check_writes(self, what: str, at: np.ndarray, known: np.ndarray, is_async: bool) -> None:
        """Fault where the last write of a byte is later than what is known of its writer."""
        clock = self._write_clock[at]
        late = clock > known
        if not late.any():
            return
        if (clock[late] == PENDING).any():
            text = "before an asynchronous copy to it was waited for"
        elif is_async:
            text = "by the async proxy after another warp or proxy wrote it: no barrier or fence"
        else:
            text = f"after a write by another warp: {_UNORDERED}"
        raise Fault(RACE, f"shared memory {what} {text}")

    def stamp_read(self, at: np.ndarray, block: np.ndarray, agent: np.ndarray) -> None:
        """Note reads at their agents' present clock."""
        column = self.column(block, agent)
        self._read_clock[at, column[:, None]] = self.now(block, agent)[:, None]

    def begin_reads(self, at: np.ndarray, block: int, warps: slice) -> None:
        """Note reads by tensor cores, which go on; all the warps must know of the writes."""
        known, fenced = (clock[block, warps].min(0) for clock in (self.known, self.fenced))
        writer = self._write_agent[at]
        seen = np.where(self._is_generic[at], fenced[writer], known[writer])
        self._check_writes("read", at, seen, is_async=True)
        self._under_way[at] += 1

    def end_reads(self, at: np.ndarray, block: int, warps: slice) -> None:
        """Note that such reads have ended, as the warps now know."""
        self._under_way[at] -= 1
        for warp in range(warps.start, warps.stop):
            column = self.column(block, warp)
            self._read_clock[at, column] = self.known[block, warp, column]

    def is_pending(self, at: np.ndarray) -> np.ndarray:
        """Return which bytes a copy is under way to."""
        return self._write_clock[at] == PENDING

    def stamp_write(
        self,
        at: np.ndarray,
        block: np.ndarray,
        agent: np.ndarray,
        differs: np.ndarray | np.bool_ = np.True_,
    ) -> None:
        """Note generic writes; two warps must not have written a byte in the same step.

        differs: which bytes such a pair of warps must not have written.
        """
        column = self.column(block, agent).astype(np.uint8)[:, None]
        self._write_clock[at] = self.now(block, agent)[:, None]
        self._write_agent[at] = column
        self._is_generic[at] = True
        if ((self._write_agent[at] != column) & differs).any():
            raise Fault(RACE, f"shared memory written by two warps: {_UNORDERED}")

    def stamp_pending_write(self, at: np.ndarray) -> None:
        """Note writes that have not ended."""
        self._write_clock[at] = PENDING

    def stamp_async_write(self, at: np.ndarray, column: int, clock: int) -> None:
        """Note that a copy engine's writes have ended at its clock."""
        self._write_clock[at] = clock
        self._write_agent[at] = column
        self._is_generic[at] = False
