"""The demo's picture: latency bars with their ratios, and the error of every layer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastinfer.demo.results import EAGER, FAST, DemoResult
from fastinfer.report_plot import FAST_COLOR, FLOAT_COLOR, draw_layer_errors, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Bars that are longer than this many times eager's are cut, their length written on them.
LONGEST = 2.0


def plot_demo(result: DemoResult, path: str | os.PathLike[str]) -> None:
    """Write the picture of a result to path.

    Raises:
        ImportError: matplotlib is not installed.
    """
    columns = len(result.batches)
    has_layers = bool(result.report.layers)
    height = 8.2 if has_layers else 3.4
    layout = [list(range(columns))] + ([[columns] * columns] if has_layers else [])
    figure, axes = new_figure(
        13.0, height, mosaic=layout, height_ratios=[2, 3] if has_layers else None
    )
    for column, batch in enumerate(result.batches):
        _draw_latency(axes[column], result, batch)
    if has_layers:
        draw_layer_errors(axes[columns], result.report.layers)
    cpu = result.machine.get("cpu", "this CPU")
    figure.suptitle(f"MobileNetV2 with ImageNet weights, {cpu}, {result.threads} threads")
    figure.savefig(path)


def _draw_latency(axes: Axes, result: DemoResult, batch: int) -> None:
    names = [variant.name for variant in result.variants]
    times = [variant.timings[batch].median_ms for variant in result.variants]
    limit = LONGEST * result[EAGER].timings[batch].median_ms
    shown = [min(time, limit) for time in times]
    colors = [FAST_COLOR if name == FAST else FLOAT_COLOR for name in names]
    places = range(len(names))
    axes.barh(places, shown, 0.65, color=colors)
    for place, time, length in zip(places, times, shown, strict=True):
        ratio = times[names.index(EAGER)] / time
        cut = " (bar cut)" if time > limit else ""
        text = f"{_milliseconds(time)}  {ratio:.2f}x{cut}"
        axes.text(length + 0.02 * max(shown), place, text, va="center", fontsize=9)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.75 * max(shown))
    axes.set_xlabel("median ms per call, times faster than eager")
    axes.set_title(f"batch {batch}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _milliseconds(value: float) -> str:
    """Return three significant digits, never in exponent form."""
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"
