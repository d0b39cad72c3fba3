"""Latency of one call: the dense network in float and int8, and every pattern, in turns.

A saved network is packed when it is loaded, for the instruction set in force. Where there is AMX
dense kernels are so fast that sparse ones are not chosen, so all is timed with AVX-512 VNNI, and
dense int8 with AMX once more, beside float.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from tasks import Task
from torch import nn

import fastinfer
from accuracy.cells import DENSE, Cell, CellStore
from fastinfer import runtime
from fastinfer.measure import time_interleaved
from fastinfer.types.call import call

#: The set whose sparse kernels are the fast ones.
SPARSE_ISA = "avx512vnni"


def time_task(
    task: Task, cells: list[Cell], store: CellStore, threads: int, seconds: float
) -> list[dict[str, Any]]:
    """Return a row for float and for each int8 network: median ms, and times as fast as dense.

    Args:
        task: whose networks.
        cells: `DENSE` and one of each pattern and sparsity; each has been saved.
        store: where they are.
        threads: torch threads.
        seconds: per network and run.
    """
    native = runtime.isa()
    sets = [SPARSE_ISA] if SPARSE_ISA in runtime.supported_isas() else []
    rows: list[dict[str, Any]] = []
    try:
        for isa in dict.fromkeys([*sets, native]):
            runtime.set_isa(isa)
            chosen = cells if isa == SPARSE_ISA or not sets else [DENSE]
            rows += _rows(task, chosen, store, isa, threads, seconds)
    finally:
        runtime.set_isa(native)
    return rows


def _rows(
    task: Task, cells: list[Cell], store: CellStore, isa: str, threads: int, seconds: float
) -> list[dict[str, Any]]:
    load = os.getloadavg()[0]  # long calls lose more than short ones to other busy processes
    models: dict[str, nn.Module] = {"float": task.build()}
    for cell in cells:
        models[cell.label] = fastinfer.load(store.path(cell, ".fastinfer"))
    inputs = task.timed_inputs()
    calls: dict[str, Callable[[], object]] = {
        name: partial(call, model, inputs) for name, model in models.items()
    }
    with torch.inference_mode():
        timed = time_interleaved(calls, min_time_s=seconds, threads=threads)
    base, dense = timed["float"].median_ms, timed[DENSE.label].median_ms
    return [
        {
            "task": task.name,
            "network": name,
            "isa": "torch" if name == "float" else isa,
            "threads": threads,
            "batch": task.timed_batch,
            "load": round(load, 1),
            **timing.to_dict(),
            "vs float": base / timing.median_ms,
            "vs dense int8": dense / timing.median_ms,
            "packed_bytes": held_bytes(models[name]),
        }
        for name, timing in timed.items()
    ]


def held_bytes(model: nn.Module) -> int:
    """Return the bytes of all parameters and buffers, packed weights among them."""
    unique = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return sum(t.numel() * t.element_size() for t in unique.values())
