"""A captured submodule on its way: what it was called with, and what became of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from fastinfer.graph.submodules import Submodule
from fastinfer.nn.converted_module import ConvertedModule
from fastinfer.paths.graph import Prepared
from fastinfer.program import Program
from fastinfer.report import LayerReport, PartReport, Report


@dataclass
class Part:
    """A captured submodule; `converted` is None until it is, and where it stays the user's own.

    Its report is its own until `merge_reports`. path and reason are those of PartReport.
    """

    submodule: Submodule
    prepared: Prepared | None = None
    converted: ConvertedModule | None = None
    report: Report = field(default_factory=Report)
    path: str = "graph"
    reason: str = ""

    @property
    def name(self) -> str:
        """The submodule's first name in the model."""
        return self.submodule.name

    def drop(self, path: str, reason: str) -> None:
        """Give the graph up: path "modules" swaps its layers, "original" leaves them float."""
        self.path, self.reason, self.converted = path, reason, None
        self.report.regions = []
        if path == "original":
            rows = self.report.layers
            rows[:] = [replace(row, precision="fp32", reason=reason) for row in rows]
            self.report.between_int8 = 0

    def inputs_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
        """Return the graph's inputs of a call; None where the float module answers it."""
        call = _program(self).call
        assert call is not None
        flat = call.flatten(args, kwargs)
        if flat is None or any(isinstance(t, Tensor) and not t.numel() for t in flat):
            return None
        fits = all(t.dtype == w.dtype for t, w in zip(flat, call.tensor_inputs, strict=True))
        return flat if fits and call.accepts([tuple(t.shape) for t in flat]) else None


def _program(part: Part) -> Program:
    assert part.prepared is not None
    return part.prepared.program


def merge_reports(report: Report, parts: Sequence[Part]) -> list[LayerReport]:
    """Add what the parts' reports say to the model's; return the rows of their layers.

    A part whose layers are swapped one by one keeps only its reason: the layers get rows there.
    """
    notes: dict[str, list[str]] = defaultdict(list)
    rows: list[LayerReport] = []
    for part in parts:
        mine = part.report
        kept = [] if part.path == "modules" else mine.layers
        rows += kept
        for text in mine.notes:
            notes[text].append(part.name)
        for name, seconds in mine.stage_s.items():
            report.stage_s[name] = report.stage_s.get(name, 0.0) + seconds
        if part.path == "graph":
            report.regions += [replace(region, part=part.name) for region in mine.regions]
            for name, count in mine.passes.items():
                report.passes[name] = report.passes.get(name, 0) + count
        if part.path != "modules":
            report.between_total += mine.between_total
            report.between_int8 += mine.between_int8
        report.parts.append(_row(part, kept))
    for text, names in notes.items():
        everywhere = len(names) == len(parts) > 1
        report.note(text if everywhere else f"{', '.join(names)}: {text}")
    return rows


def _row(part: Part, layers: Iterable[LayerReport]) -> PartReport:
    mine, layers = part.report, list(layers)
    return PartReport(
        part.name,
        type(part.submodule.module).__name__,
        part.path,
        part.reason,
        part.submodule.count,
        len(layers),
        sum(row.precision.startswith("int8") for row in layers),
        mine.float_ms,
        mine.fast_ms,
        mine.sqnr_db if part.path == "graph" else None,
    )
