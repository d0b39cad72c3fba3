"""Shifts, fields, permutations and tables of bits."""

from __future__ import annotations

import numpy as np

from ..decode import Instruction
from ..machine import Act, Machine
from .arithmetic import assign
from .table import instruction, numpy_type, only


@instruction("shl", "shr")
def _shift(ins: Instruction, m: Machine) -> Act:
    only(ins)
    dtype = numpy_type(ins.types[-1])
    out = m.target(ins.operands[0], dtype)
    x, by = m.value(ins.operands[1], dtype), m.value(ins.operands[2], np.uint32)
    bits = np.dtype(dtype).itemsize * 8
    move = np.left_shift if ins.opcode == "shl" else np.right_shift
    if by.ndim == 0 and by < bits:
        fixed = by.astype(dtype)
        return lambda: move(x, fixed, out=out, where=m.mask)
    is_signed = ins.opcode == "shr" and np.dtype(dtype).kind == "i"

    def shifted() -> np.ndarray:
        # Beyond the width nothing is left but a sign.
        near = move(x, np.minimum(by, bits - 1).astype(dtype))
        return near if is_signed else np.where(by < bits, near, 0)

    return assign(m, out, shifted)


@instruction("shf")
def _funnel(ins: Instruction, m: Machine) -> Act:
    found = only(ins, "l", "r", "wrap", "clamp")
    out = m.target(ins.operands[0], np.uint32)
    low, high, by = (m.value(operand, np.uint32) for operand in ins.operands[1:])

    def shifted() -> np.ndarray:
        count = (by & 31 if "wrap" in found else np.minimum(by, 32)).astype(np.uint64)
        both = high.astype(np.uint64) << np.uint64(32) | low
        if "r" in found:
            return both >> count
        return both << count >> np.uint64(32)

    return assign(m, out, shifted)


@instruction("bfe")
def _extract(ins: Instruction, m: Machine) -> Act:
    only(ins)
    dtype = numpy_type(ins.types[-1])
    bits = np.dtype(dtype).itemsize * 8
    out = m.target(ins.operands[0], dtype)
    x = m.value(ins.operands[1], dtype)
    at, size = (m.value(operand, np.uint32) for operand in ins.operands[2:])

    def extracted() -> np.ndarray:
        start, count = (v.astype(np.int64) & 0xFF for v in (at, size))
        last = np.clip(np.minimum(start + count, bits) - 1, 0, bits - 1)
        width = np.clip(np.minimum(count, bits - start), 0, bits)
        left = (bits - 1 - last).astype(dtype)
        moved = (x << left) >> np.clip(bits - width, 0, bits - 1).astype(dtype)
        outside = (x >> np.array(bits - 1, dtype)) if np.dtype(dtype).kind == "i" else 0
        return np.where(count == 0, 0, np.where(start >= bits, outside, moved))

    return assign(m, out, extracted)


@instruction("bfi")
def _insert(ins: Instruction, m: Machine) -> Act:
    only(ins)
    dtype = numpy_type(ins.types[-1])
    bits = np.dtype(dtype).itemsize * 8
    out = m.target(ins.operands[0], dtype)
    a, b = (m.value(operand, dtype) for operand in ins.operands[1:3])
    at, size = (m.value(operand, np.uint32) for operand in ins.operands[3:])

    def inserted() -> np.ndarray:
        start = np.minimum(at & 0xFF, bits).astype(np.uint64)
        count = np.minimum(size & 0xFF, bits).astype(np.uint64)
        one = np.uint64(1)
        ones = np.where(count < 64, (one << np.minimum(count, 63)) - one, ~np.uint64(0))
        field = np.where(start < 64, ones << np.minimum(start, 63), 0)
        moved = np.where(start < 64, a.astype(np.uint64) << np.minimum(start, 63), 0)
        return (b & ~field) | (moved & field)

    return assign(m, out, inserted)


@instruction("popc", "clz", "brev")
def _count(ins: Instruction, m: Machine) -> Act:
    only(ins)
    dtype = numpy_type(ins.types[-1])
    bits = np.dtype(dtype).itemsize * 8
    x = m.value(ins.operands[1], dtype)
    out = m.target(ins.operands[0], dtype if ins.opcode == "brev" else np.uint32)

    def counted() -> np.ndarray:
        planes = (x[..., None] >> np.arange(bits).astype(dtype)) & dtype(1)
        if ins.opcode == "popc":
            return planes.sum(-1)
        if ins.opcode == "clz":
            return np.where(x == 0, bits, planes[..., ::-1].argmax(-1))
        weights = np.array(1, dtype) << np.arange(bits - 1, -1, -1).astype(dtype)
        return (planes * weights).sum(-1, dtype=dtype)

    return assign(m, out, counted)


@instruction("lop3")
def _logic(ins: Instruction, m: Machine) -> Act:
    only(ins)
    out = m.target(ins.operands[0], np.uint32)
    a, b, c = (m.value(operand, np.uint32) for operand in ins.operands[1:4])
    table = int(m.value(ins.operands[4], np.uint32))

    def looked_up() -> np.ndarray:
        result = np.zeros(m.lanes, np.uint32)
        for row in range(8):
            if table >> row & 1:
                terms = (v if row & bit else ~v for v, bit in ((a, 4), (b, 2), (c, 1)))
                x, y, z = terms
                result |= x & y & z
        return result

    return assign(m, out, looked_up)


@instruction("prmt")
def _permute(ins: Instruction, m: Machine) -> Act:
    only(ins)
    out = m.target(ins.operands[0], np.uint32)
    a, b, selector = (m.value(operand, np.uint32) for operand in ins.operands[1:])

    def permuted() -> np.ndarray:
        both = a.astype(np.uint64) | b.astype(np.uint64) << np.uint64(32)
        result = np.zeros(m.lanes, np.uint64)
        for i in range(4):
            pick = (selector >> np.uint32(4 * i)).astype(np.uint64)
            byte = both >> ((pick & np.uint64(7)) * np.uint64(8)) & np.uint64(0xFF)
            sign = (byte >> np.uint64(7)) * np.uint64(0xFF)
            byte = np.where(pick & np.uint64(8), sign, byte)
            result |= byte << np.uint64(8 * i)
        return result

    return assign(m, out, permuted)
