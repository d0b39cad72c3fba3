"""Inputs for first layers, whose windows lie column by column."""

from __future__ import annotations

from collections.abc import Iterator

from fastinfer.testing.case import Case
from fastinfer.testing.cases import OUTPUTS, UNBOUNDED, Conv, conv_case, dynamic_conv_case

#: Lines longer and shorter than a vector's part, of one tile and of several, in several blocks;
#: more lines than half a vector's and fewer; 1 to 15 channels; windows that a dilation takes apart.
CONVS = (
    Conv(1, 3, (35, 29), 64, kernel=(7, 7), padding=(3, 3), stride=(2, 2)),
    Conv(2, 3, (224, 224), 64, kernel=(7, 7), padding=(3, 3), stride=(2, 2)),
    Conv(1, 3, (9, 4), 96, kernel=(7, 7), padding=(3, 3)),
    Conv(1, 3, (7, 7), 80, kernel=(7, 7), padding=(0, 0)),
    Conv(2, 3, (12, 41), 64),
    Conv(1, 3, (20, 23), 64, kernel=(7, 7), padding=(6, 3), dilation=(2, 1), stride=(1, 3)),
    Conv(1, 3, (20, 23), 64, kernel=(7, 7), padding=(6, 6), dilation=(2, 2)),
    Conv(1, 1, (14, 28), 96, kernel=(5, 5), padding=(2, 2)),
    Conv(1, 2, (9, 30), 96, kernel=(5, 3), padding=(2, 1)),
    Conv(1, 5, (10, 19), 128, kernel=(5, 5), padding=(2, 2)),
    Conv(1, 6, (8, 9), 256),
    Conv(1, 15, (6, 11), 512, kernel=(8, 3), padding=(4, 1)),
    Conv(1, 13, (5, 3), 256, kernel=(3, 1), padding=(1, 0)),
    Conv(0, 3, (8, 8), 64, kernel=(7, 7), padding=(3, 3)),
)


def column_cases() -> Iterator[Case]:
    """Yield them, with every kind of result."""
    for conv in CONVS:
        yield conv_case(conv)
        yield conv_case(conv, OUTPUTS[1], weights="extreme", zero_point=0)
        if conv.n:
            yield dynamic_conv_case(conv)
    for output in (*OUTPUTS[1:], *UNBOUNDED):
        yield conv_case(CONVS[0], output)
        yield conv_case(CONVS[6], output)
    yield conv_case(CONVS[0], OUTPUTS[1], nhwc=False)
