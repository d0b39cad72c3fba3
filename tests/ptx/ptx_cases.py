"""The launches that the CUDA kernels are run on: small, ragged, every branch of their sources."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import torch
from host.launchers import Launchers
from host.runs import Run, Tile, prepare_depthwise, prepare_gemm, prepare_quantize, source_of
from interpreter import AHEAD, BEHIND
from ptx_cases_between import BETWEEN_LAUNCHES, Between
from ptx_cases_first import FIRST_LAUNCHES, First
from ptx_cases_rows import ROW_LAUNCHES, RowLaunch

from fastinfer.testing.case import Case, generator
from fastinfer.testing.cases import OUTPUTS, UNBOUNDED, Conv, conv_case, depthwise_case, linear_case

MMA = (Tile("mma", 64, 64), Tile("mma", 128, 128))
WGMMA = (
    Tile("wgmma", 64, 64),
    Tile("wgmma", 64, 128),
    Tile("wgmma", 128, 64),
    Tile("wgmma", 128, 128),
    Tile("wgmma", 128, 256),
    Tile("wgmma", 128, 256, 2),
)
U8, RESIDUAL, CLAMPED, TABLE, RESIDUAL_TABLE, F32, F32_RESIDUAL = OUTPUTS


#: The same case for the same arguments, so that a launch that several tests take is run once.
linear, conv, depthwise = cache(linear_case), cache(conv_case), cache(depthwise_case)

#: Nine taps of half a stage each, padding that must be filled.
FILLED = Conv(2, 64, (9, 10), 72)
#: A first layer: three channels, seven taps each way.
FIRST = Conv(1, 3, (15, 9), 16, (7, 7), (2, 2), (3, 3))
SMALL = Conv(2, 32, (6, 7), 24)


@dataclass(frozen=True)
class Product:
    """A GEMM's launch; the row source it must take is part of the expectation."""

    case: Case
    tile: Tile
    source: str
    offset: int = 0
    multiprocessors: int = 4
    order: str = BEHIND

    def prepare(self, launchers: Launchers) -> Run:
        run = prepare_gemm(self.case, self.tile, launchers, self.offset, self.multiprocessors)
        # What bulk copies could gather, the mma.sync kernel gathers as windows.
        is_mma = self.tile.kernel.endswith("mma") and "wgmma" not in self.tile.kernel
        source = "windows" if is_mma and self.source == "pixels" else self.source
        assert source_of(run) == source
        return run

    def __str__(self) -> str:
        at = f"_at{self.offset}" if self.offset else ""
        return f"{self.tile}_{self.source}{at}-{self.case}_{self.order}"


@dataclass(frozen=True)
class Quantized:
    """A quantize launch."""

    shape: tuple[int, ...]
    channels_last: bool = False
    offsets: tuple[int, int] = (0, 0)
    zero_point: int = 100
    dtype: torch.dtype = torch.float32
    order: str = field(default=BEHIND)

    def prepare(self, launchers: Launchers) -> Run:
        x = torch.randn(self.shape, generator=generator(str(self.shape))) * 3
        flat = x.view(-1)
        flat[0], flat[-1], flat[flat.numel() // 2] = float("nan"), 0.05, 1e30
        return prepare_quantize(
            x.to(self.dtype), launchers, zero_point=self.zero_point,
            channels_last=self.channels_last, offsets=self.offsets,
        )  # fmt: skip

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape))
        nhwc = "_nhwc" if self.channels_last else ""
        return f"quantize-{shape}{nhwc}_at{self.offsets}_{str(self.dtype).removeprefix('torch.')}"


@dataclass(frozen=True)
class Depthwise:
    """A depthwise convolution's launch; that by strips is expected where `strips` says so."""

    case: Case
    strips: tuple[int, int] | None  # kernel size and stride, as that kernel is instantiated
    strip: int = 0
    lanes: int = 0
    offset: int = 0
    rows: int | None = None
    order: str = BEHIND

    def prepare(self, launchers: Launchers) -> Run:
        run = prepare_depthwise(
            self.case, launchers, self.strip, self.lanes, self.offset, self.rows
        )
        name = "int8_depthwise_any"
        if self.strips is not None:
            name = "int8_depthwise_stripILi{}ELi{}E".format(*self.strips)
        assert name in run.kernel.name
        return run

    def __str__(self) -> str:
        kernel = "any" if self.strips is None else "strip{}_{}".format(*self.strips)
        rows = "" if self.rows is None else f"_rows{self.rows}"
        return f"{kernel}_{self.strip}x{self.lanes}_at{self.offset}{rows}-{self.case}"


