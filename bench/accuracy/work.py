"""One cell: prune, judge in float, convert to int8, judge that, save it."""

from __future__ import annotations

import time
import zlib
from dataclasses import asdict
from typing import Any

import torch
from harness import machine_facts
from safetensors.torch import load_file, save_file
from tasks import Figure, Task
from torch import nn

import fastinfer
from accuracy.cells import CHANNEL, DENSE, DISTILLED, MAGNITUDE, OBS, Cell, CellStore

#: Calibration samples of int8, in batches; ranges need fewer than Gram matrices.
INT8_BATCHES = 4
#: How each task distils: on `Task.distillation`; the best weights are chosen on "choosing".
DISTILLATION: dict[str, dict[str, Any]] = {
    "mobilenet": {"epochs": 2, "lr": 2e-4, "batch_norm": "freeze", "evaluate_every": 20},
    "minilm": {"epochs": 1, "lr": 2e-4, "evaluate_every": 40, "precision": "bf16"},
    "movielens": {"epochs": 2, "lr": 1e-3},
    "crepe": {"epochs": 6, "lr": 5e-4},
    "crepe-full": {"epochs": 1, "lr": 2e-4},
    "digits": {"epochs": 3, "lr": 5e-4},
}


def run_cell(task: Task, cell: Cell, store: CellStore) -> dict[str, Any]:
    """Return and keep what a cell measured: figures in float and int8, bytes, seconds."""
    start = time.perf_counter()
    model, result = pruned_model(task, cell, store)
    result |= {**asdict(cell), "zeros": share_of_zeros(model)}
    result["float"] = plain(task.evaluate(model))
    fast = fastinfer.convert(
        model,
        task.example_inputs(),
        config="int8",
        calibration=task.calibration()[:INT8_BATCHES],
    )
    report = fastinfer.report(fast)
    result["int8"] = plain(task.evaluate(fast))
    result["int8_layers"] = sum(row.precision.startswith("int8") for row in report.layers)
    result["layers"] = len(report.layers)
    path = store.path(cell, ".fastinfer")
    fastinfer.save(fast, path)
    data = path.read_bytes()
    result["float_bytes"] = sum(p.numel() * p.element_size() for p in model.state_dict().values())
    result["int8_bytes"] = len(data)
    result["int8_zipped_bytes"] = len(zlib.compress(data, 6))
    result["commit"] = machine_facts()["commit"]
    result["cell_s"] = time.perf_counter() - start
    store.write(cell, result)
    return result


def pruned_model(task: Task, cell: Cell, store: CellStore) -> tuple[nn.Module, dict[str, Any]]:
    """Return the float network of a cell, and what making it took."""
    dense = task.build()
    if cell == DENSE:
        return dense, {}
    if cell.method == DISTILLED:
        return distilled_model(task, cell, store, dense)
    if cell.pattern == CHANNEL:
        return without_channels(task, cell, dense)
    weights = store.path(cell, ".safetensors")
    if weights.exists():
        dense.load_state_dict(load_file(weights))
        return dense, {}
    start = time.perf_counter(), time.process_time()
    pruned = fastinfer.prune(
        dense,
        task.example_inputs(),
        pattern=cell.pattern,
        sparsity=cell.sparsity,
        method=cell.method,
        calibration=None if cell.method == MAGNITUDE else task.calibration(),
    )
    seconds = took("prune", start)
    report = fastinfer.pruning_report(pruned)
    if cell.method == OBS:  # distillation begins with it
        save_file({k: v.contiguous() for k, v in pruned.state_dict().items()}, weights)
    return pruned, {**seconds, "prune_peak_bytes": report.peak_bytes}


def without_channels(task: Task, cell: Cell, dense: nn.Module) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network with fewer channels, and what making it took.

    A smaller network has no zeros; sparsity is the share of parameters that went.
    """
    start = time.perf_counter(), time.process_time()
    by_magnitude = cell.method == MAGNITUDE
    try:
        pruned = fastinfer.prune_channels(
            dense,
            task.example_inputs(),
            sparsity=cell.sparsity,
            importance="magnitude" if by_magnitude else "taylor",
            calibration=None if by_magnitude else task.calibration(),
        )
    except ValueError as error:  # more than its channels hold, as of embeddings
        raise fastinfer.UnsupportedError(str(error)) from error
    return pruned, took("prune", start)


def distilled_model(
    task: Task, cell: Cell, store: CellStore, dense: nn.Module
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the pruned network after distillation from the dense one."""
    student, _ = pruned_model(task, Cell(cell.pattern, cell.sparsity, OBS), store)
    start = time.perf_counter(), time.process_time()
    student = fastinfer.distill(
        student,
        dense,
        task.distillation(),
        held_out=list(task.batches("choosing")),
        checkpoint=store.path(cell, ".checkpoint"),
        progress=False,
        **DISTILLATION[task.name],
    )
    return student.eval(), took("distill", start)


def took(what: str, since: tuple[float, float]) -> dict[str, float]:
    """Return seconds by the clock and of this process's CPU: others may be busy beside it."""
    return {
        f"{what}_s": time.perf_counter() - since[0],
        f"{what}_cpu_s": time.process_time() - since[1],
    }


def share_of_zeros(model: nn.Module) -> float:
    """Return the share of parameters that are zero, of all the network's."""
    values = [p.detach() for p in model.parameters()]
    zeros = sum(int((p == 0).sum()) for p in values)
    return zeros / sum(p.numel() for p in values)


def plain(figures: dict[str, Figure]) -> dict[str, dict[str, float]]:
    """Return figures for JSON; infinite ones, of a network against itself, become None."""
    return {
        name: {
            "value": figure.value if torch.tensor(figure.value).isfinite() else None,
            "samples": figure.samples,
        }
        for name, figure in figures.items()
    }
