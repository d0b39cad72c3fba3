"""Calls of the engine as it recorded them: which program, its values' shapes, what steps took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from fastinfer.types.region import KINDS, PLAN_KINDS

_ITEM_BYTES = {"uint8": 1, "float32": 4}


@dataclass(frozen=True)
class RecordedValue:
    """A tensor of a plan: dtype "uint8" or "float32"; shape [N, C, H, W] where it has 4 sizes."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size in memory."""
        return prod(self.shape) * _ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class RecordedStep:
    """A step of a plan, which may have some the program has not (PLAN_KINDS).

    reads, out: indices of values. seconds: on the first thread, from the end of the step before,
    waiting included; kernel_seconds: of the thread that was in its kernel for longest.
    """

    kind: str
    out: int
    reads: tuple[int, ...]
    seconds: float
    kernel_seconds: float


@dataclass(frozen=True)
class RecordedCall:
    """A call of a region.

    weights: address and bytes of every buffer it was given. slices: how many the batch ran in; 1
    is the whole. Steps of slices are the mean over threads, and shapes those of the whole batch.
    threads: at most so many. If the batch runs as a whole, copied_bytes are what cats and slices
    copy, arena_bytes the memory of values, arena_lower_bound what is alive at one step, at most.
    """

    program: str
    weights: tuple[tuple[int, int], ...]
    values: tuple[RecordedValue, ...]
    steps: tuple[RecordedStep, ...]
    slices: int
    threads: int
    seconds: float
    copied_bytes: int
    arena_bytes: int
    arena_lower_bound: int

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RecordedCall:
        """Return the call that the extension describes (csrc/bindings.cpp)."""
        kinds = (*KINDS, *PLAN_KINDS)
        lists = {
            "weights": tuple(data["weights"]),
            "values": tuple(RecordedValue(*value) for value in data["values"]),
            "steps": tuple(RecordedStep(kinds[kind], *rest) for kind, *rest in data["steps"]),
        }
        return cls(**{**data, **lists})
