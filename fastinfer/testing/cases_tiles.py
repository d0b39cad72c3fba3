"""Cases at the edges of GEMMs in tile registers: heights, steps of K, panels, lines, dilation.

Registers take 16 rows, and two of them 32; 16 groups of 4 products; and 16 or 32 channels. Every
ISA runs these cases.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastinfer.testing.case import Case
from fastinfer.testing.cases import OUTPUTS, UNBOUNDED, Conv, Output, conv_case, linear_case

#: Around the height of one and two registers, and tiles of two heights.
_HEIGHTS = (1, 2, 15, 16, 17, 18, 31, 32, 33, 34, 48, 49, 63, 64, 65, 97)
#: Products of one row: whole steps, equal steps that are not full, padded ones, many.
_PRODUCTS = (60, 68, 124, 128, 144, 152, 160, 184, 232, 672, 2048, 2304)
_CHANNELS = (15, 16, 17, 32, 48, 64, 72, 100)

#: Clamped by nothing but a byte: kernels have a shorter end for these.
_PLAIN = (
    Output("u8_plain", out_zero_point=0),
    Output("u8_plain_residual", out_zero_point=0, residual=True),
)

_CONVS = (
    *(Conv(1, 16, (5, w), 40) for w in (1, 2, 7, 12, 14, 15, 16, 17, 28, 31, 32, 33, 56)),
    Conv(2, 64, (13, 14), 96),  # an odd number of lines in pairs
    Conv(1, 256, (6, 14), 64),  # 36 steps
    Conv(
        1, 12, (9, 18), 24, kernel=(5, 5), padding=(2, 2)
    ),  # runs that are padded to a step's quads
    Conv(1, 40, (4, 20), 33, kernel=(1, 7), padding=(0, 3)),
    Conv(1, 24, (20, 20), 48, stride=(2, 2)),
    Conv(1, 512, (7, 7), 600),  # more weights than L2 is given for them
    Conv(1, 64, (10, 24), 40, groups=2),
)
_DILATED = (
    Conv(1, 64, (12, 12), 48, padding=(2, 2), dilation=(2, 2)),
    Conv(2, 16, (9, 33), 40, padding=(4, 4), dilation=(4, 4)),
    Conv(1, 32, (8, 8), 20, padding=(12, 12), dilation=(12, 12)),  # one tap sees the image
    Conv(1, 32, (8, 10), 70, padding=(6, 7), dilation=(6, 7)),
    Conv(1, 16, (11, 13), 16, padding=(3, 0), dilation=(3, 5)),
    Conv(1, 64, (9, 14), 64, padding=(2, 3), dilation=(2, 3), groups=2),
    Conv(1, 16, (16, 17), 24, padding=(2, 2), dilation=(2, 2), stride=(2, 3)),
    Conv(1, 8, (6, 5), 8, kernel=(2, 2), padding=(9, 9), dilation=(3, 3)),  # some see none of it
    Conv(1, 512, (40, 40), 32, padding=(4, 4), dilation=(4, 4)),  # several blocks of lines
    Conv(1, 8, (6, 1), 8, padding=(2, 2), dilation=(2, 2)),
    Conv(1, 64, (13, 32), 40, padding=(12, 12), dilation=(12, 12)),  # tiles see other columns each
    Conv(1, 1024, (9, 20), 16, padding=(4, 4), dilation=(4, 4)),  # pixels that are moved apart
)


def tile_cases() -> Iterator[Case]:
    """Yield cases of int8_linear and int8_conv2d."""
    for m in _HEIGHTS:
        yield linear_case((m,), 48, 192)
    for k in _PRODUCTS:
        yield linear_case((33,), 40, k)
    for n in _CHANNELS:
        yield linear_case((40,), n, 72)
    for output in (*OUTPUTS[1:], *UNBOUNDED, *_PLAIN):
        yield linear_case((70,), 80, 130, output)
        yield conv_case(_CONVS[9], output)
        yield conv_case(_DILATED[0], output)
    for conv in _CONVS:
        yield conv_case(conv)
    for conv in _DILATED:
        for zero_point in (0, 7):
            yield conv_case(conv, zero_point=zero_point)
