"""Cases of weights with zeros, for kernels that leave those out: every ISA runs them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from fastinfer.testing.case import Case
from fastinfer.testing.cases import (
    OUTPUTS,
    UNBOUNDED,
    Conv,
    conv_case,
    generator,
    linear_case,
    pack_dynamic,
    random_weight,
)

KINDS = ("sparse", "shared", "apart")
#: Tiles have 7 rows with one vector of channels, 12 with AMX, 8 with two.
_HEIGHTS = (1, 2, 7, 8, 9, 12, 13, 16, 24, 25)
#: In turn: two tiles and more of 5 to 7 rows, where a panel has more than 32 quads.
_TURN_ROWS = (14, 15, 16, 18, 25)
_CHANNELS = (5, 16, 17, 32, 33, 80)
#: One step, whole ones, equal ones that are not full, padded ones.
_PRODUCTS = (3, 63, 64, 65, 130, 144, 152, 184, 1000)
_CONVS = (
    Conv(1, 64, (9, 14), 48),
    Conv(2, 144, (7, 9), 40),  # steps of 48
    Conv(1, 20, (9, 16), 33, kernel=(5, 3), padding=(2, 1)),
    Conv(1, 128, (10, 11), 32, kernel=(1, 1), padding=(0, 0), stride=(2, 2)),
    Conv(2, 128, (8, 12), 40, groups=2),
    Conv(1, 64, (12, 13), 48, padding=(2, 3), dilation=(2, 3)),
    Conv(1, 48, (12, 13), 16, padding=(2, 2), dilation=(2, 2)),  # a tap is no whole step
    Conv(1, 3, (20, 22), 32, kernel=(7, 7), padding=(3, 3), stride=(2, 2)),
    Conv(0, 64, (9, 14), 48),
)
#: With AMX calls of up to some of these run on a sparse image, those of more on tiles: up to 12 on
#: Granite Rapids, 19 where picking cost nothing, and 2 where it cost eight products.
_FEW_ROWS = (*range(26), 40)


def few_rows_cases() -> Iterator[Case]:
    """Yield cases of linear layers that keep a sparse image beside tiles, around where it ends."""
    for m in _FEW_ROWS:
        yield linear_case((m,), 96, 600, weights="shared few")
    for n in (16, 17, 47, 48, 80):  # panels of both widths in either image
        yield linear_case((2,), n, 512, weights="shared few")
    for k in (321, 576, 704, 1111):
        yield linear_case((3,), 64, k, weights="shared few")
    for m in (1, 3, 17):
        yield linear_case((m,), 37, 68, weights="normal")  # an odd number of quads
        for output in (*OUTPUTS[1:], *UNBOUNDED):
            yield linear_case((m,), 85, 640, output, "shared few")
        for per_token in (True, False):
            yield _dynamic_case("shared few", m, 600, per_token)


def _dynamic_case(kind: str, m: int = 9, k: int = 200, per_token: bool = True) -> Case:
    label = f"sparse_dynamic_{kind}_{m}_k{k}_{per_token}"

    def build() -> tuple[Any, ...]:
        g = generator(label)
        packed = pack_dynamic("linear", random_weight(g, kind, 40, k), g, 1)
        return torch.randn((m, k), generator=g), packed, 40, per_token

    return Case("int8_linear_dynamic", label, build)


def sparse_cases() -> Iterator[Case]:
    """Yield cases of int8_linear, its dynamic form and int8_conv2d."""
    for m in _HEIGHTS:
        yield linear_case((m,), 48, 256, weights="sparse")
        yield linear_case((m,), 64, 256, weights="shared")
    for m in _TURN_ROWS:
        yield linear_case((m,), 64, 1024, weights="shared")
    for n in _CHANNELS:
        yield linear_case((11,), n, 192, weights="sparse")
    for k in _PRODUCTS:
        yield linear_case((10,), 37, k, weights="sparse")
        yield linear_case((10,), 64, k, weights="apart")
    for m in (5, 12, 25, 70):
        yield linear_case((m,), 21, 4100, weights="sparse")  # a panel's weights leave L1
        yield linear_case((m,), 70, 1500, weights="shared")
    for kind in KINDS:
        yield _dynamic_case(kind)
        for output in (*OUTPUTS[1:], *UNBOUNDED):
            yield linear_case((13,), 43, 640, output, kind)
        for conv in _CONVS:
            yield conv_case(conv, OUTPUTS[1], kind)
    yield conv_case(Conv(1, 1024, (5, 6), 64), weights="apart")
    yield from few_rows_cases()
