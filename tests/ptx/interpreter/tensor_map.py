"""Tensor maps as host/recorder.cpp writes them, and the boxes they describe."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from .faults import INVALID, Fault

MAP_BYTES = 128
_MAGIC = 0x50414D54
_LAYOUT = struct.Struct("<I4BQ4Q5I5H2h2h2H5B")

#: Bytes of a swizzled row -> which bits of the row's number move 16-byte chunks.
SWIZZLE_MASK = {0: 0, 32: 1, 64: 3, 128: 7}


def swizzle(address: np.ndarray, width: int) -> np.ndarray:
    """Return where a byte of rows of `width` bytes goes; width 0 swizzles nothing."""
    return address ^ ((address >> 7 & SWIZZLE_MASK[width]) << 4)


@dataclass(frozen=True)
class TensorMap:
    """A byte tensor in global memory and the boxes that are copied of it; innermost first."""

    is_im2col: bool
    width: int  # of swizzled rows, 0 for none
    address: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]  # 1, then bytes
    box: tuple[int, ...]
    lower: tuple[int, int]
    upper: tuple[int, int]
    channels: int
    pixels: int
    steps: tuple[int, ...]

    @classmethod
    def read(cls, raw: bytes) -> TensorMap:
        """Return the map of these bytes; faults where they are none."""
        magic, is_im2col, rank, mode, _, address, *rest = _LAYOUT.unpack_from(raw)
        if magic != _MAGIC:
            raise Fault(INVALID, "a bulk copy by what is no tensor map")
        strides, sizes, box = rest[:4], rest[4:9], rest[9:14]
        lower, upper = tuple(rest[14:16]), tuple(rest[16:18])
        return cls(
            bool(is_im2col), 16 << mode if mode else 0, address, tuple(sizes[:rank]),
            (1, *strides[: rank - 1]), tuple(box[:rank]), lower, upper, rest[18], rest[19],
            tuple(rest[20 : 20 + rank]),
        )  # fmt: skip

    def tile(self, start: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the addresses [rows, row bytes] of a tile from `start` on, and which exist."""
        if any(step != 1 for step in self.steps):
            raise Fault(INVALID, "a tiled map with steps is not emulated")
        address = np.full((1,), self.address, np.int64)
        exists = np.ones((1,), bool)
        for i, first in enumerate(start):  # outer dimensions go before inner ones
            at = first + np.arange(self.box[i])
            address = (at * self.strides[i])[:, None] + address[None, :]
            exists = ((at >= 0) & (at < self.sizes[i]))[:, None] & exists[None, :]
            address, exists = address.reshape(-1), exists.reshape(-1)
        return address.reshape(-1, self.box[0]), exists.reshape(-1, self.box[0])

    def windows(self, start: list[int], offset: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the addresses [pixels, channels] of one tap of consecutive windows.

        start: channel, width, height, image of the first window; offset: width, height.
        """
        channel, w, h, image = start
        if any(not 0 <= o < 256 for o in offset):
            raise Fault(INVALID, f"im2col offsets {offset}: expected 0..255")
        starts = np.empty((self.pixels, 3), np.int64)
        last = [size - 1 + up for size, up in zip(self.sizes[1:3], self.upper, strict=True)]
        for i in range(self.pixels):
            starts[i] = w, h, image
            w += self.steps[1]
            if w > last[0]:
                w, h = self.lower[0], h + self.steps[2]
                if h > last[1]:
                    h, image = self.lower[1], image + 1
        starts[:, :2] += offset
        inside = ((starts >= 0) & (starts < np.array(self.sizes[1:]))).all(1)
        of_channel = channel + np.arange(self.channels)
        address = self.address + (starts * self.strides[1:]).sum(1)[:, None] + of_channel
        return address, inside[:, None] & (of_channel >= 0) & (of_channel < self.sizes[0])
