"""The launches of the kernels for sparse weights: small, ragged, every branch of their sources."""

from __future__ import annotations

from collections.abc import Iterator

from host.runs import Tile
from interpreter import AHEAD, BEHIND
from ptx_cases import (
    CLAMPED,
    F32,
    F32_RESIDUAL,
    FILLED,
    RESIDUAL,
    RESIDUAL_TABLE,
    SMALL,
    TABLE,
    U8,
    Launched,
    Product,
    conv,
    linear,
)
from ptx_cases import LAUNCHES as DENSE_LAUNCHES

from fastinfer.testing.cases import UNBOUNDED, Conv

SPARSE = (
    Tile("sparse_wgmma", 64, 64),
    Tile("sparse_wgmma", 128, 64),
    Tile("sparse_wgmma", 128, 128),
    Tile("sparse_wgmma", 256, 128),
    Tile("sparse_wgmma", 256, 128, 2),
)
SPARSE_MMA = (Tile("sparse_mma", 64, 64), Tile("sparse_mma", 128, 128))
GATHER = (
    *(Tile("gather_wgmma", 128, channels) for channels in (64, 128, 256)),
    *(Tile("gather_wgmma", *sizes) for sizes in ((256, 64), (64, 128), (64, 256))),
)
PATCH = tuple(Tile("patch_wgmma", 128, channels) for channels in (64, 128, 256))
PAIRS = "2:4"
#: Whole sixteens of channels, padding that must be filled, half a block of K at the end.
FILLED_WIDE = Conv(2, 64, (9, 10), 80)


def _two_of_four() -> Iterator[Product]:
    for tile in SPARSE:
        # More blocks of K than stages, more tiles than blocks, turns that end on either half.
        deep = 1072 if tile.block_m < 128 else 688
        case = linear((tile.block_m + 20,), tile.block_n + 16, deep, RESIDUAL, PAIRS)
        for order in (BEHIND, AHEAD) if tile in (SPARSE[0], SPARSE[-1]) else (AHEAD,):
            yield Product(case, tile, "matrix", 0, tile.cluster, order)
        yield Product(linear((70,), tile.block_n, 144, F32_RESIDUAL, PAIRS), tile, "matrix")
        yield Product(conv(FILLED_WIDE, RESIDUAL, PAIRS), tile, "pixels", 0, 2, AHEAD)
        wide = Conv(1, 128, (9, 12), 80, (3, 2), (1, 3), (1, 2), (2, 1))
        yield Product(conv(wide, U8, PAIRS), tile, "pixels", 0, 2)
    small, pair = SPARSE[0], SPARSE[-1]
    split = Conv(1, 128, (9, 6), 160, (5, 3), (2, 1), (2, 0), (1, 2), 2)
    for tile in (small, pair):
        yield Product(conv(split, RESIDUAL, PAIRS), tile, "pixels")
    yield Product(conv(FILLED, TABLE, PAIRS, zero_point=0), small, "pixels")
    for case in (
        linear((20,), 48, 64, CLAMPED, PAIRS),
        linear((97,), 48, 64, UNBOUNDED[0], PAIRS),
        linear((20,), 48, 64, RESIDUAL_TABLE, PAIRS),
        linear((20,), 21, 64, RESIDUAL, PAIRS),
        linear((20,), 21, 64, F32, PAIRS),
        linear((20,), 48, 64, U8, "zero"),
    ):
        yield Product(case, small, "matrix")


