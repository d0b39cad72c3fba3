"""cvt: between integers and floats of all widths."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..bfloat16 import bfloat16_bits, from_bfloat16
from ..decode import Instruction
from ..faults import UNSUPPORTED, Fault
from ..float8 import e4m3_bits
from ..machine import Act, Machine
from ..operands import TYPES
from .arithmetic import assign
from .table import instruction, only

_ROUND = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


@instruction("cvt")
def _convert(ins: Instruction, m: Machine) -> Act:
    if ins.types[-2:] == ("e4m3x2", "f32"):
        return _convert_to_e4m3(ins, m)
    found = only(ins, "rn", "rz", "sat", *_ROUND)
    to, source = ins.types[-2:]
    if to in ("f16x2", "bf16x2"):
        return _convert_pair(ins, m, to)
    if to == "bf16":
        x = m.value(ins.operands[1], np.float32)
        return assign(m, m.target(ins.operands[0], np.uint16), lambda: bfloat16_bits(x))
    if source == "bf16":
        bits = m.value(ins.operands[1], np.uint16)
        return assign(m, m.wide_target(ins.operands[0], TYPES[to]), lambda: from_bfloat16(bits))
    if "rz" in found and to[0] == "f":
        raise Fault(UNSUPPORTED, "cvt.rz to a float is not emulated")
    dtype = TYPES[to]
    value = m.value(ins.operands[1], TYPES[source])
    out = m.wide_target(ins.operands[0], dtype)
    return assign(m, out, _conversion(value, dtype, source[0] == "f", found))


def _conversion(
    x: np.ndarray, dtype: type[np.generic], from_float: bool, found: set[str]
) -> Callable[[], np.ndarray]:
    rounding = next((_ROUND[name] for name in _ROUND if name in found), None)
    if np.dtype(dtype).kind == "f":
        if "sat" in found:
            return lambda: np.clip(np.nan_to_num(x.astype(np.float64)), 0, 1).astype(dtype)
        return lambda: (x if rounding is None else rounding(x)).astype(dtype)
    limits = np.iinfo(dtype)
    if from_float:
        if rounding is None:
            raise Fault(UNSUPPORTED, "cvt of a float without a rounding")

        def nearest() -> np.ndarray:
            # Out of range: the nearest; NaN: zero. Clamped in float64, which ends at 2^63 exactly.
            whole = rounding(np.nan_to_num(x.astype(np.float64), posinf=2.0**70, neginf=-(2.0**70)))
            inside = np.clip(whole, float(limits.min), np.nextafter(float(limits.max) + 1, 0))
            result = inside.astype(dtype)
            return np.where(whole >= float(limits.max), dtype(limits.max), result)

        return nearest
    if "sat" in found:
        source = np.iinfo(x.dtype)
        low, high = max(limits.min, source.min), min(limits.max, source.max)
        return lambda: np.clip(x, x.dtype.type(low), x.dtype.type(high)).astype(dtype)
    return lambda: x.astype(dtype)


def _convert_pair(ins: Instruction, m: Machine, to: str) -> Act:
    out = m.target(ins.operands[0], np.uint32)
    high, low = (m.value(operand, np.float32) for operand in ins.operands[1:3])

    def half(x: np.ndarray) -> np.ndarray:
        bits = bfloat16_bits(x) if to == "bf16x2" else x.astype(np.float16).view(np.uint16)
        return bits.astype(np.uint32)

    return assign(m, out, lambda: half(high) << np.uint32(16) | half(low))


def _convert_to_e4m3(ins: Instruction, m: Machine) -> Act:
    only(ins, "rn", "satfinite")
    out = m.target(ins.operands[0], np.uint16)
    high, low = (m.value(operand, np.float32) for operand in ins.operands[1:3])

    def pair() -> np.ndarray:
        return e4m3_bits(high).astype(np.uint16) << np.uint16(8) | e4m3_bits(low)

    return assign(m, out, pair)
