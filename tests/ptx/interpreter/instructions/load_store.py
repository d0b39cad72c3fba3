"""ld, st, atom, red and prefetch, in every space."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..decode import Instruction
from ..faults import MISALIGNED, OUT_OF_BOUNDS, UNINITIALISED, UNSUPPORTED, Fault
from ..machine import LOCAL_BASE, PARAM_BASE, SHARED_BASE, Act, Machine
from ..operands import TYPES, UNSIGNED
from .table import instruction, numpy_type

_SPACES = ("param", "global", "shared", "local", "const")
#: What changes order or caching, neither of which is modelled beyond barriers.
_HINTS = {"nc", "ca", "cg", "cs", "cv", "lu", "wb", "wt", "volatile", "relaxed", "weak", "gpu",
          "sys", "cta", "cluster"}  # fmt: skip
#: Generic addresses from one of these to the next are of its space; the rest is global.
_WINDOWS = (("shared", SHARED_BASE), ("local", LOCAL_BASE), ("param", PARAM_BASE))
_WINDOW = 1 << 32


def _space(ins: Instruction) -> str:
    for modifier in ins.modifiers:
        name = modifier.partition("::")[0]
        if name in _SPACES:
            return name
    return "generic"


def _check_modifiers(ins: Instruction, *others: str) -> None:
    for modifier in ins.modifiers:
        known = modifier in TYPES or modifier in _HINTS or modifier in others
        if not known and modifier.partition("::")[0] not in (*_SPACES, "L1", "L2", "v2", "v4"):
            raise Fault(UNSUPPORTED, f"{ins.opcode}.{modifier} is not emulated")


def _resolve(space: str, address: np.ndarray) -> tuple[str, np.ndarray]:
    """Return the space of generic addresses, and the addresses in it."""
    if space != "generic":
        return space, address
    for name, base in _WINDOWS:
        inside = (address >= base) & (address < base + _WINDOW)
        if inside.all():
            return name, address - base
        if inside.any():
            raise Fault(UNSUPPORTED, "generic addresses of two spaces in one access")
    return "global", address


def _own_bytes(m: Machine, address: np.ndarray, size: int, end: int) -> np.ndarray:
    """Return places [lanes, size] in parameters or in a lane's local memory."""
    if ((address < 0) | (address + size > end)).any():
        raise Fault(OUT_OF_BOUNDS, f"{size} bytes of {end} at {int(address.max())}")
    if (address % size).any():
        raise Fault(MISALIGNED, f"{size} bytes at {int(address[address % size != 0][0])}")
    return address[:, None] + np.arange(size)


def read(m: Machine, index: int, space: str, address: np.ndarray, size: int) -> np.ndarray:
    """Return the bytes [active lanes, size] at addresses of a space."""
    space, address = _resolve(space, address)
    if space == "param":
        return m.parameters[_own_bytes(m, address, size, m.parameters.size)]
    if space == "local":
        at = _own_bytes(m, address, size, m.kernel.local_bytes)
        lanes = np.flatnonzero(m.mask)[:, None]
        if not m.local_written[lanes, at].all():
            raise Fault(UNINITIALISED, "local memory")
        return m.local[lanes, at]
    if space == "shared":
        block, warp = m.block[m.mask], m.warp[m.mask]
        m.counters.count_shared(index, address, size, m.warp_index[m.mask])
        return m.shared.read(m.shared.place(address, size, block), block, warp)
    m.counters.count_global(index, address, size, m.warp_index[m.mask])
    return m.memory.read(address, size)


def read_object(m: Machine, address: np.ndarray, size: int) -> np.ndarray:
    """Return the bytes [len(address), size] at generic addresses; no lane's access, not counted."""
    space, place = _resolve("generic", address)
    if space == "param":
        return m.parameters[_own_bytes(m, place, size, m.parameters.size)]
    if space == "global":
        return m.memory.read(place, size)
    raise Fault(UNSUPPORTED, f"an object in {space} memory")


