"""wgmma: products of a warpgroup, whose operands tensor cores read from shared memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..decode import Instruction
from ..faults import DIVERGENT, INVALID, RACE, UNINITIALISED, UNSUPPORTED, Fault
from ..lanes import AT_WARPGROUP, DONE, RUNS, WARP, WARPGROUP
from ..machine import Act, Machine
from ..operands import Vector
from ..pending import Product
from ..tensor_map import swizzle
from .matrix import accumulate, elements, expand_pairs, gather, rising_places
from .table import instruction, only

_ROWS = 64  # of a product
_K_BYTES = 32  # of a factor; of B twice as many where A is sparse
#: The descriptor's swizzle mode -> bytes of a row.
_WIDTHS = {0: 0, 1: 128, 2: 64, 3: 32}


def _active_groups(m: Machine) -> list[int]:
    """Return the warpgroups that run an instruction, whole as `_meet` leaves them."""
    return np.flatnonzero(m.mask.reshape(-1, WARPGROUP).any(1)).tolist()


def _meet(ins: Instruction, m: Machine) -> bool:
    """Return whether whole warpgroups are here; the warps of any other wait for the rest."""
    m.active_warps(ins)
    here = m.mask | ((m.status == AT_WARPGROUP) & (m.pc == ins.index))
    groups = here.reshape(-1, WARPGROUP)
    if ((m.status.reshape(-1, WARPGROUP) == DONE).any(1) & groups.any(1)).any():
        raise Fault(DIVERGENT, f"{ins.opcode}: a part of the warpgroup has ended")
    whole = np.repeat(groups.all(1), WARPGROUP)
    waits = here & ~whole
    m.status[waits], m.pc[waits] = AT_WARPGROUP, ins.index
    m.mask = here & whole
    m.status[m.mask], m.pc[m.mask] = RUNS, ins.index + 1
    return bool(m.mask.any())


@instruction("wgmma")
def _warpgroup(ins: Instruction, m: Machine) -> Act:
    kinds = {
        "mma_async": _bind_product,
        "fence": _fence,
        "commit_group": _commit,
        "wait_group": _wait,
    }
    if m.threads % WARPGROUP != 0:
        raise Fault(UNSUPPORTED, "wgmma in a block of no whole warpgroups")
    if ins.modifiers[0] not in kinds:
        raise Fault(UNSUPPORTED, f"wgmma.{ins.modifiers[0]} is not emulated")
    act = kinds[ins.modifiers[0]](ins, m)

    def together() -> None:
        if _meet(ins, m):
            act()

    return together


def _fence(ins: Instruction, m: Machine) -> Act:
    def fence() -> None:
        for group in _active_groups(m):
            m.products[group].is_fenced = True

    return fence


def _commit(ins: Instruction, m: Machine) -> Act:
    def commit() -> None:
        for group in _active_groups(m):
            mine = m.products[group]
            mine.groups.append(mine.open)
            mine.open = []

    return commit


def _wait(ins: Instruction, m: Machine) -> Act:
    pending = int(m.value(ins.operands[0], np.uint32))

    def wait() -> None:
        for group in _active_groups(m):
            mine = m.products[group]
            ended = mine.groups[: max(len(mine.groups) - pending, 0)]
            mine.groups = mine.groups[len(ended) :]
            for products in ended:
                for product in products:
                    _end(m, group, product)
            mine.is_fenced = mine.is_fenced and bool(mine.groups)

    return wait


def _end(m: Machine, group: int, product: Product) -> None:
    """Write a product's sums to its registers; its reads are over."""
    lanes = slice(group * WARPGROUP, (group + 1) * WARPGROUP)
    if any((register[lanes] != before).any() for register, before in product.held):
        raise Fault(RACE, "a register written while tensor cores read it")
    for register, sums in zip(product.registers, product.sums, strict=True):
        old = register[lanes] if product.adds else np.zeros(WARPGROUP, register.dtype)
        register[lanes] = accumulate(sums, old)
    for at in product.places:
        m.shared.clocks.end_reads(at, *_warps(m, group))


