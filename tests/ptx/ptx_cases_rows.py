"""The launches that the kernels of ops over whole rows are run on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from host.launchers import Launchers
from host.rows import prepare_dynamic, prepare_float_rows, prepare_ranges
from host.runs import Run, Tile
from interpreter import AHEAD, BEHIND

from fastinfer.testing.case import Case, generator
from fastinfer.testing.cases import Conv, cases, dynamic_conv_case
from fastinfer.testing.cases_rows import row_cases


@dataclass(frozen=True)
class FloatRows:
    """A launch of layer norm or softmax; offset: of x and the result from an aligned address."""

    case: Case
    offset: int = 0
    order: str = BEHIND

    def prepare(self, launchers: Launchers) -> Run:
        return prepare_float_rows(self.case, launchers, self.offset)

    def __str__(self) -> str:
        return f"{self.case}_at{self.offset}"


@dataclass(frozen=True)
class Ranges:
    """A launch that finds ranges of rows [rows, n], or of images, or quantizes by them."""

    shape: tuple[int, ...]
    step: str
    splits: int = 0
    pad: tuple[int, int] | None = None
    order: str = BEHIND

    def prepare(self, launchers: Launchers) -> Run:
        x = torch.randn(self.shape, generator=generator(str(self.shape))) * 3
        flat = x.view(x.shape[0], -1)
        flat[0, 0], flat[0, -1] = float("nan"), 40.0
        flat[1 % x.shape[0]] = flat[1 % x.shape[0]].abs()
        flat[-1, :] *= 1e30
        return prepare_ranges(x, launchers, self.step, self.splits, self.pad)

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape))
        pad = f"_pad{self.pad[0]}.{self.pad[1]}" if self.pad else ""
        return f"ranges_{self.step}{self.splits}-{shape}{pad}_{self.order}"


@dataclass(frozen=True)
class Dynamic:
    """A product of rows with ranges of their own; tile None: a depthwise convolution."""

    case: Case
    tile: Tile | None
    order: str = BEHIND

    def prepare(self, launchers: Launchers) -> Run:
        return prepare_dynamic(self.case, self.tile, launchers)

    def __str__(self) -> str:
        return f"{self.tile}-{self.case}"


def _float_rows() -> Iterator[FloatRows]:
    wanted = ("rows_1", "rows_17", "rows_64", "rows_100", "image_24", "image_65", "equal", "large",
              "tiny", "parts", "masked", "steps", "spread", "four_last")  # fmt: skip
    for case in row_cases():
        if case.label.removesuffix("_wb") in wanted or case.label.startswith("parts"):
            yield FloatRows(case)
            if case.label.startswith("rows_64"):
                yield FloatRows(case, 4)


def _ranges() -> Iterator[Ranges]:
    for n in (1, 7, 64, 1023):
        yield Ranges((5, n), "rows")
    yield Ranges((3, 2052), "rows")
    yield Ranges((2, 1030), "rows", order=AHEAD)
    for splits in (1, 3):
        for shape in ((3, 4104), (1, 1001)):
            for order in (BEHIND, AHEAD):
                yield Ranges(shape, "bounds", splits, order=order)
                yield Ranges(shape, "codes", splits, order=order)
    yield Ranges((1, 40), "codes", 300)  # more shares than threads, most of them empty
    for shape, pad in (((3, 16, 5, 6), (1, 1)), ((2, 3, 7, 4), (2, 0)), ((2, 8, 3, 3), (0, 3))):
        for splits in (1, 2):
            yield Ranges(shape, "codes", splits, pad)


def _dynamic() -> Iterator[Dynamic]:
    linear = [c for c in cases() if c.op == "int8_linear_dynamic" and not c.label.startswith("0x")]
    convs = (
        Conv(2, 32, (6, 7), 24),
        Conv(3, 3, (15, 9), 16, (7, 7), (2, 2), (3, 3)),
        Conv(2, 64, (9, 6), 64, (5, 3), (2, 1), (2, 0), (1, 2), 2),
    )
    for case in linear:
        yield Dynamic(case, Tile("mma", 64, 64))
        if case.label.startswith(("70x96", "9x64")):
            yield Dynamic(case, Tile("mma", 128, 128))
            yield Dynamic(case, Tile("wgmma", 64, 64))
            yield Dynamic(case, Tile("wgmma", 128, 128))
    for conv in convs:
        yield Dynamic(dynamic_conv_case(conv), Tile("mma", 64, 64))
    yield Dynamic(dynamic_conv_case(convs[1]), Tile("first", 0, 0))
    for conv in (convs[0], convs[2]):
        yield Dynamic(dynamic_conv_case(conv), Tile("wgmma", 64, 64))
    yield Dynamic(dynamic_conv_case(Conv(2, 24, (5, 6), 24, groups=24)), None)
    yield Dynamic(dynamic_conv_case(Conv(1, 7, (5, 6), 7, (5, 3), (2, 1), (2, 0), groups=7)), None)


RowLaunch = FloatRows | Ranges | Dynamic
ROW_LAUNCHES: tuple[RowLaunch, ...] = (*_float_rows(), *_ranges(), *_dynamic())

#: The kernels, as their mangled names hold them; products have names of their own.
ROW_TEMPLATES = (
    "16float_layer_norm",
    "13float_softmax",
    "17quantize_each_row",
    "11find_bounds",
    "14quantize_split",
    "15quantize_padded",
)
