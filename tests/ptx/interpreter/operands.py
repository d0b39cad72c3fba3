"""Operands of a PTX instruction as values."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from functools import cache

import numpy as np

#: PTX type -> numpy type. Untyped bits are unsigned; bf16 has no numpy type and stays bits.
TYPES: dict[str, type[np.generic]] = {
    "pred": np.bool_,
    **{"b8": np.uint8, "b16": np.uint16, "b32": np.uint32, "b64": np.uint64},
    **{"u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "u64": np.uint64},
    **{"s8": np.int8, "s16": np.int16, "s32": np.int32, "s64": np.int64},
    **{"f16": np.float16, "f32": np.float32, "f64": np.float64},
    **{"bf16": np.uint16, "f16x2": np.uint32, "bf16x2": np.uint32},
    **{"e4m3": np.uint8, "e4m3x2": np.uint16},
}
UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass(frozen=True)
class Name:
    """A register, special register, symbol or literal; `negated` is the `!` of a predicate."""

    text: str
    negated: bool = False


@dataclass(frozen=True)
class Vector:
    """`{a, b, ...}`."""

    items: tuple[Name, ...]


@dataclass(frozen=True)
class Pair:
    """`a|b`: two results."""

    first: Name
    second: Name


@dataclass(frozen=True)
class Address:
    """`[base + offset]`, or `[base, {coordinates}]` of a tensor map."""

    base: Name
    offset: int
    coordinates: tuple[Name, ...] = ()


Operand = Name | Vector | Pair | Address


def split_top(text: str) -> list[str]:
    """Return the parts of a list, split at commas that no bracket encloses."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(text):
        if character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    last = text[start:].strip()
    return [*parts, last] if last else parts


@cache  # kernels have many in common
def parse_operand(text: str) -> Operand:
    """Return the operand that a text describes."""
    if text[0] == "{":
        return Vector(tuple(_name(part) for part in split_top(text[1:-1])))
    if text[0] == "[":
        base, *rest = split_top(text[1:-1].strip())
        found = re.fullmatch(r"([^+\s]+)\s*(?:\+\s*(-?\w+))?", base)
        assert found is not None, text
        items = tuple(_name(p) for p in split_top(rest[0][1:-1])) if rest else ()
        return Address(_name(found[1]), int(found[2] or "0", 0), items)
    first, bar, second = text.partition("|")
    return Pair(_name(first), _name(second)) if bar else _name(first)


def _name(text: str) -> Name:
    text = text.strip()
    return Name(text[1:].strip(), True) if text[0] == "!" else Name(text)


def literal(text: str, dtype: type[np.generic]) -> np.ndarray | None:
    """Return a literal as a 0-d array of the type, or None where the text is no literal."""
    if re.fullmatch(r"0[fF][0-9a-fA-F]{8}", text):
        value = struct.unpack(">f", bytes.fromhex(text[2:]))[0]
        return _bits(np.float32(value), dtype)
    if re.fullmatch(r"0[dD][0-9a-fA-F]{16}", text):
        value = struct.unpack(">d", bytes.fromhex(text[2:]))[0]
        return _bits(np.float64(value), dtype)
    if not re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)U?", text):
        return None
    number = int(text.rstrip("U"), 0)
    if dtype is np.bool_:
        return np.asarray(number != 0)
    size = np.dtype(dtype).itemsize
    unsigned = np.asarray(number & ((1 << 8 * size) - 1), UNSIGNED[size])
    return unsigned.view(dtype)


def _bits(value: np.generic, dtype: type[np.generic]) -> np.ndarray:
    return np.asarray(value).view(dtype)