def _quantized() -> Iterator[Quantized]:
    yield Quantized((4097,))
    yield Quantized((33,), offsets=(4, 3), zero_point=0)
    yield Quantized((5000,), offsets=(4, 1), zero_point=255)
    planes = ((2, 2, 31, 33), (1, 3, 32, 36), (3, 3, 9, 37), (2, 4, 20, 40), (1, 5, 9, 7),
              (2, 64, 8, 8), (1, 80, 13, 5), (3, 130, 1, 65))  # fmt: skip
    for shape in planes:
        for offsets in ((0, 0), (4, 1)):
            yield Quantized(shape, True, offsets)
    for dtype in (torch.float16, torch.bfloat16):
        yield Quantized((4097,), dtype=dtype)
        yield Quantized((533,), offsets=(2, 3), dtype=dtype)
        for shape in ((2, 2, 31, 33), (1, 3, 32, 36), (2, 4, 20, 40), (1, 80, 13, 5)):
            yield Quantized(shape, True, dtype=dtype)
            yield Quantized(shape, True, (2, 1), dtype=dtype)


def _pair(tiles: tuple[Tile, ...], case: Case, source: str, offset: int = 0) -> Iterator[Product]:
    for tile in tiles:
        yield Product(case, tile, source, offset)


ONE_BY_ONE = {"kernel": (1, 1), "padding": (0, 0)}


def _mma() -> Iterator[Product]:
    both, small = MMA, MMA[:1]
    yield from _pair(both, linear((70,), 40, 96), "matrix")
    yield from _pair(small, linear((3,), 8, 16, RESIDUAL_TABLE), "matrix")
    yield from _pair(both, linear((129,), 136, 336, RESIDUAL), "matrix")
    yield from _pair(small, linear((65,), 99, 208, F32_RESIDUAL), "matrix")
    yield from _pair(small, linear((20,), 64, 64, UNBOUNDED[1]), "matrix")
    yield from _pair(small, linear((20,), 33, 64, weights="extreme"), "matrix")
    yield from _pair(both, linear((9,), 20, 37), "narrow")
    yield from _pair(small, linear((9,), 21, 36, RESIDUAL), "narrow", 4)
    yield from _pair(small, linear((20,), 48, 48, TABLE), "narrow", 1)
    yield from _pair(small, linear((70,), 16, 3, F32), "narrow")
    yield from _pair(both, conv(SMALL), "pixels")
    split = Conv(1, 32, (9, 6), 32, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)
    yield from _pair(small, conv(split, RESIDUAL, zero_point=0), "windows")
    yield from _pair(both, conv(FIRST), "narrow")
    yield from _pair(small, conv(FIRST, RESIDUAL), "narrow", 1)
    yield from _pair(small, conv(Conv(1, 12, (7, 5), 18, groups=3)), "narrow")
    yield from _pair(small, conv(Conv(2, 4, (9, 9), 40)), "narrow")
    yield from _pair(small, conv(Conv(2, 1, (9, 9), 40)), "narrow")


