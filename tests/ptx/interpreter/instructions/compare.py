"""Comparisons, selections and moves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..bfloat16 import from_bfloat16
from ..decode import Instruction
from ..faults import UNSUPPORTED, Fault
from ..machine import LOCAL_BASE, PARAM_BASE, SHARED_BASE, Act, Machine
from ..operands import TYPES, UNSIGNED, Name, Pair, Vector
from .arithmetic import assign
from .table import instruction, numpy_type, only

_COMPARE: dict[str, Callable[..., np.ndarray]] = {
    **{"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal},
    **{"gt": np.greater, "ge": np.greater_equal},
    **{"lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal},
}
_JOIN = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}


def _comparison(name: str, is_float: bool) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return a comparison; of floats, `equ` and its like hold where an operand is NaN."""
    if not is_float:
        return _COMPARE[name]
    if name in ("num", "nan"):
        return lambda a, b: (np.isnan(a) | np.isnan(b)) == (name == "nan")
    if name in ("equ", "neu", "ltu", "leu", "gtu", "geu"):
        plain = _COMPARE[name[:-1]]
        return lambda a, b: plain(a, b) | np.isnan(a) | np.isnan(b)
    plain = _COMPARE[name]
    return lambda a, b: plain(a, b) & ~(np.isnan(a) | np.isnan(b))


@instruction("setp")
def _set_predicate(ins: Instruction, m: Machine) -> Act:
    name, *rest = (modifier for modifier in ins.modifiers if modifier != "ftz")
    is_bfloat16 = ins.types[-1] == "bf16"
    dtype = np.uint16 if is_bfloat16 else numpy_type(ins.types[-1])
    compare = _comparison(name, is_bfloat16 or np.dtype(dtype).kind == "f")
    result = ins.operands[0]
    first, second = (result.first, result.second) if isinstance(result, Pair) else (result, None)
    out = m.target(first, np.bool_)
    a, b = (m.value(operand, dtype) for operand in ins.operands[1:3])
    if is_bfloat16:
        return _compare_bfloat16(ins, m, compare, out, a, b)
    if "ftz" in ins.modifiers:
        raise Fault(UNSUPPORTED, "setp.ftz is not emulated")
    if len(rest) == 1 and second is None:
        return assign(m, out, lambda: compare(a, b))
    join = _JOIN.get(rest[0])
    if second is not None and join is None:
        other_out = m.target(second, np.bool_)

        def both() -> None:
            found = compare(a, b)
            np.copyto(out, found, where=m.mask)
            np.copyto(other_out, ~found, where=m.mask)

        return both
    if join is None or second is not None:
        raise Fault(UNSUPPORTED, f"setp with modifiers {rest} is not emulated")
    third = m.predicate(ins.operands[3])
    return assign(m, out, lambda: join(compare(a, b), third()))


def _compare_bfloat16(
    ins: Instruction, m: Machine, compare: Callable[..., np.ndarray], out: np.ndarray,
    a: np.ndarray, b: np.ndarray,
) -> Act:  # fmt: skip
    if len(ins.modifiers) != 2 or isinstance(ins.operands[0], Pair):
        raise Fault(UNSUPPORTED, f"setp with modifiers {ins.modifiers} is not emulated")
    return assign(m, out, lambda: compare(from_bfloat16(a), from_bfloat16(b)))


@instruction("selp")
def _select(ins: Instruction, m: Machine) -> Act:
    only(ins)
    dtype = UNSIGNED[np.dtype(TYPES[ins.types[-1]]).itemsize]
    out = m.target(ins.operands[0], dtype)
    a, b = (m.value(operand, dtype) for operand in ins.operands[1:3])
    choose = m.predicate(ins.operands[3])
    return assign(m, out, lambda: np.where(choose(), a, b))


@instruction("mov")
def _move(ins: Instruction, m: Machine) -> Act:
    only(ins)
    to, source = ins.operands
    kind = ins.types[-1]
    if isinstance(source, Vector):
        return _pack(ins, m, source.items)
    if isinstance(to, Vector):
        return _unpack(ins, m, to.items)
    dtype = np.bool_ if kind == "pred" else UNSIGNED[np.dtype(TYPES[kind]).itemsize]
    out, value = m.target(to, dtype), m.value(source, dtype)
    return lambda: np.copyto(out, value, where=m.mask)


def _pack(ins: Instruction, m: Machine, parts: tuple[Name, ...]) -> Act:
    whole = np.dtype(TYPES[ins.types[-1]]).itemsize
    part = UNSIGNED[whole // len(parts)]
    out = m.target(ins.operands[0], UNSIGNED[whole]).view(part).reshape(m.lanes, len(parts))
    values = [m.value(name, part) for name in parts]

    def pack() -> None:
        for i, value in enumerate([v.copy() for v in values]):
            np.copyto(out[:, i], value, where=m.mask)

    return pack


def _unpack(ins: Instruction, m: Machine, parts: tuple[Name, ...]) -> Act:
    whole = np.dtype(TYPES[ins.types[-1]]).itemsize
    part = UNSIGNED[whole // len(parts)]
    value = m.value(ins.operands[1], UNSIGNED[whole]).view(part).reshape(m.lanes, len(parts))
    outs = [m.target(name, part) for name in parts]

    def unpack() -> None:
        for i, out in enumerate(outs):
            np.copyto(out, value[:, i], where=m.mask)

    return unpack


@instruction("cvta")
def _convert_address(ins: Instruction, m: Machine) -> Act:
    bases = {"global": 0, "shared": SHARED_BASE, "local": LOCAL_BASE, "param": PARAM_BASE}
    found = only(ins, "to", "shared::cta", *bases)
    base = sum(bases[name.partition("::")[0]] for name in found - {"to"})
    dtype = TYPES[ins.types[-1]]
    out, value = m.target(ins.operands[0], dtype), m.value(ins.operands[1], dtype)
    step = np.array(-base if "to" in found else base, np.int64).astype(dtype)
    return assign(m, out, lambda: value + step)
