"""Tiles of a product C[M, N] = A[M, K] B[K, N]: the fixed lists, and which one a shape takes."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl


@dataclass(frozen=True)
class TileConfig:
    """A program's tile of C, its step along K, warps, and copies under way."""

    m: int
    n: int
    k: int
    warps: int
    stages: int


#: 128 x 256 does not fit the registers: Triton 3.8 spills for Hopper.
INT8_CONFIGS = (
    TileConfig(16, 64, 128, 4, 4),
    TileConfig(64, 64, 128, 4, 4),
    TileConfig(128, 128, 128, 8, 3),
)
#: Of products of few rows. n is 64, as tensor cores of Hopper take 64 rows of the weight; up to 16
#: rows of int8 take 2 to 14 % less by mma.sync, a step twice as deep, and without a second launch.
#: Fewer copies under way let more programs share a multiprocessor, which is better.
WEIGHT_ONLY_CONFIGS = (
    TileConfig(16, 32, 256, 4, 4),
    TileConfig(32, 64, 128, 4, 3),
    TileConfig(64, 64, 128, 4, 3),
)
#: A step is a group of 128.
INT4_CONFIGS = (
    TileConfig(16, 64, 128, 4, 3),
    TileConfig(32, 64, 128, 4, 3),
    TileConfig(64, 64, 128, 4, 3),
)
#: Sums of a step and all sums are registers of their own. 64 rows are Hopper's least.
FP8_CONFIGS = (
    TileConfig(64, 64, 128, 4, 5),
    TileConfig(64, 128, 128, 4, 4),
    TileConfig(128, 128, 128, 8, 4),
)
#: Programs that keep most multiprocessors of a large GPU at work.
ENOUGH_PROGRAMS = 100
#: Two for each of a large GPU's multiprocessors; and parts of K at most.
SPLIT_PROGRAMS, MOST_SPLITS = 256, 8


def programs(config: TileConfig, m: int, n: int) -> int:
    """Return how many tiles cover C."""
    return triton.cdiv(m, config.m) * triton.cdiv(n, config.n)


def int8_config(m: int, n: int) -> TileConfig:
    """Return the largest tile of which there are enough; few rows take the flat one."""
    flat, small, large = INT8_CONFIGS
    if m <= flat.m:
        return flat
    return large if programs(large, m, n) >= ENOUGH_PROGRAMS else small


def fp8_config(m: int, n: int) -> TileConfig:
    """Return the largest tile of which there are enough, or the smallest."""
    enough = (c for c in FP8_CONFIGS[::-1] if programs(c, m, n) >= ENOUGH_PROGRAMS)
    return next((c for c in enough if m > 64 or c.m == 64), FP8_CONFIGS[0])


def _lowest(configs: tuple[TileConfig, ...], m: int) -> TileConfig:
    return next((config for config in configs if m <= config.m), configs[-1])


def weight_only_config(m: int) -> TileConfig:
    """Return the lowest tile that holds all rows, or the highest."""
    return _lowest(WEIGHT_ONLY_CONFIGS, m)


def int4_config(m: int) -> TileConfig:
    """Return the lowest tile that holds all rows, or the highest."""
    return _lowest(INT4_CONFIGS, m)


def split_of_k(config: TileConfig, m: int, n: int, k: int) -> tuple[int, int]:
    """Return into how many parts K is split, a power of two, and how much of K each has.

    So many that there are enough programs, each with two steps at least.
    """
    tiles, splits = programs(config, m, n), 1
    while splits < MOST_SPLITS and splits * tiles < SPLIT_PROGRAMS and k >= 4 * splits * config.k:
        splits *= 2
    return splits, triton.cdiv(triton.cdiv(k, splits), config.k) * config.k


@triton.jit
def tile_of_product(m, n, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Return this program's rows [M] int64, columns [N], which rows exist, which columns exist.

    Tiles follow one another in bands of 8, so that neighbours share rows in L2.
    """
    index = tl.program_id(0)
    downs = tl.cdiv(m, BLOCK_M)
    acrosses = tl.cdiv(n, BLOCK_N)
    first = index // (8 * acrosses) * 8
    height = tl.minimum(downs - first, 8)
    inside = index - first * acrosses
    row = ((first + inside % height) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    column = inside // height * BLOCK_N + tl.arange(0, BLOCK_N)
    return row, column, row < m, column < n
