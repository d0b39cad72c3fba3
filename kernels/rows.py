"""Tensors as rows: which tile a program takes, and checks that launchers share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class RowConfig:
    """A program's tile: `rows` rows of up to `columns` values, on `warps` warps."""

    columns: int
    rows: int
    warps: int


#: Tiles of whole rows, 8 to 32 values a thread: the fastest of bench/results/triton_sweep_h100.json
#: where that has rows as long, and like their neighbours where not.
ROW_CONFIGS = (
    RowConfig(64, 32, 4),
    RowConfig(256, 4, 2),
    RowConfig(1024, 2, 4),
    RowConfig(2048, 1, 2),
    RowConfig(4096, 1, 4),
    RowConfig(8192, 1, 16),
    RowConfig(16384, 1, 32),
)
#: In place of the tile of 1024 where the result is codes of each row's range: no barrier, but for
#: many more instructions a value than a norm has.
CODES_CONFIG = RowConfig(1024, 1, 1)
#: Tiles of values that need not know their row: 8 a thread, one load of 16 bytes.
VALUE_CONFIGS = (
    RowConfig(64, 16, 4),
    RowConfig(256, 4, 4),
    RowConfig(1024, 1, 4),
)


def row_config(op: str, n: int, is_of_row: bool) -> RowConfig:
    """Return the tile for whole rows of n values; is_of_row: they leave as codes of their range.

    Raises:
        ValueError: a row does not fit the largest tile.
    """
    for config in ROW_CONFIGS:
        if n <= config.columns:
            is_theirs = is_of_row and config.columns == CODES_CONFIG.columns
            return CODES_CONFIG if is_theirs else config
    most = ROW_CONFIGS[-1].columns
    raise ValueError(f"{op}: expected rows of at most {most} values, got {n}; split the row")


def value_config(op: str, n: int, is_of_row: bool) -> RowConfig:
    """Return the tile for rows of n values that matter to each other only where is_of_row.

    Raises:
        ValueError: they do, and a row does not fit the largest tile.
    """
    if is_of_row:
        return row_config(op, n, is_of_row)
    return next((c for c in VALUE_CONFIGS if n <= c.columns), VALUE_CONFIGS[-1])


def row_programs(config: RowConfig, rows: int, n: int) -> int:
    """Return how many tiles cover rows of n values."""
    return triton.cdiv(rows, config.rows) * triton.cdiv(n, config.columns)


def check_float(op: str, name: str, x: Tensor) -> None:
    """Raise unless x is a float tensor with a last dimension that holds something."""
    if x.dtype not in FLOATS:
        raise TypeError(f"{op}: expected {name} float32, float16 or bfloat16, got {x.dtype}")
    if x.dim() == 0 or x.shape[-1] == 0:
        raise ValueError(f"{op}: expected {name} [*, n] with n >= 1, got {list(x.shape)}")


def check_like(
    op: str, name: str, value: Tensor | None, shape: Sequence[int], x: Tensor, dtype: str = "x's"
) -> None:
    """Raise unless an optional argument has this shape, x's device, and x's dtype or any float."""
    if value is None:
        return
    if list(value.shape) != list(shape):
        raise ValueError(f"{op}: expected {name} {list(shape)}, got {list(value.shape)}")
    if value.device != x.device:
        raise ValueError(f"{op}: expected {name} on {x.device} as x, got {value.device}")
    if dtype == "x's" and value.dtype != x.dtype:
        raise TypeError(f"{op}: expected {name} {x.dtype} as x, got {value.dtype}")
    if dtype == "float" and value.dtype not in FLOATS:
        raise TypeError(f"{op}: expected {name} of a float dtype, got {value.dtype}")


def as_rows(x: Tensor) -> Tensor:
    """Return x [*, n] as [R, n] whose rows are dense; a view where x's strides allow it."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 or rows.shape[1] == 1 else rows.contiguous()


@triton.jit
def tile_of_rows(
    rows, n, IS_WHOLE: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr
):
    """Return this program's rows [R] int64, columns [C], which rows exist, which values exist.

    A tile is whole rows, or else a part of their columns, neighbours side by side.
    """
    index = tl.program_id(0)
    column = tl.arange(0, BLOCK_COLUMNS)
    if not IS_WHOLE:
        across = tl.cdiv(n, BLOCK_COLUMNS)
        column += index % across * BLOCK_COLUMNS
        index //= across
    row = index.to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    row_inside = row < rows
    return row, column, row_inside, row_inside[:, None] & (column < n)[None, :]


@triton.jit
def load_vector(ptr, column, n, HAS: tl.constexpr):
    """Return values of a vector of n as [1, C], of its dtype, or zeros where there is none."""
    value = tl.full([1, column.shape[0]], 0.0, tl.float32)
    if HAS:
        # Two dimensions, so that it lies as the rows do: of one it was shuffled between lanes.
        column = column[None, :]
        value = tl.load(ptr + column, mask=column < n, other=0.0)
    return value
