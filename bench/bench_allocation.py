"""The same sparsity for all layers against sparsities of their own, on real tasks.

python bench/bench_allocation.py --tasks mobilenet minilm: needs requirements-accuracy.txt, as
bench_accuracy.py does. Figures are of the float pruned network, on samples that neither
calibrated nor chose anything; "chosen" is what the held-out calibration batches decided for.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from harness import show, write_json
from tasks import TASKS, Task, load_task

import fastinfer


def measured(task: Task, pattern: str, sparsity: float, method: str) -> list[dict[str, Any]]:
    """Return a row for each allocation."""
    rows = []
    for allocation in ("uniform", "error"):
        start = time.process_time()
        pruned = fastinfer.prune(
            task.build(),
            task.example_inputs(),
            pattern=pattern,
            sparsity=sparsity,
            method=method,
            calibration=task.calibration(),
            allocation=allocation,
        )
        seconds = time.process_time() - start
        report = fastinfer.pruning_report(pruned)
        row = {
            "task": task.name,
            "pattern": pattern,
            "zeros %": 100 * sparsity,
            "method": method,
            "allocation": allocation,
            "cpu s": seconds,
        }
        row |= {name: figure.value for name, figure in task.evaluate(pruned).items()}
        row["chosen"] = allocation
        if report.allocation is not None:
            row["chosen"] = report.allocation.chosen
            row |= {f"held out: {n}": e for n, e in report.allocation.contenders.items()}
        print(row, flush=True)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", choices=tuple(TASKS), nargs="+", default=["mobilenet", "minilm"])
    parser.add_argument("--patterns", nargs="+", default=["nm64", "nm64x2"])
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.5, 0.75])
    parser.add_argument("--methods", nargs="+", default=["obs"])
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [
        row
        for name in options.tasks
        for pattern in options.patterns
        for sparsity in options.sparsities
        for method in options.methods
        for row in measured(load_task(name), pattern, sparsity, method)
    ]
    for name in options.tasks:
        show(load_task(name).title, [row for row in rows if row["task"] == name])
    write_json(options.out, rows=rows)


if __name__ == "__main__":
    main()