def _warps(m: Machine, group: int) -> tuple[int, slice]:
    """Return a warpgroup's block, and its warps there."""
    first = group * WARPGROUP
    return int(m.block[first]), slice(m.warp[first], m.warp[first] + WARPGROUP // WARP)


def _operand_places(
    m: Machine, descriptor: int, rows: int, group: int, size: int = _K_BYTES
) -> np.ndarray:
    """Return the places [rows, size] of K-major rows that a descriptor describes."""
    start = (descriptor & 0x3FFF) << 4
    leading, stride = ((descriptor >> shift & 0x3FFF) << 4 for shift in (16, 32))
    if descriptor >> 49 & 7:
        raise Fault(UNSUPPORTED, "wgmma with a base offset is not emulated")
    width = _WIDTHS[descriptor >> 62 & 3]
    row, byte = np.arange(rows)[:, None], np.arange(size)
    if width == 0:
        address = start + row // 8 * stride + row % 8 * 16 + byte // 16 * leading + byte % 16
    else:
        address = swizzle(start + row // 8 * stride + row % 8 * width + byte, width)
    block = np.full(address.size, m.block[group * WARPGROUP])
    return m.shared.place(address.reshape(-1), 1, block).reshape(rows, size)


def _read(m: Machine, at: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes at places [rows, 32], and which columns hold some that nobody wrote.

    Tensor cores read them until the product has ended.
    """
    m.shared.clocks.begin_reads(at, *_warps(m, group))
    return m.shared.bytes[at], ~m.shared.is_written(at).all(0)


def _row_addresses(at: np.ndarray) -> np.ndarray:
    """Return the first addresses of rows of 16 bytes, in matrices of eight: [matrices, 8]."""
    return at[:, ::16].reshape(-1, 8, at.shape[1] // 16).swapaxes(1, 2).reshape(-1, 8)


def _check_unwritten(missing: np.ndarray, other: np.ndarray, kind: str) -> None:
    """Fault where columns of K that nobody wrote meet anything but integer zeros [rows, 32].

    A kernel may leave what lies past K as it is, if the other factor is zero there.
    """
    is_integer = kind in ("s8", "u8")
    if missing.any() and not (is_integer and (other[:, missing] == 0).all()):
        raise Fault(UNINITIALISED, f"shared memory in {int(missing.sum())} columns of a factor")


@dataclass(frozen=True)
class _Factors:
    """The operands of a product: descriptors of 64 bits, or A in registers of 32."""

    a: list[np.ndarray]
    b: np.ndarray
    n: int
    is_a_in_registers: bool
    a_kind: str
    b_kind: str
    metadata: np.ndarray | None = None  # of a sparse A, a register of every lane

    def multiply(self, m: Machine, group: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return a warpgroup's sums [64, n], and the places [rows, 32] that are read for them."""
        first = group * WARPGROUP
        k_bytes = _K_BYTES if self.metadata is None else 2 * _K_BYTES
        places = [_operand_places(m, int(self.b[first]), self.n, group, k_bytes)]
        right, right_missing = _read(m, places[0], group)
        if self.is_a_in_registers:
            warps = np.arange(first // WARP, (first + WARPGROUP) // WARP)
            left = gather(self.a, warps, 16).reshape(_ROWS, -1)
            left_missing = np.zeros(_K_BYTES, bool)
        else:
            places.append(_operand_places(m, int(self.a[0][first]), _ROWS, group))
            left, left_missing = _read(m, places[1], group)
        if self.metadata is not None:
            left, left_missing = self._expanded(left, left_missing, group)
        _check_unwritten(left_missing, right, self.b_kind)
        _check_unwritten(right_missing, left, self.a_kind)
        # A warp's rows at a time: so small that BLAS stays in one thread.
        rows = elements(left, self.a_kind).reshape(4, _ROWS // 4, -1)
        sums = np.matmul(rows, elements(right, self.b_kind).T)
        return sums.reshape(_ROWS, self.n), places

    def _expanded(
        self, packed: np.ndarray, missing: np.ndarray, group: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a 2:4 sparse A [64, 32] in full [64, 64], and its columns that nobody wrote."""
        assert self.metadata is not None
        warps = slice(group * WARPGROUP // WARP, (group + 1) * WARPGROUP // WARP)
        words = np.broadcast_to(self.metadata, (self.metadata.size,)).reshape(-1, WARP)[warps]
        places = rising_places(words, self.a_kind, 0).reshape(_ROWS, _K_BYTES)
        full = expand_pairs(packed, places)
        return full, np.repeat(missing.reshape(-1, 2).any(1), 4)

    def held(self, m: Machine, group: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the registers that tensor cores read until a product has ended, and their values.

        Descriptors are read as it begins.
        """
        lanes = slice(group * WARPGROUP, (group + 1) * WARPGROUP)
        registers = [*(self.a if self.is_a_in_registers else ())]
        if self.metadata is not None:
            registers.append(self.metadata)
        return [(r, r[lanes].copy()) for r in registers if r.size == m.lanes]


def _factors(ins: Instruction, m: Machine, n: int) -> _Factors:
    is_a_in_registers = isinstance(ins.operands[1], Vector)
    kind = np.uint32 if is_a_in_registers else np.uint64
    a = [m.value(name, kind) for name in m.vector(ins.operands[1])]
    b = m.value(ins.operands[2], np.uint64)
    metadata = None
    if "sp" in ins.modifiers:
        metadata = m.value(ins.operands[3], np.uint32)
        selector = int(m.value(ins.operands[4], np.uint32))
        if ins.types[1] not in ("s8", "u8") or selector != 0:
            raise Fault(UNSUPPORTED, f"{ins.opcode}.sp of {ins.types[1]}, selector {selector}")
    return _Factors(a, b, n, is_a_in_registers, *ins.types[1:], metadata)


def _bind_product(ins: Instruction, m: Machine) -> Act:
    shape = next(x for x in ins.modifiers if x.startswith("m64n"))
    only(ins, "mma_async", "sp", "sync", "aligned", shape)
    n = int(shape[4:].partition("k")[0])
    rest = ins.operands[5:] if "sp" in ins.modifiers else ins.operands[3:]
    sum_kind = ins.types[0]
    if sum_kind not in ("s32", "f32"):
        raise Fault(UNSUPPORTED, f"wgmma with sums in {sum_kind} is not emulated")
    dtype = np.int32 if sum_kind == "s32" else np.float32
    registers = [m.target(name, dtype) for name in m.vector(ins.operands[0])]
    if len(registers) != n // 2:
        raise Fault(INVALID, f"wgmma of n = {n} with {len(registers)} registers")
    factors, adds = _factors(ins, m, n), m.predicate(rest[0])
    signs = [int(m.value(operand, np.int32)) for operand in rest[1:]]
    if signs[:2] not in ([], [1, 1]) or any(signs[2:]):
        raise Fault(UNSUPPORTED, "wgmma with negated or transposed operands is not emulated")

    def multiply() -> None:
        chosen = np.broadcast_to(adds(), m.lanes)
        for group in _active_groups(m):
            mine = m.products[group]
            if not mine.is_fenced:
                raise Fault(INVALID, "wgmma.mma_async without a wgmma.fence before it")
            sums, places = factors.multiply(m, group)
            for at in places:
                m.counters.count_rows(ins.index, _row_addresses(at))
            # Row 16 w + 8 h + g, column 8 j + 2 t + e is in warp w, lane 4 g + t, register
            # 4 j + 2 h + e.
            spread = sums.reshape(4, 2, 8, n // 8, 4, 2).transpose(3, 1, 5, 0, 2, 4)
            is_added = bool(chosen[group * WARPGROUP])
            held = factors.held(m, group)
            parts = spread.reshape(n // 2, -1)
            mine.open.append(Product(registers, parts, is_added, places, held))

    return multiply
