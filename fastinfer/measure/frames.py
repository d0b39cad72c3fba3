"""Timings that do not depend on how deep the caller's Python stack is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

#: Slots of the frame below: 16 KiB, more than is left of any chunk that is not made for it.
SLOTS = 2048


def _make_room() -> Callable[[Callable[[], Result]], Result]:
    # The assignment is never reached: it is there for the slots of its variables.
    slots = " = ".join(f"slot_{i}" for i in range(SLOTS))
    names: dict[str, Callable[[Callable[[], Result]], Result]] = {}
    exec(
        f"def with_room(run):\n    if run is not None:\n        return run()\n    {slots} = 0",
        names,
    )
    return names["with_room"]


_with_room = _make_room()


def with_room(run: Callable[[], Result]) -> Result:
    """Return what a function returns, called where frames have at least 8 KiB to themselves.

    CPython (3.11 on) keeps frames in chunks of 16 KiB. Where a caller stands just at the end of
    one, every call inside maps a chunk and gives it back: a model of a hundred layers then takes
    a hundred system calls, with an interrupt of the other cores each, and three times its time
    (swin3d_s: 58 ms for 17). A frame too large for what is left starts a chunk with room behind it.

    Source: CPython, Python/pystate.c, push_chunk.
    """
    return _with_room(run)
