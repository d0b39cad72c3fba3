"""One call of an op, as a value, and the random bytes of its inputs."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """Arguments for one call of an op; `build` packs weights for the ISA in force."""

    op: str
    label: str
    build: Callable[[], tuple[Any, ...]]

    def __str__(self) -> str:
        return f"{self.op}-{self.label}"


def generator(label: str) -> torch.Generator:
    """Return a generator seeded by the label."""
    return torch.Generator().manual_seed(zlib.crc32(label.encode()))


def random_uint8(g: torch.Generator, *shape: int) -> Tensor:
    """Return uniform values 0..255."""
    return torch.randint(0, 256, shape, generator=g, dtype=torch.uint8)
