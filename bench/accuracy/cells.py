"""What is measured, one cell at a time, and where a cell's result lies until all are there."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.cache import cache_folder

PATTERNS = ("nm64x2", "nm64", "unstructured", "2:4", "channel")
SPARSITIES = (0.5, 0.75, 0.875)
MAGNITUDE, SPARSEGPT, OBS, DISTILLED = "magnitude", "sparsegpt", "obs", "obs + distillation"
METHODS = (MAGNITUDE, SPARSEGPT, OBS, DISTILLED)
#: Patterns that have one sparsity of their own.
FIXED = {"2:4": 0.5}
#: Methods that a pattern has, where not all. With channels "obs" is importance by Taylor's first
#: order, and a refit of the layers that read them.
METHODS_OF = {"channel": (MAGNITUDE, OBS, DISTILLED)}
CHANNEL = "channel"


@dataclass(frozen=True)
class Cell:
    """One network: a task's, pruned to a pattern by a method; `DENSE` is not pruned."""

    pattern: str
    sparsity: float
    method: str

    @property
    def key(self) -> str:
        """A name for files."""
        text = f"{self.pattern}-{100 * self.sparsity:g}-{self.method}"
        return "".join(c if c.isalnum() or c in "-." else "_" for c in text)

    @property
    def label(self) -> str:
        """A name for people, without the method."""
        return self.pattern if self == DENSE else f"{self.pattern} {100 * self.sparsity:g}%"


DENSE = Cell("dense", 0.0, "none")


def cells_of(
    patterns: Iterable[str], sparsities: Iterable[float], methods: Iterable[str]
) -> list[Cell]:
    """Return the cells in the order in which they are worth having."""
    wanted = list(sparsities)
    found = [DENSE]
    for pattern in patterns:
        for sparsity in [FIXED[pattern]] if pattern in FIXED else wanted:
            for method in methods:
                if method in METHODS_OF.get(pattern, METHODS):
                    found.append(Cell(pattern, sparsity, method))
    return found


class CellStore:
    """Results of one task's cells, one file each, so that a kill loses at most one."""

    def __init__(self, task: str) -> None:
        self.folder = cache_folder() / "accuracy" / task

    def path(self, cell: Cell, suffix: str) -> Path:
        """Return where something of a cell lies; the folder exists afterwards."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{cell.key}{suffix}"

    def read(self, cell: Cell) -> dict[str, Any] | None:
        """Return a cell's result, None when there is none yet."""
        path = self.path(cell, ".json")
        if not path.exists():
            return None
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def write(self, cell: Cell, result: dict[str, Any]) -> None:
        """Keep a cell's result."""
        path = self.path(cell, ".json")
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