def write(m: Machine, index: int, space: str, address: np.ndarray, data: np.ndarray) -> None:
    """Write data [active lanes, size] to addresses of a space."""
    space, address = _resolve(space, address)
    size = data.shape[1]
    if space == "local":
        at = _own_bytes(m, address, size, m.kernel.local_bytes)
        lanes = np.flatnonzero(m.mask)[:, None]
        m.local[lanes, at] = data
        m.local_written[lanes, at] = True
    elif space == "shared":
        block, warp = m.block[m.mask], m.warp[m.mask]
        m.counters.count_shared(index, address, size, m.warp_index[m.mask])
        m.shared.write(m.shared.place(address, size, block), data, block, warp)
    elif space == "global":
        m.counters.count_global(index, address, size, m.warp_index[m.mask])
        m.memory.write(address, data)
    else:
        raise Fault(UNSUPPORTED, f"a store to {space}")


@instruction("ld", "ldu")
def _load(ins: Instruction, m: Machine) -> Act:
    _check_modifiers(ins)
    space, dtype = _space(ins), TYPES[ins.types[-1]]
    outs = [m.wide_target(name, dtype) for name in m.vector(ins.operands[0])]
    address = m.address(ins.operands[1])
    size = np.dtype(dtype).itemsize * len(outs)

    def load() -> None:
        found = read(m, ins.index, space, address(), size)
        values = np.ascontiguousarray(found).view(dtype).reshape(-1, len(outs))
        for i, out in enumerate(outs):
            out[m.mask] = values[:, i]

    return load


@instruction("st")
def _store(ins: Instruction, m: Machine) -> Act:
    _check_modifiers(ins)
    space, dtype = _space(ins), UNSIGNED[np.dtype(TYPES[ins.types[-1]]).itemsize]
    values = [m.value(name, dtype) for name in m.vector(ins.operands[1])]
    address = m.address(ins.operands[0])

    def store() -> None:
        lanes = np.flatnonzero(m.mask)
        parts = [v[lanes] if v.ndim else np.full(len(lanes), v, dtype) for v in values]
        data = np.stack(parts, 1).view(np.uint8).reshape(len(lanes), -1)
        write(m, ins.index, space, address(), data)

    return store


def _increment(old: np.generic, limit: np.generic) -> int:
    return 0 if old >= limit else int(old) + 1


def _decrement(old: np.generic, limit: np.generic) -> int:
    return int(limit) if old == 0 or old > limit else int(old) - 1


_ATOMIC: dict[str, Callable[..., object]] = {
    **{"add": lambda a, b: a + b, "min": min, "max": max, "exch": lambda a, b: b},
    **{"and": lambda a, b: a & b, "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b},
    **{"inc": _increment, "dec": _decrement, "cas": lambda a, b, c: c if a == b else a},
}


@instruction("atom", "red")
def _atomic(ins: Instruction, m: Machine) -> Act:
    """One lane after the other. Atomics are no barrier here: they order nothing else."""
    _check_modifiers(ins, *_ATOMIC)
    space, dtype = _space(ins), numpy_type(ins.types[-1])
    combine = next(f for name, f in _ATOMIC.items() if name in ins.modifiers)
    first = 1 if ins.opcode == "atom" else 0
    out = m.target(ins.operands[0], dtype) if first else None
    address = m.address(ins.operands[first])
    values = [m.value(operand, dtype) for operand in ins.operands[first + 1 :]]
    size = np.dtype(dtype).itemsize

    def update() -> None:
        lanes, where = np.flatnonzero(m.mask), address()
        for lane, place in zip(lanes, where, strict=True):
            at = _atomic_place(m, *_resolve(space, np.array([place])), size, lane)
            old = at.view(dtype)[0]
            operands = [v[lane] if v.ndim else v[()] for v in values]
            at.view(dtype)[0] = combine(old, *operands)
            if out is not None:
                out[lane] = old

    return update


def _atomic_place(m: Machine, space: str, address: np.ndarray, size: int, lane: int) -> np.ndarray:
    """Return a view of the bytes that one lane's atomic changes, checked."""
    if space == "shared":
        at = m.shared.place(address, size, m.block[lane : lane + 1])
        m.shared.check_written(at)
        return m.shared.bytes[at[0, 0] : at[0, 0] + size]
    return m.memory.atomic(int(address[0]), size)


@instruction("prefetch", "prefetchu")
def _prefetch(ins: Instruction, m: Machine) -> Act:
    address = m.address(ins.operands[0])
    if "tensormap" in ins.modifiers:
        return lambda: None
    return lambda: m.memory.check(address())
