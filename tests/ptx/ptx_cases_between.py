"""The launches that the kernels of the ops between layers are run on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from host.between import prepare_between
from host.launchers import Launchers
from host.runs import Run
from interpreter import AHEAD, BEHIND

from fastinfer.testing.case import Case, generator, random_uint8
from fastinfer.testing.cases_between import (
    MAPS,
    Pool,
    adaptive_case,
    add_case,
    avg_case,
    cat_case,
    image,
    max_case,
    mul_case,
    pair_cases,
    upsample_case,
)


@dataclass(frozen=True)
class Between:
    """A launch of a case; offset: of x and the result from an aligned address."""

    case: Case
    offset: int = 0
    splits: int = 0
    order: str = BEHIND

    def prepare(self, launchers: Launchers) -> Run:
        return prepare_between(self.case, launchers, self.offset, self.splits)

    def __str__(self) -> str:
        at = f"_at{self.offset}" if self.offset else ""
        splits = f"_split{self.splits}" if self.splits else ""
        return f"{self.case}{at}{splits}_{self.order}"


def _codes(label: str, *shape: int) -> torch.Tensor:
    return random_uint8(generator(label), *shape)


def _pointwise() -> Iterator[Between]:
    nhwc = ("nhwc", "nhwc")
    for n in (1, 4161):
        for case in pair_cases((n,)):
            yield Between(case)
            yield Between(case, 3)
    for c in (1, 24, 31, 40):
        for case in pair_cases((2, c, 3, 5), nhwc, (2, c, 1, 1)):
            yield Between(case)
    for case in pair_cases((2, 5, 7, 9), y_shape=(2, 5, 1, 1)):
        yield Between(case)
    for case in pair_cases((2, 24, 3, 5), nhwc, (2, 24, 1, 1)):
        yield Between(case, 4)
    x, y = _codes("x", 3, 331), _codes("y", 3, 331)
    for m in MAPS:
        yield Between(add_case(x, y, "maps", m))
        yield Between(mul_case(x, y, "maps", m))
    yield Between(add_case(x, y, "maps", MAPS[1], table=True))
    for shape, layout in (((5001,), "nchw"), ((2, 5, 7, 9), "nhwc")):
        t, table = image(generator("t"), shape, layout), _codes("table", 256)
        for offset in (0, 1):
            yield Between(Case("int8_lookup", layout, lambda t=t, e=table: (t, e)), offset)
            yield Between(Case("dequantize", layout, lambda t=t: (t, 0.0173, 101)), offset)


def _cats() -> Iterator[Between]:
    maps = [(1.0, 101), (0.631, 17), (1e9, 128)]
    for widths in ((32, 16, 48), (24, 4, 64), (3, 5), (0, 33), (7,) * 31):
        g = generator(str(widths))
        parts = [image(g, (2, c, 3, 5), "nhwc") for c in widths]
        yield Between(cat_case(f"nhwc_{len(widths)}_{widths[0]}", parts, 1, maps))
    parts = [_codes("a", 2, 16, 4), _codes("b", 2, 32, 4)]
    yield Between(cat_case("rows", parts, 1, maps))
    yield Between(cat_case("rows", parts, 1, maps), 4)
    yield Between(cat_case("batch", [_codes("a", 2, 15), _codes("b", 3, 15)], 0, maps))


def _pools() -> Iterator[Between]:
    for pool in (
        Pool(2, 48, (9, 8)),
        Pool(2, 20, (9, 8), (2, 3), (3, 4), (1, 0), ceil_mode=True),
        Pool(1, 7, (8, 6), (2, 2), (1, 1), (1, 1)),
        Pool(1, 32, (5, 6), (5, 4), (1, 2), (2, 2)),
    ):
        yield Between(max_case(pool))
        for include_pad in (False, True):
            yield Between(avg_case(pool, include_pad))
    yield Between(max_case(Pool(1, 17, (9, 11), (3, 2), (2, 1), (1, 1), (2, 3))))
    yield Between(max_case(Pool(1, 16, (9, 8))), 4)
    for m in MAPS[1:]:
        yield Between(avg_case(Pool(1, 16, (5, 4)), False, m=m))
    for c, size, out in ((20, (9, 8), (4, 3)), (48, (5, 4), (7, 9)), (5, (3, 3), (1, 2))):
        x = image(generator(str(c)), (2, c, *size), "nhwc")
        yield Between(adaptive_case(x, out, f"{c}"))
    for c in (272, 36, 5, 32):
        x = image(generator(str(c)), (2, c, 9, 11), "nhwc")
        case = adaptive_case(x, (1, 1), f"whole{c}")
        for splits in (1, 3, -3):
            for order in (BEHIND, AHEAD):
                yield Between(case, 0, splits, order)
    yield Between(case)


def _upsamples() -> Iterator[Between]:
    for c in (16, 20, 7):
        x = image(generator(str(c)), (2, c, 7, 5), "nhwc")
        for sizes in ({"factors": (1.5, 0.7)}, {"size": (11, 5)}):
            yield Between(upsample_case(x, str(c), **sizes))
            yield Between(upsample_case(x, str(c), **sizes, bilinear=False))
        yield Between(upsample_case(x, str(c), size=(9, 8), align_corners=True))


BETWEEN_LAUNCHES: tuple[Between, ...] = (*_pointwise(), *_cats(), *_pools(), *_upsamples())

#: The kernels, as their mangled names hold them.
BETWEEN_TEMPLATES = (
    "9int8_pair",
    "11int8_lookup",
    "16dequantize_codes",
    "8int8_cat",
    "13int8_max_pool",
    "12int8_average",
    "18int8_split_average",
    "19int8_finish_average",
    "13int8_upsample",
)