def _wgmma() -> Iterator[Product]:
    for tile in WGMMA:
        # More blocks of K than stages, more tiles than blocks.
        deep = 1072 if tile.block_m == 64 else 688 if tile.block_n < 256 else 560
        case = linear((tile.block_m + 20,), tile.block_n + 8, deep, RESIDUAL)
        for order in (BEHIND, AHEAD) if tile in (WGMMA[0], WGMMA[-1]) else (AHEAD,):
            yield Product(case, tile, "matrix", 0, tile.cluster, order)
        yield Product(linear((40,), 44, 96, RESIDUAL_TABLE), tile, "matrix")
        yield Product(linear((70,), tile.block_n, 144, F32_RESIDUAL), tile, "matrix")
        yield Product(conv(FILLED, RESIDUAL), tile, "pixels", 0, 2, AHEAD)
    small, large, pair = WGMMA[0], WGMMA[4], WGMMA[5]
    split = Conv(1, 64, (9, 6), 64, (5, 3), (2, 1), (2, 0), (1, 2), 2)
    for tile in (small, pair):
        yield Product(conv(split, RESIDUAL), tile, "pixels")
    for zero_point in (0, 7):
        wide = Conv(1, 256, (9, 12), 72, (3, 2), (1, 3), (1, 2), (2, 1), 2)
        yield Product(conv(wide, TABLE, zero_point=zero_point), small, "pixels")
    yield Product(conv(Conv(3, 96, (12, 11), 40), F32), large, "pixels", 0, 2)
    # Padding that is zero, and half a block of K at the end that nobody fills.
    yield Product(conv(Conv(1, 64, (7, 6), 40), zero_point=0), small, "pixels")
    strided = Conv(1, 128, (14, 11), 40, stride=(2, 2), **ONE_BY_ONE)
    yield Product(conv(strided), small, "pixels")
    yield Product(linear((20,), 40, 64, CLAMPED), small, "matrix")
    yield Product(linear((20,), 21, 64, RESIDUAL), small, "matrix")
    yield Product(linear((20,), 21, 64, F32), small, "matrix")
    yield Product(linear((20,), 40, 64, RESIDUAL_TABLE), small, "matrix")
    yield Product(linear((20,), 40, 64, UNBOUNDED[0]), small, "matrix")


def square(
    kernel: int, stride: int, c: int, size: tuple[int, int], n: int = 1, pad: int | None = None
) -> Conv:
    """Return a depthwise convolution that strips can do."""
    padding = (kernel // 2, kernel // 2 if pad is None else pad)
    return Conv(n, c, size, c, (kernel,) * 2, (stride,) * 2, padding, groups=c)


def _depthwise() -> Iterator[Depthwise]:
    for strips in ((3, 1), (3, 2), (5, 1), (5, 2)):
        # As chosen; odd rows, ends of strips, several blocks of rows, more lanes than places.
        yield Depthwise(depthwise(square(*strips, 24, (7, 9))), strips)
        yield Depthwise(depthwise(square(*strips, 40, (13, 12), 2, 1), TABLE), strips, 3, 16)
        # One row of blocks that loops over images; strips longer than rows; more columns than a
        # period; no padding to the left, most of it to the right of the last strip.
        yield Depthwise(depthwise(square(*strips, 8, (5, 14), 3, 0), CLAMPED), strips, 40, 4, 0, 2)
        yield Depthwise(depthwise(square(*strips, 16, (1, 1)), weights="extreme"), strips)
        yield Depthwise(depthwise(square(*strips, 32, (6, 8)), UNBOUNDED[0]), strips, 1, 128)
    for output in (RESIDUAL, RESIDUAL_TABLE, F32, F32_RESIDUAL, UNBOUNDED[1]):
        yield Depthwise(depthwise(square(3, 1, 24, (5, 6)), output), None)
    yield Depthwise(depthwise(square(3, 1, 16, (5, 6))), None, offset=1)
    for output in (TABLE, RESIDUAL, F32_RESIDUAL):
        yield Depthwise(depthwise(square(5, 2, 41, (9, 8)), output), None)
    dilated = {"dilation": (2, 3), "padding": (2, 3)}
    rest = (
        Conv(2, 16, (9, 6), 16, (3, 1), (1, 3), (1, 0), groups=16),
        Conv(1, 24, (7, 12), 24, (5, 3), padding=(4, 1), dilation=(1, 2), groups=24),
        Conv(1, 48, (9, 8), 48, **dilated, groups=48),
        Conv(1, 3, (4, 6), 3, (4, 9), padding=(3, 4), groups=3),
        Conv(1, 264, (3, 2), 264, (9, 1), padding=(4, 0), groups=264),
    )
    for geometry in rest:
        yield Depthwise(depthwise(geometry), None)


Launched = Product | Quantized | Depthwise | Between | First | RowLaunch
LAUNCHES: tuple[Launched, ...] = (
    *_quantized(),
    *_mma(),
    *_depthwise(),
    *_wgmma(),
    *BETWEEN_LAUNCHES,
    *FIRST_LAUNCHES,
    *ROW_LAUNCHES,
)
