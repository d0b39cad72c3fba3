"""The table of the models tier: one row per model, printed and kept as JSON."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fastinfer.measure import describe_machine
from fastinfer.report_text import format_table

BENCH = Path(__file__).resolve().parents[2] / "bench"


@dataclass
class Row:
    """What one model gave; what was not reached is None. `ratio` above 1 is faster than eager."""

    model: str
    family: str
    size: tuple[int, ...]
    path: str = "failed"
    convert_s: float | None = None
    sqnr_db: float | None = None
    int8_layers: int = 0
    layers: int = 0
    regions: list[int] = field(default_factory=list)
    kept_float: dict[str, int] = field(default_factory=dict)
    eager_ms: float | None = None
    fast_ms: float | None = None
    ratio: float | None = None
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able data; JSON has no infinity, so an exact answer has the text "exact"."""
        data = asdict(self)
        if self.sqnr_db is not None and math.isinf(self.sqnr_db):
            data["sqnr_db"] = "exact" if self.sqnr_db > 0 else "none"
        return data

    def cells(self) -> list[str]:
        """Return the row as texts."""

        def text(value: float | None, digits: int) -> str:
            if value is None:
                return "-"
            return "exact" if value == math.inf else f"{value:.{digits}f}"

        reasons = ", ".join(f"{count} {reason}" for reason, count in self.kept_float.items())
        return [
            self.model,
            self.path,
            text(self.convert_s, 1),
            text(self.sqnr_db, 1),
            f"{self.int8_layers}/{self.layers}",
            str(len(self.regions)),
            text(self.eager_ms, 2),
            text(self.fast_ms, 2),
            text(self.ratio, 2),
            reasons[:90],
        ]


def kind_of_reason(reason: str) -> str:
    """Return a report's reason without its figures, so that equal ones can be counted."""
    reason = re.sub(r" \([^)]*\)", "", reason)
    return re.sub(r" [-\d.]+ dB < \d+ dB with it in int8", " too low with it in int8", reason)


class Results:
    """The rows of one session."""

    headers = (
        "model", "path", "convert s", "SQNR dB", "int8", "regions", "eager ms", "fast ms", "ratio"
    )  # fmt: skip

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def __str__(self) -> str:
        """Return a table for people."""
        headers = [*self.headers, "kept float"]
        return format_table(headers, [row.cells() for row in self.rows], title="torchvision models")

    def write(self, path: Path) -> None:
        """Write machine and rows; rows of models that did not run now stay as they were."""
        old: list[dict[str, Any]] = []
        if path.exists():
            old = json.loads(path.read_text(encoding="utf-8"))["rows"]
        new = {row.model: row.to_dict() for row in self.rows}
        rows = [new.pop(row["model"], row) for row in old] + list(new.values())
        path.parent.mkdir(parents=True, exist_ok=True)
        data = {"machine": describe_machine(), "rows": rows}
        path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def default_path() -> Path:
    """Return bench/results/models_<cpu>_<isa>.json, named as the benchmarks name theirs."""
    spec = importlib.util.spec_from_file_location("bench_harness", BENCH / "harness.py")
    assert spec is not None and spec.loader is not None
    harness = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(harness)
    path: Path = harness.results_path("models")
    return path
