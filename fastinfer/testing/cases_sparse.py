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
#: Tiles have 12 rows with one vector of channels, 8 with two.
_HEIGHTS = (1, 2, 7, 8, 9, 12, 13, 16, 24, 25)
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


def _dynamic_case(kind: str) -> Case:
    label = f"sparse_dynamic_{kind}"

    def build() -> tuple[Any, ...]:
        g = generator(label)
        packed = pack_dynamic("linear", random_weight(g, kind, 40, 200), g, 1)
        return torch.randn((9, 200), generator=g), packed, 40, True

    return Case("int8_linear_dynamic", label, build)


def sparse_cases() -> Iterator[Case]:
    """Yield cases of int8_linear, its dynamic form and int8_conv2d."""
    for m in _HEIGHTS:
        yield linear_case((m,), 48, 256, weights="sparse")
        yield linear_case((m,), 64, 256, weights="shared")
    for n in _CHANNELS:
        yield linear_case((11,), n, 192, weights="sparse")
    for k in _PRODUCTS:
        yield linear_case((10,), 37, k, weights="sparse")
        yield linear_case((10,), 64, k, weights="apart")
    for kind in KINDS:
        yield _dynamic_case(kind)
        for output in (*OUTPUTS[1:], *UNBOUNDED):
            yield linear_case((13,), 43, 640, output, kind)
        for conv in _CONVS:
            yield conv_case(conv, OUTPUTS[1], kind)
    yield conv_case(Conv(1, 1024, (5, 6), 64), weights="apart")
