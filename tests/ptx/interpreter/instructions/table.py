"""Opcode -> binder: what makes one instruction of a kernel into a function of a machine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..decode import Instruction
from ..faults import UNSUPPORTED, Fault
from ..machine import Act, Machine
from ..operands import TYPES

Binder = Callable[[Instruction, Machine], Act]
BINDERS: dict[str, Binder] = {}


def instruction(*opcodes: str) -> Callable[[Binder], Binder]:
    """Enter a binder for opcodes."""

    def enter(binder: Binder) -> Binder:
        for opcode in opcodes:
            assert opcode not in BINDERS, opcode
            BINDERS[opcode] = binder
        return binder

    return enter


def bind(ins: Instruction, machine: Machine) -> Act:
    """Return the function that runs an instruction for the machine's present mask."""
    if ins.opcode not in BINDERS:
        raise Fault(UNSUPPORTED, f"{ins.opcode} is not emulated")
    try:
        return BINDERS[ins.opcode](ins, machine)
    except (AssertionError, IndexError, KeyError, StopIteration, ValueError) as error:
        # Binders take the forms they know apart; any other ends here.
        raise Fault(UNSUPPORTED, f"this form of {ins.opcode} is not emulated") from error


def only(ins: Instruction, *modifiers: str) -> set[str]:
    """Return the modifiers that are no types; fault where one is not among those emulated."""
    found = {m for m in ins.modifiers if m not in TYPES}
    if unknown := found - set(modifiers):
        raise Fault(UNSUPPORTED, f"{ins.opcode}: modifiers {sorted(unknown)} are not emulated")
    return found


def numpy_type(name: str) -> type[np.generic]:
    """Return the numpy type of a PTX type that numpy can calculate with."""
    if name in ("bf16", "bf16x2", "f16x2"):
        raise Fault(UNSUPPORTED, f"arithmetic on {name} is not emulated")
    return TYPES[name]


def double_width(name: str) -> type[np.generic]:
    """Return the type of twice the width, of products."""
    return TYPES[name[0] + str(2 * int(name[1:]))]
