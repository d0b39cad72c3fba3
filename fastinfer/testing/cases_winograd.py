"""Convolutions of 3 x 3 as Winograd's algorithm takes them: tiles of 4 x 4 results, cut and whole.

It is taken where it is estimated to be faster, which needs images and channels enough. Every ISA
runs these cases.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastinfer.testing.case import Case
from fastinfer.testing.cases import OUTPUTS, UNBOUNDED, Conv, conv_case, dynamic_conv_case

#: Tiles of one to four lines and columns, whole blocks of 64 channels and not, panels that are not
#: full and narrow ones, several blocks of tiles, padding and none; many tiles, and so few that on
#: any CPU weights come into the domain as they are multiplied.
WINOGRAD = (
    *(Conv(1, 128, (17 + i, 20 - i), 64) for i in range(4)),
    Conv(2, 64, (16, 16), 64),
    Conv(1, 132, (20, 20), 40),
    Conv(1, 100, (24, 24), 33),
    Conv(1, 256, (16, 20), 16),
    Conv(3, 128, (28, 28), 32),
    Conv(1, 128, (18, 22), 64, padding=(0, 0)),
    Conv(1, 96, (20, 16), 48, padding=(2, 3)),
    Conv(1, 512, (16, 16), 32),
    *(Conv(1, 128, (45 + i, 48 - i), 64) for i in range(4)),
    *(Conv(1, 512, (4, 24 - i), 64) for i in range(3)),
)
#: Rows of pixels apart: even ones, of two lengths, with taps that see padding only.
_DILATED = (
    Conv(1, 128, (32, 24), 64, padding=(2, 2), dilation=(2, 2)),
    Conv(1, 128, (31, 35), 32, padding=(2, 3), dilation=(2, 3)),
    Conv(1, 96, (40, 20), 64, padding=(5, 1), dilation=(5, 1)),
)


def winograd_cases() -> Iterator[Case]:
    """Yield them, with every kind of result."""
    for conv in (*WINOGRAD, *_DILATED):
        yield conv_case(conv, zero_point=9)
    yield conv_case(WINOGRAD[0], OUTPUTS[1], weights="extreme")
    for output in (*OUTPUTS, *UNBOUNDED):
        yield conv_case(WINOGRAD[1], output)
        yield conv_case(WINOGRAD[5], output)
        yield conv_case(_DILATED[1], output)
    yield dynamic_conv_case(WINOGRAD[2])
    yield conv_case(WINOGRAD[3], nhwc=False)
