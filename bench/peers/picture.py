"""The picture of bench_peers: how much faster ours is than each int8 tool and than eager."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastinfer.report_plot import new_figure
from peers.contenders import EAGER, OPENVINO_INT8

SHOWN = {EAGER: "#9aa5b1", "ort int8": "#d08770", OPENVINO_INT8: "#1f6fb4"}


def plot_ratios(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write bars of fastinfer's speed over the others', one group for each case, log scale."""
    timed = [row for row in rows if row.get("ours_vs") is not None]
    cases = list(dict.fromkeys((r["model"], r["batch"], r["threads"]) for r in timed))
    figure, axes = new_figure(10.0, 1.2 + 0.55 * len(cases))
    height = 0.8 / len(SHOWN)
    for offset, (contender, color) in enumerate(SHOWN.items()):
        for place, case in enumerate(cases):
            found = [
                r["ours_vs"]
                for r in timed
                if r["contender"] == contender and (r["model"], r["batch"], r["threads"]) == case
            ]
            if not found:
                continue
            y = place + (offset - 1) * height
            axes.barh(y, found[0], height, color=color, label=None if place else contender)
            axes.annotate(f" {found[0]:.2f}", (found[0], y), va="center", fontsize=7)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    axes.set_yticks(
        range(len(cases)), [f"{m}, batch {b}, {t} thread{'s' * (t > 1)}" for m, b, t in cases]
    )
    axes.invert_yaxis()
    axes.set_xlabel("times faster than (above 1: fastinfer wins)")
    axes.legend(loc="lower right")
    figure.savefig(path)
