"""`benchmark`: models on the same inputs, checked, judged, then timed side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch.utils import _pytree as pytree

from fastinfer.measure.call import batch_size, evaluating
from fastinfer.measure.latency import Timing, device_of, fixed_threads, time_interleaved
from fastinfer.measure.memory import model_bytes, peak_bytes
from fastinfer.report_text import format_table, mebibytes
from fastinfer.types.call import call, tensors_of


@dataclass(frozen=True)
class BenchmarkRow:
    """One model. `ratio` is the first model's median divided by this one's: above 1 is faster.

    `samples_per_s` counts the first dimension of the first input; `peak_bytes` is what one call
    allocates beyond the model's own `model_bytes`. `accuracy` is what `evaluate` said, if asked.
    """

    name: str
    timing: Timing
    samples_per_s: float
    ratio: float
    model_bytes: int
    peak_bytes: int | None
    accuracy: float | None = None


@dataclass(frozen=True)
class BenchmarkTable:
    """The rows in the order given, and the torch threads they ran with."""

    rows: tuple[BenchmarkRow, ...]
    threads: int

    def __getitem__(self, name: str) -> BenchmarkRow:
        """Return the row of a model."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Return the table as JSON-able data."""
        return {"threads": self.threads, "rows": [asdict(row) for row in self.rows]}

    def __str__(self) -> str:
        """Return a table for people."""
        headers = ["model", "median ms", "p20", "p80", "runs", "samples/s", "ratio"]
        headers += ["weights", "peak of a call"]
        judged = any(row.accuracy is not None for row in self.rows)
        headers += ["accuracy"] * judged
        cells = [
            [
                row.name,
                f"{row.timing.median_ms:.3f}",
                f"{row.timing.p20_ms:.3f}",
                f"{row.timing.p80_ms:.3f}",
                str(row.timing.runs),
                f"{row.samples_per_s:.1f}",
                f"{row.ratio:.2f}x",
                mebibytes(row.model_bytes),
                mebibytes(row.peak_bytes),
                *([_figure(row.accuracy)] * judged),
            ]
            for row in self.rows
        ]
        return format_table(headers, cells, title=f"{self.threads} threads, interleaved runs")


def benchmark(
    models: Mapping[str, Callable[..., Any]],
    inputs: Any,
    *,
    threads: int | None = None,
    min_time_s: float = 1.0,
    evaluate: Callable[[Any], float] | None = None,
) -> BenchmarkTable:
    """Return latency, throughput, memory, accuracy and ratio to the first of several models.

        print(fastinfer.benchmark({"before": model, "after": fast}, x, evaluate=top1))

    Every model answers once first: all must return the first one's structure and shapes, finite
    where the first is finite. Modules run in eval mode and get their mode back.

    Args:
        models: modules or callables by name; the first is what the others are compared with.
        inputs: a tensor, a tuple or list of positional arguments, or a dict of keyword ones.
        threads: torch threads while timing (restored afterwards); None leaves them.
        min_time_s: seconds per model, on average.
        evaluate: model -> figure, as for `convert`; called once for each model, in eval mode and
            before any is timed. None: no figure.

    Raises:
        TypeError: models is not a mapping of callables, evaluate is no function or returns no
            number.
        ValueError: models is empty, or a model answers in another structure or not finite.
        RuntimeError: a model raised; the text names it.
    """
    if not isinstance(models, Mapping) or not all(callable(m) for m in models.values()):
        raise TypeError('benchmark: expected models {"name": model, ...}, got ' + repr(models))
    if not models:
        raise ValueError("benchmark: expected at least one model, got none")
    if evaluate is not None and not callable(evaluate):
        raise TypeError(f"benchmark: evaluate: expected a function of a model, got {evaluate!r}")
    runs = {name: partial(call, model, inputs) for name, model in models.items()}
    with evaluating(*models.values()), torch.inference_mode(), fixed_threads(threads) as count:
        _check_answers(runs)
        figures = {
            name: None if evaluate is None else _judged(name, model, evaluate)
            for name, model in models.items()
        }
        device = device_of(tensors_of(inputs))
        timings = time_interleaved(runs, min_time_s=min_time_s, device=device)
        peaks = {name: peak_bytes(run) for name, run in runs.items()}
    first = next(iter(timings.values())).median_ms
    samples = batch_size(inputs)
    rows = tuple(
        BenchmarkRow(
            name=name,
            timing=timing,
            samples_per_s=1e3 * samples / timing.median_ms,
            ratio=first / timing.median_ms,
            model_bytes=model_bytes(models[name]),
            peak_bytes=peaks[name],
            accuracy=figures[name],
        )
        for name, timing in timings.items()
    )
    return BenchmarkTable(rows, count)


def _judged(name: str, model: Any, evaluate: Callable[[Any], float]) -> float:
    """Return evaluate's figure of a model as a float."""
    try:
        figure = evaluate(model)
    except Exception as error:
        raise RuntimeError(
            f"benchmark: evaluate failed on model {name!r}: {type(error).__name__}: {error}"
        ) from error
    try:
        return float(figure)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"benchmark: evaluate: expected a number for model {name!r}, got {figure!r}"
        ) from error


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _check_answers(runs: Mapping[str, Callable[[], Any]]) -> None:
    """Run each once and compare structure, shapes and finiteness with the first."""
    wanted: tuple[list[Any], pytree.TreeSpec] | None = None
    for name, run in runs.items():
        try:
            answer = run()
        except Exception as error:
            raise RuntimeError(
                f"benchmark: model {name!r} failed on the inputs: {type(error).__name__}: {error}"
            ) from error
        got = pytree.tree_flatten(answer)
        if wanted is None:
            wanted = got
            continue
        if got[1] != wanted[1]:
            raise ValueError(
                f"benchmark: model {name!r}: expected the first model's output structure "
                f"{wanted[1]}, got {got[1]}"
            )
        for want, have in zip(wanted[0], got[0], strict=True):
            _check_leaf(name, want, have)


def _check_leaf(name: str, want: Any, have: Any) -> None:
    if not isinstance(want, torch.Tensor) or not isinstance(have, torch.Tensor):
        return
    if want.shape != have.shape:
        raise ValueError(
            f"benchmark: model {name!r}: expected an output {list(want.shape)} like the first "
            f"model's, got {list(have.shape)}"
        )
    if not bool((torch.isfinite(have) | ~torch.isfinite(want)).all()):
        raise ValueError(
            f"benchmark: model {name!r}: expected finite outputs where the first model's are, "
            "got inf or nan"
        )
