"""ldmatrix, stmatrix and mma.sync: matrices spread over the lanes of a warp.

A fragment register holds four bytes of a row: lane l those of row l / 4 from byte 4 (l % 4) on.
So all types that fill rows of 16 or 32 bytes share one layout.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..bfloat16 import from_bfloat16
from ..decode import Instruction
from ..faults import INVALID, MISALIGNED, UNSUPPORTED, Fault
from ..float8 import from_e4m3
from ..lanes import WARP
from ..machine import Act, Machine
from ..operands import Name
from .table import instruction, only

#: Rows of a matrix of ldmatrix, and their bytes.
_ROWS, _ROW_BYTES = 8, 16


def _matrix_rows(m: Machine, ins: Instruction, address: np.ndarray, count: int) -> np.ndarray:
    """Return the addresses [warps, count, 8] of rows, checked and counted."""
    rows = address.reshape(-1, WARP)[:, : _ROWS * count].reshape(-1, count, _ROWS)
    if (rows % _ROW_BYTES).any():
        raise Fault(MISALIGNED, f"{ins.opcode}: rows of {_ROW_BYTES} bytes")
    m.counters.count_rows(ins.index, rows.reshape(-1, _ROWS))
    return rows


def _places(m: Machine, rows: np.ndarray, warps: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return places [rows, 16] of rows, and the block and warp of each."""
    index = np.repeat(warps, rows[0].size)
    block, warp = index // m.warps, index % m.warps
    return m.shared.place(rows.reshape(-1), _ROW_BYTES, block), block, warp


