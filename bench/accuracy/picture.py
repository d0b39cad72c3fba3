"""The Pareto plot of a task: how fast against how accurate, a panel for each method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks import Task

from accuracy.cells import DENSE, METHODS, PATTERNS, Cell
from fastinfer.report_plot import new_figure

COLORS = dict(zip(PATTERNS, ("#1f6fb4", "#d08770", "#5c9f6a", "#8e6bb0", "#c2a03a"), strict=True))
MARKERS = {0.5: "o", 0.75: "s", 0.875: "^"}
GREY = "#9aa5b1"
#: Figure -> name, factor, and how much worse than dense is drawn at the edge of the picture.
UNITS = {
    "accuracy": ("accuracy, %", 100.0, 10.0),
    "within_50_cents": ("frames within 50 cents, %", 100.0, 20.0),
    "rmse": ("RMSE, stars", 1.0, 0.06),
    "sqnr_db": ("SQNR against float, dB", 1.0, 20.0),
}
Row = dict[str, Any]


def plot_task(task: Task, rows: Sequence[Row], timings: Sequence[Row], stem: Path) -> Path:
    """Write `<stem>_<task>.png` and return its path.

    Args:
        task: for its headline figure.
        rows: results of cells, the dense one among them.
        timings: rows of `time_task`; the first number of threads counts.
        stem: path without suffix.
    """
    label, factor, depth = UNITS[task.headline]
    sign = 1 if task.higher_is_better else -1
    threads = timings[0]["threads"]
    speed = {
        t["network"]: t["vs float"]
        for t in reversed(timings)
        if t["isa"] != "torch" and t["threads"] == threads
    }
    points = [
        (Cell(r["pattern"], r["sparsity"], r["method"]), _value(r, task.headline, factor))
        for r in rows
    ]
    dense = next(value for cell, value in points if cell == DENSE)
    samples = rows[0]["int8"][task.headline]["samples"]
    edge = dense - sign * depth
    drawn = [(c, v, speed[c.label]) for c, v in points if c.label in speed]
    front = pareto_front([(x, v) for _, v, x in drawn if sign * (v - edge) > 0], sign)
    methods = [m for m in METHODS if any(c.method == m for c, _, _ in drawn)]
    figure, axes = new_figure(
        3.1 * len(methods) + 0.8, 4.4, ncols=len(methods), squeeze=False, sharex=True, sharey=True
    )
    for panel, method in zip(axes[0], methods, strict=True):
        panel.plot(*zip(*front, strict=True), color=GREY, linewidth=5, alpha=0.35, zorder=1)
        panel.axhline(dense, color="black", linewidth=0.8, linestyle=":", zorder=1)
        panel.plot([speed[DENSE.label]], [dense], "*", color="black", markersize=11, zorder=4)
        for pattern in PATTERNS:
            line = sorted(
                (c.sparsity, x, v)
                for c, v, x in drawn
                if (c.pattern, c.method) == (pattern, method)
            )
            _draw(panel, line, COLORS[pattern], edge, sign)
        panel.set_title(method, fontsize=10)
        panel.set_xlabel("times as fast as float")
        panel.grid(alpha=0.25)
    axes[0][0].set_ylabel(f"{label}\n({samples:,} samples, sparse and int8)")
    if sign < 0:
        axes[0][0].invert_yaxis()
    figure.legend(handles=_legend(points), loc="outside lower center", ncols=5, fontsize=8)
    how = f"batch {task.timed_batch}, {threads} thread{'s' * (threads > 1)}, AVX-512 VNNI"
    figure.suptitle(f"{task.title}: {how}", fontsize=11)
    path = stem.with_name(f"{stem.name}_{task.name}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _value(row: Row, figure: str, factor: float) -> float:
    value = row["int8"][figure]["value"]
    return float("nan") if value is None else factor * value


def pareto_front(points: list[tuple[float, float]], sign: int) -> list[tuple[float, float]]:
    """Return the points that no other beats in both, by speed."""
    found: list[tuple[float, float]] = []
    for x, v in sorted(points, reverse=True):
        if not found or sign * v > sign * found[-1][1]:
            found.append((x, v))
    return found[::-1]


def _draw(
    panel: Any, line: list[tuple[float, float, float]], color: str, edge: float, sign: int
) -> None:
    """Draw one pattern's sparsities; what lies beyond the edge is hollow, on it."""
    if not line:
        return
    shown = [max(v, edge) if sign > 0 else min(v, edge) for _, _, v in line]
    panel.plot([x for _, x, _ in line], shown, color=color, linewidth=1, alpha=0.7, zorder=2)
    for (sparsity, x, value), y in zip(line, shown, strict=True):
        inside = y == value
        panel.plot(
            [x], [y], MARKERS.get(sparsity, "D"), color=color, markersize=6, zorder=3,
            markerfacecolor=color if inside else "white",
        )  # fmt: skip


def _legend(points: list[tuple[Cell, float]]) -> list[Any]:
    from matplotlib.lines import Line2D

    patterns = [p for p in PATTERNS if any(c.pattern == p for c, _ in points)]
    handles = [Line2D([], [], color=COLORS[p], linewidth=3, label=p) for p in patterns]
    handles += [
        Line2D([], [], color="black", marker=m, linestyle="", label=f"{100 * s:g} % zeros")
        for s, m in MARKERS.items()
    ]
    handles.append(Line2D([], [], color="black", marker="*", linestyle="", label="dense int8"))
    handles.append(Line2D([], [], color=GREY, linewidth=5, alpha=0.35, label="best of all"))
    handles.append(
        Line2D([], [], color="black", marker="o", markerfacecolor="white", linestyle="",
               label="worse than shown")
    )  # fmt: skip
    return handles
