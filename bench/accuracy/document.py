"""Puts the tables of bench_accuracy's JSON into docs/accuracy.md.

    PYTHONPATH=.:bench python -m accuracy.document RESULTS.json docs/accuracy.md

A table stands under a task's heading and picture, and ends with the next blank line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

#: Task -> its heading in the document, and its figures in the table.
TASKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mobilenet": ("MobileNetV2", ("sqnr_db", "agreement")),
    "minilm": ("MiniLM", ("accuracy", "cosine", "cosine_other_text")),
    "crepe": ("CREPE", ("within_50_cents", "agreement", "sqnr_db")),
    "digits": ("ResNet on digits", ("accuracy", "sqnr_db")),
    "movielens": ("MovieLens-100k", ("rmse", "sqnr_db")),
}
#: Figure -> title, factor, digits, unit behind the cell.
FIGURES = {
    "sqnr_db": ("SQNR, dB", 1, 1, ""),
    "agreement": ("as float", 100, 2, " %"),
    "accuracy": ("accuracy", 100, 2, " %"),
    "cosine": ("cosine", 1, 3, ""),
    "cosine_other_text": ("cosine, docstrings", 1, 3, ""),
    "within_50_cents": ("within 50 cents", 100, 2, " %"),
    "rmse": ("RMSE", 1, 4, ""),
}


def table(cells: Sequence[Row], timings: Sequence[Row], figures: Sequence[str]) -> list[str]:
    """Return a task's table in Markdown; two figures in a cell are float / int8."""
    threads = timings[0]["threads"]
    speed = {
        row["network"]: row["vs dense int8"]
        for row in reversed(timings)
        if row["isa"] != "torch" and row["threads"] == threads
    }
    titles = [FIGURES[name][0] for name in figures]
    heads = ["", "zeros", "method", *titles, "× dense int8", "file MB, zipped"]
    lines = [f"| {' | '.join(heads)} |".replace("|  |", "| |"), "| --- " * len(heads) + "|"]
    for cell in cells:
        share = f"{100 * cell['sparsity']:g} %"
        name = cell["pattern"]
        network = name if name == "dense" else f"{name} {share.replace(' ', '')}"
        values = [name, share, cell["method"], *(_figure(cell, figure) for figure in figures)]
        values.append(f"{speed[network]:.2f}" if network in speed else "-")
        values.append(f"{cell['int8_zipped_bytes'] / 2**20:.2f}")
        lines.append(f"| {' | '.join(values)} |")
    return lines


def _figure(cell: Row, name: str) -> str:
    _, factor, digits, unit = FIGURES[name]
    values = [cell[kind][name]["value"] for kind in ("float", "int8")]
    shown = [f"{factor * value:.{digits}f}" for value in values if value is not None]
    return " / ".join(shown) + unit


def with_tables(text: str, results: Mapping[str, Any]) -> str:
    """Return the document with every task's table replaced.

    Raises:
        ValueError: a task has no heading with a picture and a table.
    """
    lines = text.split("\n")
    for task, (heading, figures) in TASKS.items():
        cells = [row for row in results["cells"] if row["task"] == task]
        timings = [row for row in results["timings"] if row["task"] == task]
        start = next((i for i, x in enumerate(lines) if x.startswith(f"### {heading}")), None)
        if start is None:
            raise ValueError(f"document: expected a heading '### {heading}' for task {task!r}")
        first = next(i for i in range(start, len(lines)) if lines[i].startswith("|"))
        end = next(i for i in range(first, len(lines)) if not lines[i].startswith("|"))
        lines[first:end] = table(cells, timings, figures)
    return "\n".join(lines)


def main() -> None:
    results, document = Path(sys.argv[1]), Path(sys.argv[2])
    found = json.loads(results.read_text(encoding="utf-8"))
    text = document.read_text(encoding="utf-8")
    document.write_text(with_tables(text, found), encoding="utf-8")


if __name__ == "__main__":
    main()
