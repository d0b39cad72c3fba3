"""Global memory: buffers with known extents, a state for each byte."""

from __future__ import annotations

import numpy as np

from .faults import INVALID, MISALIGNED, OUT_OF_BOUNDS, READ_ONLY, UNINITIALISED, Fault

#: Where buffers begin: above 2^32, so that an address that lost its upper half is found.
BASE = 0x7F00_0000_0000
#: Buffers start on multiples of this, and so much at least lies between them.
ALIGNMENT, GAP = 256, 512

_MAPPED, _WRITTEN, _WRITABLE = 1, 2, 4


class GlobalMemory:
    """Bytes of the device's memory; what no buffer covers is out of bounds."""

    def __init__(self, capacity: int = 1 << 24):
        self.bytes = np.zeros(capacity, np.uint8)
        self._state = np.zeros(capacity, np.uint8)
        self._end = ALIGNMENT
        self._buffers: list[tuple[int, int]] = []  # address and size of each, rising

    def add(self, data: np.ndarray, offset: int = 0, granule: int = 1) -> int:
        """Copy data into a new read-only buffer and return its address.

        offset: its distance from an aligned address. granule: bytes that may be read around the
        data come in whole aligned granules, as an allocator's do.
        """
        raw = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
        start = self._reserve(raw.size, offset)
        self.bytes[start : start + raw.size] = raw
        first, last = start // granule * granule, -(-(start + raw.size) // granule) * granule
        self._state[first:last] = _MAPPED | _WRITTEN
        return BASE + start

    def add_result(self, size: int, offset: int = 0) -> int:
        """Return the address of a new writable buffer of so many bytes, not initialised."""
        start = self._reserve(size, offset)
        self._state[start : start + size] = _MAPPED | _WRITABLE
        return BASE + start

    def overwrite(self, address: int, content: bytes) -> None:
        """Replace bytes, whoever may write there."""
        start = address - BASE
        self.bytes[start : start + len(content)] = np.frombuffer(content, np.uint8)

    def _reserve(self, size: int, offset: int) -> int:
        start = self._end + offset
        if start + size + GAP > self.bytes.size:
            raise Fault(INVALID, f"{size} bytes more than the memory's capacity")
        self._end = -(-(start + size + GAP) // ALIGNMENT) * ALIGNMENT
        self._buffers.append((BASE + start, size))
        return start

    def result(self, address: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a buffer's bytes, and which of them were written."""
        part = slice(address - BASE, address - BASE + size)
        return self.bytes[part].copy(), (self._state[part] & _WRITTEN) != 0

    def read(self, address: np.ndarray, size: int) -> np.ndarray:
        """Return [len(address), size] bytes."""
        at = self._place(address, size)
        state = self._state[at]
        if not (state & _WRITTEN).all():
            raise Fault(UNINITIALISED, f"global {_first(address, (state & _WRITTEN) == 0)}")
        return self.bytes[at]

    def write(self, address: np.ndarray, data: np.ndarray) -> None:
        """Write data [len(address), size] bytes."""
        at = self._place(address, data.shape[1])
        state = self._state[at]
        if not (state & _WRITABLE).all():
            raise Fault(READ_ONLY, f"global {_first(address, (state & _WRITABLE) == 0)}")
        self.bytes[at] = data
        self._state[at] = state | _WRITTEN

    def atomic(self, address: int, size: int) -> np.ndarray:
        """Return a view of a place that is read and written at once."""
        where = np.array([address])
        self.write(where, self.read(where, size))
        return self.bytes[address - BASE : address - BASE + size]

    def check(self, address: np.ndarray) -> None:
        """Fault where an address is in no buffer."""
        self._place(address, 1)

    def _place(self, address: np.ndarray, size: int) -> np.ndarray:
        start = address - BASE
        outside = (start < 0) | (start + size > self.bytes.size)
        if outside.any():
            raise Fault(OUT_OF_BOUNDS, f"global {self._near(address, outside)}")
        if (start % size).any():
            raise Fault(MISALIGNED, f"{size} bytes of global {_first(address, start % size != 0)}")
        at = start[:, None] + np.arange(size)
        unmapped = (self._state[at] & _MAPPED) == 0
        if unmapped.any():
            near = self._near(address, unmapped)
            raise Fault(OUT_OF_BOUNDS, f"{size} bytes of global {near}")
        return at

    def _near(self, address: np.ndarray, wrong: np.ndarray) -> str:
        """Describe the first such address, and where it lies from the buffer before it."""
        first = int(address[wrong.reshape(len(address), -1).any(1)][0])
        before = [(start, size) for start, size in self._buffers if start <= first]
        if not before:
            return f"{_first(address, wrong)}, before every buffer"
        start, size = before[-1]
        return f"{_first(address, wrong)}, {first - start} bytes into a buffer of {size}"


def _first(address: np.ndarray, wrong: np.ndarray) -> str:
    """Describe the first address of which some byte is wrong."""
    rows = wrong.reshape(len(address), -1).any(1)
    return f"address {int(address[rows][0]):#x} ({int(rows.sum())} lanes)"
