"""Pruned networks on real tasks: accuracy, latency, size: make bench-accuracy.

Each cell (task, pattern, sparsity, method) is kept in build/tasks/accuracy as soon as it is there;
a second call goes on where the first was stopped. `--fresh` begins again, for code that changed.
Accuracy is on samples that neither calibrated nor chose anything; how many is in the table.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from accuracy.cells import (
    DENSE,
    METHODS,
    PATTERNS,
    SPARSITIES,
    Cell,
    CellStore,
    cells_of,
)
from accuracy.picture import plot_task
from accuracy.timing import time_task
from accuracy.work import run_cell
from harness import results_path, show, write_json
from tasks import TASKS, load_task

from fastinfer import UnsupportedError

#: crepe-full on request: its cells take minutes each.
DEFAULT_TASKS = tuple(name for name in TASKS if name != "crepe-full")
QUICK = {"tasks": ["movielens", "crepe"], "patterns": ["nm64x2"], "sparsities": [0.75]}
Row = dict[str, Any]


def run_cells(name: str, cells: list[Cell], deadline: float) -> list[Row]:
    """Return the results of a task's cells that are there when the time is over."""
    store, task = CellStore(name), load_task(name)
    found: list[Row] = []
    left = 0
    for cell in cells:
        result = store.read(cell)
        if result is None:
            if time.monotonic() > deadline:
                left += 1
                continue
            try:
                result = run_cell(task, cell, store)
            except UnsupportedError as error:  # a pattern that this task cannot have
                print(f"{name}: {cell.label} {cell.method}: {error}", flush=True)
                continue
            print(f"{name}: {cell.label} {cell.method}: {headline(result, task.headline)}, "
                  f"{result['cell_s']:.0f} s", flush=True)  # fmt: skip
        found.append({"task": name, **result})
    if left:
        print(f"{name}: {left} cells left; call again to go on", flush=True)
    return found


def headline(result: Row, figure: str) -> str:
    """Return the figure in float and int8, for the log."""
    return ", ".join(
        f"{kind} {number(result[kind][figure]['value'])}" for kind in ("float", "int8")
    )


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def timed_cells(cells: list[Cell], rows: list[Row]) -> list[Cell]:
    """Return DENSE and one cell of each pattern and sparsity that was saved.

    Which method chose the zeros makes no difference to speed, as far as a pattern says where they
    are; of unstructured ones OBS's are timed where they are there.
    """
    done = {(row["pattern"], row["sparsity"], row["method"]) for row in rows}
    best: dict[tuple[str, float], Cell] = {}
    for cell in cells:
        if (cell.pattern, cell.sparsity, cell.method) in done:
            best[cell.pattern, cell.sparsity] = cell
    return list(best.values())


def table(name: str, rows: list[Row], timings: list[Row]) -> list[Row]:
    """Return a line per cell for people."""
    speed = {row["network"]: row for row in reversed(timings) if row["isa"] != "torch"}
    lines = []
    for row in rows:
        cell = Cell(row["pattern"], row["sparsity"], row["method"])
        timing = speed.get(cell.label, {})
        line = {"task": name, "pattern": cell.label, "method": row["method"]}
        for figure, entry in row["float"].items():
            line[f"{figure} float"] = entry["value"]
            line[f"{figure} int8"] = row["int8"][figure]["value"]
        line |= {
            "ms": timing.get("median_ms"),
            "vs float": timing.get("vs float"),
            "vs dense int8": timing.get("vs dense int8"),
            "file MB": row["int8_bytes"] / 2**20,
            "zipped MB": row["int8_zipped_bytes"] / 2**20,
        }
        lines.append(line)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", choices=tuple(TASKS), nargs="+", default=list(DEFAULT_TASKS))
    parser.add_argument("--patterns", choices=PATTERNS, nargs="+", default=list(PATTERNS))
    parser.add_argument("--sparsities", type=float, nargs="+", default=list(SPARSITIES))
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=list(METHODS))
    parser.add_argument("--quick", action="store_true", help=f"a few minutes: {QUICK}")
    parser.add_argument("--threads", type=int, default=1, help="of torch, in all that is done")
    parser.add_argument("--timed-threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=0.5, help="of timing per network")
    parser.add_argument(
        "--minutes", type=float, help="begin no cell after them; call again to go on"
    )
    parser.add_argument("--no-timing", action="store_true")
    parser.add_argument("--fresh", action="store_true", help="forget the cells of these tasks")
    parser.add_argument("--out", type=Path, help="default: in bench/results, when all cells ran")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    torch.set_num_threads(options.threads)
    deadline = time.monotonic() + 60 * (options.minutes or float("inf"))
    cells = cells_of(options.patterns, options.sparsities, options.methods)
    is_all = set(DEFAULT_TASKS) <= set(options.tasks) and cells == cells_of(
        PATTERNS, SPARSITIES, METHODS
    )
    if options.out is None and is_all and not options.minutes:
        options.out = results_path("bench_accuracy")
    results: list[Row] = []
    timings: list[Row] = []
    for name in options.tasks:
        store = CellStore(name)
        if options.fresh:
            shutil.rmtree(store.folder, ignore_errors=True)
        rows = run_cells(name, cells, deadline)
        results += rows
        timed: list[Row] = []
        if not options.no_timing and rows and rows[0]["pattern"] == DENSE.pattern:
            for threads in options.timed_threads:
                timed += time_task(
                    load_task(name), timed_cells(cells, rows), store, threads, options.seconds
                )
            timings += timed
        show(load_task(name).title, table(name, rows, timed))
        if options.out is not None and timed:
            plot_task(load_task(name), rows, timed, options.out.with_suffix(""))
    write_json(options.out, cells=results, timings=timings)


if __name__ == "__main__":
    main()