def _count(ins: Instruction) -> int:
    only(ins, "sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "shared", "shared::cta")
    return int(next(x[1:] for x in ins.modifiers if x in ("x1", "x2", "x4")))


@instruction("ldmatrix")
def _load_matrix(ins: Instruction, m: Machine) -> Act:
    count = _count(ins)
    outs = [m.target(name, np.uint32) for name in m.vector(ins.operands[0])]
    address = m.address(ins.operands[1])

    def load() -> None:
        warps = m.active_warps(ins)
        rows = _matrix_rows(m, ins, address(), count)
        found = m.shared.read(*_places(m, rows, warps)).reshape(-1, count, _ROWS, _ROW_BYTES)
        halves = found.view(np.uint16)  # [warp, matrix, row, column]
        if "trans" in ins.modifiers:
            halves = np.ascontiguousarray(halves.swapaxes(2, 3))
        words = halves.view(np.uint32).reshape(-1, count, WARP)
        for i, out in enumerate(outs):
            out.reshape(-1, WARP)[warps] = words[:, i]

    return load


@instruction("stmatrix")
def _store_matrix(ins: Instruction, m: Machine) -> Act:
    count = _count(ins)
    address = m.address(ins.operands[0])
    values = [m.value(name, np.uint32) for name in m.vector(ins.operands[1])]

    def store() -> None:
        warps = m.active_warps(ins)
        rows = _matrix_rows(m, ins, address(), count)
        words = np.stack([v.reshape(-1, WARP)[warps] for v in values], 1)
        halves = np.ascontiguousarray(words).view(np.uint16).reshape(-1, count, _ROWS, _ROWS)
        if "trans" in ins.modifiers:
            halves = np.ascontiguousarray(halves.swapaxes(2, 3))
        at, block, warp = _places(m, rows, warps)
        m.shared.write(at, halves.view(np.uint8).reshape(at.shape), block, warp)

    return store


def gather(registers: list[np.ndarray], warps: np.ndarray, rows: int) -> np.ndarray:
    """Return the bytes [warps, rows, row bytes] of a matrix in fragment registers.

    Registers go down the rows, 8 at a time, before they go on along them.
    """
    bands = rows // 8
    words = np.stack([r.reshape(-1, WARP)[warps] for r in registers], 1)
    parts = words.reshape(len(warps), -1, bands, 8, 4).transpose(0, 2, 3, 1, 4)
    return np.ascontiguousarray(parts).view(np.uint8).reshape(len(warps), rows, -1)


def elements(data: np.ndarray, kind: str) -> np.ndarray:
    """Return bytes [..., n] as elements that numpy multiplies exactly, in float64 or float32."""
    if kind in ("s8", "u8"):
        return data.view(np.int8 if kind == "s8" else np.uint8).astype(np.float32)
    if kind == "f16":
        return data.view(np.float16).astype(np.float64)
    if kind == "bf16":
        return from_bfloat16(data.view(np.uint16)).astype(np.float64)
    if kind == "e4m3":
        return from_e4m3(data.view(np.uint8)).astype(np.float64)
    raise Fault(UNSUPPORTED, f"matrices of {kind} are not emulated")


def expand_pairs(packed: np.ndarray, metadata: np.ndarray) -> np.ndarray:
    """Return a 2:4 sparse matrix in full: packed [..., k / 2] elements, metadata of two bits each.

    metadata: [..., k / 2], the place of each element among its four.
    """
    half = packed.shape[-1]
    full = np.zeros((*packed.shape[:-1], 2 * half), packed.dtype)
    group = np.arange(half) // 2 * 4
    np.put_along_axis(full, group + metadata, packed, -1)
    return full


def sparse_metadata(words: np.ndarray, kind: str, selector: int) -> np.ndarray:
    """Return [warps, 16, nonzeros] places of two bits from a register [warps, 32] of a warp.

    A word holds 16 bits of each of two rows, or 32 of one: the order in which reorder_meta of
    CUTLASS (tools/util/include/cutlass/util/host_reorder.h) lays metadata out for ldmatrix.
    """
    quads = words.reshape(-1, 8, 4)
    bits = np.arange(16, dtype=np.uint32) * 2
    if kind in ("s8", "u8"):  # lane 0: row, lane 1: row + 8; lanes 2 and 3: their second halves
        places = (quads[..., None] >> bits) & 3  # [warp, row, lane, 16]
        rows = [np.concatenate([places[:, :, r], places[:, :, r + 2]], -1) for r in (0, 1)]
    else:
        mine = quads[:, :, 2 * selector : 2 * selector + 2]
        places = (mine[..., None] >> bits) & 3  # [warp, row, lane, 16]: 8 of row, 8 of row + 8
        rows = [places[..., 8 * r : 8 * r + 8].reshape(len(places), 8, 16) for r in (0, 1)]
    return np.concatenate(rows, 1)


def rising_places(words: np.ndarray, kind: str, selector: int) -> np.ndarray:
    """Return sparse_metadata's places; fault where the two of a pair do not rise."""
    found = sparse_metadata(words, kind, selector)
    if (found[..., 0::2] >= found[..., 1::2]).any():
        raise Fault(INVALID, "sparse product: places of a pair that do not rise")
    return found.astype(np.int64)


_SHAPES = {"m16n8k8", "m16n8k16", "m16n8k32", "m16n8k64"}


@instruction("mma")
def _multiply(ins: Instruction, m: Machine) -> Act:
    found = only(ins, "sync", "aligned", "row", "col", "satfinite", "sp", "sp::ordered_metadata",
                 *_SHAPES)  # fmt: skip
    result_kind, a_kind, b_kind, c_kind = ins.types
    if result_kind != c_kind or c_kind not in ("s32", "f32"):
        raise Fault(UNSUPPORTED, f"mma with sums in {result_kind}, {c_kind} is not emulated")
    k = int(next(x for x in found if x in _SHAPES).rpartition("k")[2])
    dtype = np.int32 if c_kind == "s32" else np.float32
    outs = [m.target(name, dtype) for name in m.vector(ins.operands[0])]
    a, b = ([m.value(n, np.uint32) for n in m.vector(op)] for op in ins.operands[1:3])
    c = [m.value(name, dtype) for name in m.vector(ins.operands[3])]
    sparse = _sparse(ins, m, a_kind) if len(ins.operands) > 4 else None
    saturates = "satfinite" in found

    def multiply() -> None:
        warps = m.active_warps(ins)
        left = elements(gather(a, warps, 16), a_kind)
        if sparse is not None:
            left = expand_pairs(left, sparse(warps))
        right = elements(gather(b, warps, 8), b_kind)
        if left.shape[-1] != k or right.shape[-1] != k:
            raise Fault(UNSUPPORTED, f"{ins.text}: its registers do not hold k = {k}")
        products = np.matmul(left, right.swapaxes(1, 2))
        sums = products.reshape(-1, 2, 8, 4, 2).transpose(1, 4, 0, 2, 3).reshape(4, -1, WARP)
        for i, (out, addend) in enumerate(zip(outs, c, strict=True)):
            old = np.broadcast_to(addend, m.lanes).reshape(-1, WARP)[warps]
            out.reshape(-1, WARP)[warps] = accumulate(sums[i], old, saturates)

    return multiply


def _sparse(ins: Instruction, m: Machine, kind: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function of warps that reads a sparse product's metadata."""
    metadata = m.value(ins.operands[4], np.uint32)
    selector_operand = ins.operands[5]
    assert isinstance(selector_operand, Name)
    selector = int(selector_operand.text, 0)
    if selector > (0 if kind in ("s8", "u8") else 1):
        raise Fault(UNSUPPORTED, f"{ins.opcode} of {kind} with selector {selector}")

    return lambda warps: rising_places(metadata.reshape(-1, WARP)[warps], kind, selector)


def accumulate(sums: np.ndarray, old: np.ndarray, saturates: bool = False) -> np.ndarray:
    """Return sums added to the old values: int32 wraps or saturates, float32 is rounded once."""
    if old.dtype == np.int32:
        total = sums.astype(np.int64) + old
        if saturates:
            total = np.clip(total, -(2**31), 2**31 - 1)
        return total.astype(np.int32)
    return (sums + old.astype(np.float64)).astype(np.float32)
