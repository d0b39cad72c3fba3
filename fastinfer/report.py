"""What `convert` did, as data: `Report` and its rows."""

from __future__ import annotations

import json
import os
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastinfer.report_profile import Profile

#: Precisions of layers that were not quantized. The zeros of "fp32-sparse" ones are left out.
FLOAT_PRECISIONS = ("fp32", "fp32-sparse", "bf16")


@dataclass(frozen=True)
class LayerReport:
    """One layer: what it became, why, and what that costs and gains.

    Times are milliseconds on the example's shapes; sqnr_db compares with the float layer's output.
    """

    name: str
    kind: str
    geometry: str
    precision: str
    reason: str = ""
    float_ms: float | None = None
    fast_ms: float | None = None
    sqnr_db: float | None = None
    weight_bytes: int = 0
    float_weight_bytes: int = 0


@dataclass(frozen=True)
class RegionReport:
    """A region that runs as one call of the engine.

    part is the submodule it lies in, "" for the whole model. `before` and `after` count the
    operations it gets values from and hands them to that are no steps of the engine: where it
    begins and ends. "input" and "output" are those of the part.
    """

    steps: int
    part: str = ""
    before: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PartReport:
    """A captured submodule of a model that was not captured as a whole.

    It was called `calls` times in the example. path: "graph", or what became of it instead: its
    layers were swapped ("modules") or left as they were ("original"), and the reason. Times are
    those of its calls of different sizes; sqnr_db is its output's.
    """

    name: str
    kind: str
    path: str
    reason: str = ""
    calls: int = 1
    layers: int = 0
    int8_layers: int = 0
    float_ms: float | None = None
    fast_ms: float | None = None
    sqnr_db: float | None = None


@dataclass
class Report:
    """Everything a user may ask about a converted model.

    path: how it was converted: as one "graph", by "submodules", layer by layer ("modules"), or not
    ("original"). between_int8 of the between_total operations between layers that have an int8
    form run in it.
    """

    path: str = ""
    layers: list[LayerReport] = field(default_factory=list)
    between_total: int = 0
    between_int8: int = 0
    notes: list[str] = field(default_factory=list)
    passes: dict[str, int] = field(default_factory=dict)
    regions: list[RegionReport] = field(default_factory=list)
    #: Captured submodules, where the whole model was not.
    parts: list[PartReport] = field(default_factory=list)
    #: Why the whole ("") and which submodules have no graph.
    uncaptured: dict[str, str] = field(default_factory=dict)
    float_ms: float | None = None
    fast_ms: float | None = None
    sqnr_db: float | None = None
    convert_s: float | None = None
    #: Seconds of convert's stages, in the order they first ran in.
    stage_s: dict[str, float] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

    # A weak reference to the model, from `report`: no field, and neither saved nor copied.
    _model = None

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_model"}

    @property
    def speedup(self) -> float | None:
        """Original time divided by converted time on the example, or None when not timed."""
        if self.float_ms is None or not self.fast_ms:
            return None
        return self.float_ms / self.fast_ms

    @property
    def fallbacks(self) -> list[LayerReport]:
        """Layers that stayed float, each with its reason."""
        return [row for row in self.layers if row.precision in FLOAT_PRECISIONS]

    def note(self, text: str) -> None:
        """Add a sentence, once."""
        if text not in self.notes:
            self.notes.append(text)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds spent inside to those of a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self.stage_s[stage] = self.stage_s.get(stage, 0.0) + seconds

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able data."""
        return {**asdict(self), "speedup": self.speedup}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Report:
        """Return the report that `to_dict` described.

        Raises:
            ValueError: data is not such a description.
        """
        known = {f.name for f in fields(cls)}
        if not isinstance(data, Mapping) or not isinstance(data.get("layers"), list):
            raise ValueError("Report: expected the data of Report.to_dict(), with a list of layers")
        values = {key: value for key, value in data.items() if key in known}
        try:
            for key, kind in _ROWS.items():
                values[key] = [kind(**row) for row in data.get(key, ())]
        except TypeError as error:
            raise ValueError(
                f"Report: expected the fields of a report's rows, got {error}"
            ) from error
        return cls(**values)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report as JSON."""
        text = json.dumps(self.to_dict(), indent=1, default=str)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Report:
        """Return the report that `save` wrote.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is not a saved report.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"Report: expected JSON in {os.fspath(path)}, got {error}") from error
        return cls.from_dict(data)

    def __str__(self) -> str:
        """Return a table for people."""
        from fastinfer.report_text import render_report

        return render_report(self)

    def profile(self, inputs: Any, *, runs: int = 20) -> Profile:
        """Return what each step of the model's regions costs in a call.

        inputs: as in `fastinfer.benchmark`: a tensor, a tuple or list of positional arguments, or a
        dict of keyword ones. runs: calls, after two that do not count; figures are medians. Threads
        are torch's (`torch.set_num_threads`). Only this thread's calls are measured.

        Raises:
            TypeError: runs is no integer.
            ValueError: runs is below 1; the model does not take the inputs, or has no region that
                runs on them; or this report was loaded from a file.
        """
        from fastinfer.report_profile import profile_model

        model = None if self._model is None else self._model()
        if model is None:
            raise ValueError(
                "profile: expected the report of a model in memory, got one without; call "
                "fastinfer.report(fast).profile(inputs)"
            )
        return profile_model(model, inputs, runs)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Write a picture of the layers' times and errors; the suffix chooses the format."""
        from fastinfer.report_plot import plot_report

        plot_report(self, path)


#: What Report's lists hold.
_ROWS: dict[str, type] = {"layers": LayerReport, "regions": RegionReport, "parts": PartReport}


def report(fast: object) -> Report:
    """Return what `convert` did to make this model.

    Raises:
        TypeError: fast was not returned by `fastinfer.convert`.
    """
    found = getattr(fast, "_report", None)
    if not isinstance(found, Report):
        raise TypeError(
            "report: expected a model returned by fastinfer.convert, "
            f"got {type(fast).__module__}.{type(fast).__qualname__}"
        )
    found._model = weakref.ref(fast)
    return found
