"""Shared memory of the blocks that run together: bytes, bounds, races."""

from __future__ import annotations

import numpy as np

from .clocks import Clocks
from .faults import MISALIGNED, OUT_OF_BOUNDS, UNINITIALISED, Fault

#: In an address of the cluster's window, the block's rank + 1 stands from this bit on.
RANK_SHIFT = 24


class SharedMemory:
    """`size` bytes of each block; places are offsets into all blocks' bytes together.

    equal_writes: lanes may write what is there already, whoever wrote it.
    """

    def __init__(
        self, blocks: int, size: int, warps: int, cluster: int, equal_writes: bool = False
    ):
        self._equal_writes = equal_writes
        self.size = size
        self._stride = -(-max(size, 1) // 128) * 128
        self._cluster = cluster
        self.bytes = np.full(blocks * self._stride, 0xCD, np.uint8)
        self._is_written = np.zeros(blocks * self._stride, bool)
        self.clocks = Clocks(blocks, warps, cluster, self._stride)

    def owner(self, address: np.ndarray, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the block that holds each address, and its offset there."""
        rank = address >> RANK_SHIFT
        first = block // self._cluster * self._cluster
        return np.where(rank == 0, block, first + rank - 1), address & ((1 << RANK_SHIFT) - 1)

    def place(self, address: np.ndarray, size: int, block: np.ndarray) -> np.ndarray:
        """Return the places [lanes, size] of accesses to `size` bytes each."""
        owner, offset = self.owner(address, block)
        outside = (address < 0) | (offset + size > self.size)
        if outside.any():
            first = int(address[np.flatnonzero(outside)[0]])
            raise Fault(OUT_OF_BOUNDS, f"{size} bytes of shared {first:#x} of {self.size:#x}")
        if (offset % size).any():
            first = int(address[np.flatnonzero(offset % size)[0]])
            raise Fault(MISALIGNED, f"{size} bytes of shared {first:#x}")
        return (owner * self._stride + offset)[:, None] + np.arange(size)

    def read(self, at: np.ndarray, block: np.ndarray, warp: np.ndarray) -> np.ndarray:
        """Return the bytes at places [lanes, size], read by warps of blocks."""
        self.clocks.check_read(at, block, warp)
        self.check_written(at)
        self.clocks.stamp_read(at, block, warp)
        return self.bytes[at]

    def write(self, at: np.ndarray, data: np.ndarray, block: np.ndarray, warp: np.ndarray) -> None:
        """Write data at places [lanes, size]."""
        if self._equal_writes:
            is_there = (self.bytes[at] == data) & self._is_written[at] & ~self.clocks.is_pending(at)
            at, data, block, warp = (v[~is_there.all(1)] for v in (at, data, block, warp))
        self.clocks.check_write(at, block, warp)
        self.put(at, data)
        # Of lanes that write one byte now, the last has put it there.
        differs = self.bytes[at] != data if self._equal_writes else np.True_
        self.clocks.stamp_write(at, block, warp, differs)

    def put(self, at: np.ndarray, data: np.ndarray) -> None:
        """Set bytes without asking who may."""
        self.bytes[at] = data
        self._is_written[at] = True

    def is_written(self, at: np.ndarray) -> np.ndarray:
        """Return which bytes were ever written."""
        return self._is_written[at]

    def check_written(self, at: np.ndarray) -> None:
        """Fault where a byte was never written."""
        missing = ~self._is_written[at]
        if missing.any():
            first = int(at.reshape(-1)[np.flatnonzero(missing)[0]]) % self._stride
            raise Fault(UNINITIALISED, f"shared {first:#x} ({int(missing.sum())} bytes)")
