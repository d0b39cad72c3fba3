"""Integer and float arithmetic: lanes at once, rounded as the instruction says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..bfloat16 import bfloat16_bits, from_bfloat16
from ..decode import Instruction
from ..faults import UNSUPPORTED, Fault
from ..machine import Act, Machine
from .table import double_width, instruction, numpy_type, only


def _elementwise(ins: Instruction, m: Machine, function: Callable[..., object]) -> Act:
    """Return an act that applies a ufunc to operands of the instruction's type."""
    dtype = numpy_type(ins.types[-1])
    out = m.target(ins.operands[0], dtype)
    values = [m.value(operand, dtype) for operand in ins.operands[1:]]
    if "ftz" in ins.modifiers:
        return assign(m, out, lambda: flushed(function(*map(flushed, values))))
    return lambda: function(*values, out=out, where=m.mask)


def flushed(x: np.ndarray) -> np.ndarray:
    """Return float32 with zeros for subnormals, of the same sign: what `.ftz` makes of them."""
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), x)


def assign(m: Machine, out: np.ndarray, compute: Callable[[], np.ndarray]) -> Act:
    """Return an act that stores a function's value in the active lanes."""
    return lambda: np.copyto(out, compute(), where=m.mask, casting="unsafe")


@instruction("add", "sub")
def _add(ins: Instruction, m: Machine) -> Act:
    function = np.add if ins.opcode == "add" else np.subtract
    if only(ins, "rn", "ftz", "s16x2", "u16x2") & {"s16x2", "u16x2"}:
        return _pairwise(ins, m, function)
    if ins.types[-1] == "bf16x2":
        # Rounded twice, as float32 and then: float32 holds more than twice bfloat16's bits.
        return _pairwise(
            ins, m, lambda a, b: bfloat16_bits(function(from_bfloat16(a), from_bfloat16(b)))
        )
    if ins.types[-1] == "f16x2":
        return _pairwise(
            ins, m, lambda a, b: function(a.view(np.float16), b.view(np.float16)).view(np.uint16)
        )
    return _elementwise(ins, m, function)


