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
    """A program's tile: `rows` rows of up to `columns` values, on `warps` warps.

    registers: of a thread at most; None leaves them to the compiler. tail: more columns, a second
    tile of the same rows.
    """

    columns: int
    rows: int
    warps: int
    registers: int | None = None
    tail: int = 0


#: Tiles of whole rows: 16 to 32 values a thread; with 64 the registers do not hold them.
ROW_CONFIGS = (
    RowConfig(64, 32, 4),
    RowConfig(256, 8, 4),
    RowConfig(512, 4, 4),
    RowConfig(1024, 4, 4),
    RowConfig(2048, 1, 4),
    RowConfig(4096, 1, 8),
    RowConfig(8192, 1, 16),
    RowConfig(16384, 1, 16),
)
#: The same for SwiGLU, of which a value is many instructions: two tiles leave less of a row over,
#: and 32 to 48 values a thread fewer instructions that count for a row.
GATED_CONFIGS = (
    RowConfig(1024, 1, 1),
    RowConfig(2048, 1, 2),
    RowConfig(2048, 1, 2, tail=1024),
    RowConfig(4096, 1, 4),
    RowConfig(4096, 1, 4, tail=2048),
    RowConfig(8192, 1, 8),
    RowConfig(8192, 1, 8, tail=4096),
    RowConfig(16384, 1, 16),
)
#: Tiles of values that need not know their row: 8 a thread, one load of 16 bytes.
VALUE_CONFIGS = (
    RowConfig(64, 16, 4),
    RowConfig(256, 4, 4),
    RowConfig(1024, 1, 4),
)


def row_config(op: str, n: int, is_whole: bool = True) -> RowConfig:
    """Return the tile for rows of n values, which it must hold where is_whole says so.

    Raises:
        ValueError: a row does not fit the largest tile of whole rows.
    """
    return _whole(op, n, ROW_CONFIGS) if is_whole else _part(n)


def gated_config(op: str, n: int, is_whole: bool) -> RowConfig:
    """Return row_config's for SwiGLU and its like."""
    return _whole(op, n, GATED_CONFIGS) if is_whole else _part(n)


def _part(n: int) -> RowConfig:
    return next((c for c in VALUE_CONFIGS if n <= c.columns), VALUE_CONFIGS[-1])


def _whole(op: str, n: int, configs: tuple[RowConfig, ...]) -> RowConfig:
    for config in configs:
        if n <= config.columns + config.tail:
            return config
    most = configs[-1].columns
    raise ValueError(f"{op}: expected rows of at most {most} values, got {n}; split the row")


def row_programs(config: RowConfig, rows: int, n: int) -> int:
    """Return how many tiles cover rows of n values."""
    return triton.cdiv(rows, config.rows) * triton.cdiv(n, config.columns + config.tail)


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
