"""The picture of a report: time per layer before and after, and error per layer."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastinfer.report import FLOAT_PRECISIONS, LayerReport, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FLOAT_COLOR, FAST_COLOR, KEPT_COLOR = "#9aa5b1", "#1f6fb4", "#d08770"
#: More layers than this are drawn without their names.
MAX_NAMED_LAYERS = 80


def new_figure(
    width: float, height: float, *, mosaic: Any = None, **subplots: Any
) -> tuple[Any, Any]:
    """Return a figure and its axes (by key for a mosaic), drawn without a display.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot: needs matplotlib: pip install matplotlib") from error
    # A Figure of its own, not pyplot: the user's backend and open figures stay as they are.
    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    if mosaic is not None:
        return figure, figure.subplot_mosaic(mosaic, **subplots)
    return figure, figure.subplots(**subplots)


def plot_report(report: Report, path: str | os.PathLike[str]) -> None:
    """Write the picture of a report to path.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the report has no layers.
    """
    if not report.layers:
        raise ValueError("plot: expected a report with layers, got none")
    timed = any(row.float_ms is not None or row.fast_ms is not None for row in report.layers)
    count = len(report.layers)
    width = min(22.0, max(8.0, 2.5 + 0.19 * count))
    figure, axes = new_figure(width, 7.0 if timed else 4.2, nrows=2 if timed else 1, squeeze=False)
    if timed:
        draw_layer_times(axes[0][0], report.layers)
        name_layers(axes[0][0], [""] * count)
    draw_layer_errors(axes[-1][0], report.layers)
    title = f"{count} layers"
    if report.speedup is not None:
        title += f", {report.speedup:.2f}x faster on the example"
    figure.suptitle(title)
    figure.savefig(path)


def draw_layer_times(axes: Axes, layers: Sequence[LayerReport]) -> None:
    """Draw two bars per layer: milliseconds in float and as converted."""
    places = range(len(layers))
    before = [row.float_ms or 0.0 for row in layers]
    after = [row.fast_ms or 0.0 for row in layers]
    axes.bar([p - 0.2 for p in places], before, 0.4, color=FLOAT_COLOR, label="float")
    axes.bar([p + 0.2 for p in places], after, 0.4, color=FAST_COLOR, label="converted")
    axes.set_ylabel("ms per call")
    axes.set_xlim(-0.7, len(layers) - 0.3)
    _legend_above(axes, max(before + after))
    _tidy(axes)


def draw_layer_errors(axes: Axes, layers: Sequence[LayerReport]) -> None:
    """Draw the SQNR of every layer in dB; layers kept in float have another colour."""
    known = [row.sqnr_db for row in layers if row.sqnr_db is not None and row.sqnr_db < math.inf]
    ceiling = max(known, default=0.0)
    heights = [min(row.sqnr_db if row.sqnr_db is not None else 0.0, ceiling) for row in layers]
    is_kept = [row.precision in FLOAT_PRECISIONS for row in layers]
    colors = [KEPT_COLOR if kept else FAST_COLOR for kept in is_kept]
    axes.bar(range(len(layers)), heights, 0.7, color=colors)
    axes.set_ylabel("SQNR of the layer, dB")
    axes.set_xlim(-0.7, len(layers) - 0.3)
    if any(is_kept):
        axes.bar([0], [0], color=FAST_COLOR, label="converted")
        axes.bar([0], [0], color=KEPT_COLOR, label="kept in float")
        _legend_above(axes, ceiling)
    if not known:
        axes.text(0.5, 0.5, "no error was measured", transform=axes.transAxes, ha="center")
    name_layers(axes, [row.name for row in layers])
    _tidy(axes)


def name_layers(axes: Axes, names: Sequence[str]) -> None:
    """Write the layers' names under their bars, or their numbers when there are too many."""
    if len(names) > MAX_NAMED_LAYERS:
        axes.set_xlabel("layer number")
        return
    axes.set_xticks(range(len(names)), [_short(n) for n in names], rotation=90, fontsize=7)


def _short(name: str, width: int = 28) -> str:
    return name if len(name) <= width else "…" + name[1 - width :]


def _legend_above(axes: Axes, highest: float) -> None:
    """Put the legend in a row above the tallest bar."""
    axes.set_ylim(top=1.18 * (highest or 1.0))
    axes.legend(loc="upper right", frameon=False, ncols=2)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
