"""Cases of int8_depthwise_conv2d and its dynamic form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastinfer.testing.case import Case
from fastinfer.testing.cases import OUTPUTS, UNBOUNDED, Conv, depthwise_case, dynamic_conv_case


def _dw(c: int, size: tuple[int, int], n: int = 1, **geometry: Any) -> Conv:
    return Conv(n, c, size, c, groups=c, **geometry)


_DEPTHWISE = (
    _dw(32, (9, 9)),
    _dw(64, (8, 7), stride=(2, 2), n=2),
    _dw(7, (6, 6)),
    _dw(40, (5, 11), kernel=(5, 5), padding=(2, 2)),
    _dw(96, (7, 7), kernel=(5, 5), padding=(2, 2), stride=(2, 2)),
    _dw(33, (4, 9), kernel=(1, 3), padding=(0, 1)),
    _dw(130, (3, 3), kernel=(7, 7), padding=(3, 3)),
    _dw(16, (10, 10), dilation=(3, 2), padding=(3, 2)),
    _dw(65, (6, 5), kernel=(2, 2), padding=(0, 0), stride=(2, 1)),
    _dw(1, (5, 5)),
    _dw(48, (3, 1)),
    _dw(48, (2, 2), n=2),
    _dw(100, (3, 3), padding=(0, 0)),
    _dw(24, (2, 2), padding=(4, 4)),
    _dw(8, (3, 3), n=0),
    # Kernels of three rows: two output rows at once, where there are two.
    _dw(72, (9, 7), stride=(2, 2), padding=(0, 1)),
    _dw(64, (12, 5), kernel=(3, 2), stride=(2, 1), padding=(2, 0), n=2),
    _dw(20, (7, 6), kernel=(3, 1), stride=(2, 2), padding=(1, 0)),
    _dw(32, (8, 9), kernel=(3, 2), stride=(1, 2), dilation=(1, 2)),
    _dw(16, (7, 5), kernel=(3, 4), padding=(1, 2)),
    _dw(65, (10, 6), stride=(3, 1)),
    _dw(64, (1, 40), n=3),
    # Horizontal strides: what needs no padding is read in place, but for the last row.
    _dw(96, (9, 12), stride=(2, 2), n=2),
    _dw(24, (6, 13), stride=(1, 2), padding=(1, 3)),
    _dw(8, (5, 9), stride=(2, 2)),
    _dw(8, (5, 7), stride=(2, 2), n=2),
    _dw(72, (8, 15), kernel=(5, 5), stride=(2, 3), padding=(2, 5)),
    _dw(160, (7, 16), stride=(2, 2), dilation=(1, 3), padding=(1, 2)),
    _dw(64, (6, 10), kernel=(2, 2), stride=(2, 2), padding=(0, 0), n=2),
    _dw(40, (4, 11), kernel=(3, 1), stride=(2, 2), padding=(1, 0)),
    # 3 x 3 by columns: whole blocks and not, short and long lines, two pixels to a block.
    *(_dw(c, (5, w), n=2) for c in (32, 48, 64, 144) for w in (2, 3, 4, 5, 9)),
    *(_dw(c, (6, w), stride=(2, 2)) for c in (20, 64, 100) for w in (1, 2, 5, 8)),
    _dw(32, (4, 6), padding=(2, 2)),
    _dw(32, (7, 9), padding=(0, 0), stride=(2, 1)),
    _dw(64, (9, 5), padding=(2, 0), dilation=(2, 1), stride=(3, 1)),
    _dw(130, (6, 7), padding=(1, 3), stride=(1, 2), n=2),
)


def depthwise_cases() -> Iterator[Case]:
    """Yield every case."""
    for conv in _DEPTHWISE:
        yield depthwise_case(conv)
        yield dynamic_conv_case(conv)
    for output in OUTPUTS[1:]:
        for at in (0, 3, 15):
            yield depthwise_case(_DEPTHWISE[at], output)
    for output in UNBOUNDED:
        for at in (3, 15):
            yield depthwise_case(_DEPTHWISE[at], output)
    for weights in ("uniform", "extreme", "zero"):
        for at in (0, 15):
            yield depthwise_case(_DEPTHWISE[at], weights=weights)
    yield depthwise_case(_dw(144, (28, 28), n=2), OUTPUTS[1])
