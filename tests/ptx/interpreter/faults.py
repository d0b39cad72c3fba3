"""What the interpreter refuses: one exception, with the instruction and the source line."""

from __future__ import annotations

OUT_OF_BOUNDS = "out of bounds"
MISALIGNED = "misaligned"
UNINITIALISED = "uninitialised read"
READ_ONLY = "write to a read-only buffer"
RACE = "race"
DIVERGENT = "divergent"
DEADLOCK = "deadlock"
BARRIER = "barrier"
TRAP = "trap"
UNSUPPORTED = "unsupported"
INVALID = "invalid"


class Fault(Exception):
    """A mistake of the interpreted kernel, or an instruction that is not emulated.

    `kind` is one of this module's names. The text names the PTX instruction and the source line
    once `at` has been called.
    """

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.where = ""

    def at(self, where: str) -> Fault:
        """Return the fault itself, placed at an instruction unless it already is."""
        self.where = self.where or where
        return self

    def __str__(self) -> str:
        place = f"\n  at {self.where}" if self.where else ""
        return f"{self.kind}: {self.message}{place}"