def _pairwise(
    ins: Instruction, m: Machine, function: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Act:
    """Return an act that applies a function to the 16-bit halves of words."""
    out = m.target(ins.operands[0], np.uint32)
    a, b = (m.value(operand, np.uint32) for operand in ins.operands[1:])

    def apply() -> np.ndarray:
        halves = [[(v >> np.uint32(by)).astype(np.uint16) for v in (a, b)] for by in (0, 16)]
        low, high = (function(*pair).astype(np.uint32) for pair in halves)
        return low | high << np.uint32(16)

    return assign(m, out, apply)


@instruction("min", "max")
def _min(ins: Instruction, m: Machine) -> Act:
    # Of a number and a NaN PTX takes the number.
    function = np.fmin if ins.opcode == "min" else np.fmax
    if "relu" in only(ins, "ftz", "relu"):
        out = m.target(ins.operands[0], numpy_type(ins.types[-1]))
        a, b = (m.value(operand, out.dtype) for operand in ins.operands[1:])
        return assign(m, out, lambda: np.maximum(function(a, b), out.dtype.type(0)))
    return _elementwise(ins, m, function)


@instruction("neg", "abs")
def _negate(ins: Instruction, m: Machine) -> Act:
    only(ins, "ftz")
    return _elementwise(ins, m, np.negative if ins.opcode == "neg" else np.abs)


@instruction("and", "or", "xor", "not")
def _bitwise(ins: Instruction, m: Machine) -> Act:
    names = {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "not": "invert"}
    return _elementwise(ins, m, getattr(np, names[ins.opcode]))


@instruction("div", "rem")
def _divide(ins: Instruction, m: Machine) -> Act:
    dtype = numpy_type(ins.types[-1])
    out = m.target(ins.operands[0], dtype)
    a, b = (m.value(operand, dtype) for operand in ins.operands[1:])
    if np.dtype(dtype).kind == "f":
        only(ins, "rn", "full", "approx", "ftz")
        return _elementwise(ins, m, np.divide)
    only(ins)
    if ins.opcode == "rem":
        return _elementwise(ins, m, np.fmod)

    def quotient() -> np.ndarray:
        floor = np.floor_divide(a, b)
        return floor + ((np.remainder(a, b) != 0) & ((a < 0) != (b < 0)))

    return assign(m, out, quotient)


def _high(a: np.ndarray, b: np.ndarray, name: str) -> np.ndarray:
    """Return the upper half of products."""
    bits = int(name[1:])
    if bits == 64:
        return ((a.astype(object) * b.astype(object)) >> 64).astype(a.dtype)
    wide = double_width(name)
    return (a.astype(wide) * b.astype(wide)) >> np.array(bits, wide)


@instruction("mul", "mad")
def _multiply(ins: Instruction, m: Machine) -> Act:
    found = only(ins, "lo", "hi", "wide", "rn", "ftz")
    name = ins.types[-1]
    dtype = numpy_type(name)
    if ins.opcode == "mul" and "hi" not in found and "wide" not in found:
        return _elementwise(ins, m, np.multiply)
    a, b = (m.value(operand, dtype) for operand in ins.operands[1:3])
    result = double_width(name) if "wide" in found else dtype
    out = m.target(ins.operands[0], result)
    c = m.value(ins.operands[3], result) if ins.opcode == "mad" else np.zeros((), result)
    if "hi" in found:
        return assign(m, out, lambda: _high(a, b, name) + c)
    return assign(m, out, lambda: np.multiply(a, b, dtype=result) + c)


def fused(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return a * b + c of float32, rounded once."""
    return _fused_to_odd(a, b, c).astype(np.float32)


def _fused_bfloat16(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return the bits of a * b + c rounded once, but for subnormal results."""
    exact = np.asarray(_fused_to_odd(a, b, c))
    bits = exact.view(np.int64)
    nearest = (bits + (1 << 44) - 1 + (bits >> 45 & 1)) & -(1 << 45)  # 7 bits of 52
    return bfloat16_bits(np.where(np.isfinite(exact), nearest.view(np.float64), exact))


def _fused_to_odd(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return a * b + c as float64, rounded to odd where it is not exact.

    The product is exact in float64. Rounding its sum to odd keeps what float32's rounding needs.
    """
    product, addend = a.astype(np.float64) * b, c.astype(np.float64)
    total = product + addend
    part = total - product
    error = (product - (total - part)) + (addend - part)
    bits = np.asarray(total).view(np.int64)
    even = np.isfinite(total) & (error != 0) & (bits & 1 == 0)
    away = (error > 0) == (total > 0)
    odd = np.where(even, np.where(away, bits + 1, bits - 1), bits)
    return odd.view(np.float64)


@instruction("fma")
def _fma(ins: Instruction, m: Machine) -> Act:
    flush = flushed if "ftz" in only(ins, "rn", "ftz") else np.asarray
    if ins.types[-1] == "bf16":
        bits = [m.value(operand, np.uint16) for operand in ins.operands[1:]]
        out = m.target(ins.operands[0], np.uint16)
        return assign(m, out, lambda: _fused_bfloat16(*map(from_bfloat16, bits)))
    if ins.types[-1] != "f32":
        raise Fault(UNSUPPORTED, f"fma.{ins.types[-1]} is not emulated")
    out = m.target(ins.operands[0], np.float32)
    a, b, c = (m.value(operand, np.float32) for operand in ins.operands[1:])
    return assign(m, out, lambda: flush(fused(flush(a), flush(b), flush(c))))


#: Of `approx` these are rounded correctly here; a GPU may differ in the last bits.
_FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rcp": np.reciprocal,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "ex2": np.exp2,
    "lg2": np.log2,
    "tanh": np.tanh,
}


@instruction(*_FUNCTIONS)
def _function(ins: Instruction, m: Machine) -> Act:
    flush = flushed if "ftz" in only(ins, "rn", "approx", "ftz") else np.asarray
    dtype = numpy_type(ins.types[-1])
    x = m.value(ins.operands[1], dtype)
    function = _FUNCTIONS[ins.opcode]
    out = m.target(ins.operands[0], dtype)
    return assign(m, out, lambda: flush(function(flush(x).astype(np.float64)).astype(dtype)))


@instruction("dp4a")
def _dot4(ins: Instruction, m: Machine) -> Act:
    out = m.target(ins.operands[0], np.int32)
    a, b = (m.value(operand, np.uint32).reshape(-1) for operand in ins.operands[1:3])
    kinds = [np.int8 if name[0] == "s" else np.uint8 for name in ins.types]
    c = m.value(ins.operands[3], np.int32)

    def bytes_of(x: np.ndarray, kind: type[np.generic]) -> np.ndarray:
        return np.ascontiguousarray(x).view(kind).reshape(-1, 4).astype(np.int32)

    return assign(
        m, out, lambda: (bytes_of(a, kinds[0]) * bytes_of(b, kinds[1])).sum(1, np.int32) + c
    )
