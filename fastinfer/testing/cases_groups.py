"""Inputs for convolutions in groups of few channels, several of which share a vector of results."""

from __future__ import annotations

from collections.abc import Iterator

from fastinfer.testing.case import Case
from fastinfer.testing.cases import OUTPUTS, UNBOUNDED, Conv, conv_case, dynamic_conv_case

#: Whole vectors and not, lines of one tile, of equal ones, of others, by taps, in several blocks,
#: without padding, as matrices.
_FEW_CHANNELS = (
    Conv(2, 32, (7, 7), 32, groups=8),
    Conv(1, 40, (14, 14), 40, groups=5),
    Conv(1, 104, (9, 28), 104, groups=13),
    Conv(1, 8, (5, 5), 8, groups=2),
    Conv(1, 12, (6, 31), 12, groups=3, dilation=(2, 3), padding=(2, 3)),
    Conv(2, 24, (13, 15), 24, groups=3, stride=(2, 2)),
    Conv(1, 48, (112, 112), 48, groups=6, stride=(2, 2)),
    Conv(1, 24, (5, 9), 24, kernel=(5, 2), padding=(0, 0), groups=6),
    Conv(2, 40, (3, 5), 40, kernel=(1, 1), padding=(0, 0), groups=10),
    Conv(1, 24, (1, 17), 24, kernel=(1, 1), padding=(0, 0), groups=3),
    Conv(0, 16, (4, 4), 16, groups=4),
)


def group_cases() -> Iterator[Case]:
    """Yield them, with every kind of result."""
    for conv in _FEW_CHANNELS:
        yield conv_case(conv)
        yield conv_case(conv, OUTPUTS[1], weights="extreme")
        if conv.n:
            yield dynamic_conv_case(conv)
    for output in (*OUTPUTS[1:], *UNBOUNDED):
        yield conv_case(_FEW_CHANNELS[1], output)
        yield conv_case(_FEW_CHANNELS[4], output)
    yield conv_case(_FEW_CHANNELS[3], OUTPUTS[1], nhwc=False)