def _gathered() -> Iterator[Product]:
    for tile in GATHER:
        shared = f"v{tile.block_n}"
        # More blocks of K than stages, more tiles than blocks.
        deep = linear((tile.block_m + 20,), tile.block_n + 16, 1152, RESIDUAL, shared)
        for order in (BEHIND, AHEAD) if tile is GATHER[0] else (AHEAD,):
            yield Product(deep, tile, "matrix", 0, 1, order)
        has_half = tile.block_m == 128 and tile.block_n < 256
        weights = f"{shared} half" if has_half else shared
        half = linear((70,), tile.block_n, 192, F32_RESIDUAL, weights)
        yield Product(half, tile, "matrix")
        yield Product(conv(FILLED_WIDE, RESIDUAL, shared), tile, "pixels", 0, 2, AHEAD)
        wide = Conv(1, 128, (9, 12), 80, (3, 2), (1, 3), (1, 2), (2, 1))
        for zeros in dict.fromkeys((shared, weights)):
            yield Product(conv(wide, U8, zeros), tile, "pixels", 0, 2)
    small = GATHER[0]
    split = Conv(1, 128, (9, 6), 160, (5, 3), (2, 1), (2, 0), (1, 2), 2)
    yield Product(conv(split, RESIDUAL, "v64"), small, "pixels")
    yield Product(conv(FILLED, TABLE, "v64", zero_point=0), small, "pixels")
    for case in (
        linear((20,), 48, 64, CLAMPED, "v64"),
        linear((97,), 48, 64, UNBOUNDED[0], "v64"),
        linear((20,), 48, 64, RESIDUAL_TABLE, "v64"),
        linear((20,), 21, 64, RESIDUAL, "v64"),
        linear((20,), 21, 64, F32, "v64"),
        linear((20,), 48, 64, U8, "zero"),
    ):
        yield Product(case, small, "matrix")


def _two_of_four_mma() -> Iterator[Product]:
    for tile in SPARSE_MMA:
        # More blocks of K than stages, several tiles, ragged on all sides; an odd block of 64.
        deep = linear((tile.block_m + 20,), tile.block_n + 16, 336, RESIDUAL, PAIRS)
        yield Product(deep, tile, "matrix")
        yield Product(linear((70,), tile.block_n + 3, 144, F32_RESIDUAL, PAIRS), tile, "matrix")
        yield Product(conv(SMALL, RESIDUAL, PAIRS), tile, "pixels")
    small = SPARSE_MMA[0]
    split = Conv(1, 32, (9, 6), 96, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)
    yield Product(conv(split, RESIDUAL, PAIRS), small, "pixels")
    yield Product(conv(Conv(1, 16, (5, 6), 40), TABLE, PAIRS, zero_point=0), small, "windows")
    for case in (
        linear((20,), 48, 64, CLAMPED, PAIRS),
        linear((97,), 48, 64, UNBOUNDED[0], PAIRS),
        linear((20,), 48, 64, RESIDUAL_TABLE, PAIRS),
        linear((20,), 21, 64, RESIDUAL, PAIRS),
        linear((20,), 48, 16, U8, PAIRS),
        linear((20,), 48, 64, U8, "zero"),
    ):
        yield Product(case, small, "matrix")


def _patches() -> Iterator[Product]:
    for tile in PATCH:
        shared = f"v{tile.block_n}"
        # Several parts of the channels; more tiles than blocks; whole images, the last tile half.
        deep = Conv(3, 256, (7, 6), tile.block_n + 16)
        for order in (BEHIND, AHEAD) if tile is PATCH[0] else (AHEAD,):
            yield Product(conv(deep, RESIDUAL, shared), tile, "pixels", 0, 2, order)
        # Lines of an image, the last tile of fewer; nine taps of half a block.
        yield Product(conv(Conv(2, 64, (9, 30), 80), U8, shared), tile, "pixels", 0, 2)
    small = PATCH[0]
    other = Conv(1, 128, (6, 40), 72, kernel=(2, 3), padding=(1, 0))
    for output in (TABLE, F32_RESIDUAL):
        yield Product(conv(other, output, "v64"), small, "pixels")
    yield Product(conv(Conv(1, 64, (5, 9), 40), CLAMPED, "v64", zero_point=0), small, "pixels")


SPARSE_LAUNCHES: tuple[Product, ...] = (
    *_patches(),
    *_two_of_four(),
    *_two_of_four_mma(),
    *_gathered(),
)
LAUNCHES: tuple[Launched, ...] = (*DENSE_LAUNCHES, *SPARSE_LAUNCHES)
