"""leave_out_zeros: float layers that are mostly zero, on sparse kernels where those win."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastinfer.compress.quantize.precision import SPARSE_FLOAT, is_ignored
from fastinfer.compress.quantize.report_rows import layer_row
from fastinfer.config import Config
from fastinfer.graph.layer import Layer
from fastinfer.lower.lowerings import lower_layer
from fastinfer.program import LayerPlan, Program
from fastinfer.tune.choose import NOISE, is_nhwc, layer_inputs, race_ms, shapes_of

#: Seconds for all timings of one model; layers not reached stay dense.
BUDGET_S = 3.0
#: With fewer zeros dense kernels are faster (docs/sparsity.md), so nothing is timed.
LEAST_ZEROS = 0.4
#: Smaller weights are not worth a timing; in larger ones an entry's number may not fit int32.
LEAST_WEIGHTS, MOST_WEIGHTS = 4096, 2**31


def leave_out_zeros(program: Program, config: Config, inputs: Sequence[Any]) -> Program:
    """Return the program with float layers planned as sparse ones where these are faster here.

    inputs: the graph's flat inputs of the example. The report's rows get the times. Layers named in
    `ignore` stay as they are.
    """
    candidates = mostly_zero(
        {
            name: program.graph_module.get_submodule(name)
            for name, plan in program.plan.items()
            if plan.precision == "fp32" and not is_ignored(name, config)
        }
    )
    if not candidates:
        return program
    times = sparse_times(candidates, shapes_of(program, inputs))
    chosen = {name: replace(program.plan[name], precision=SPARSE_FLOAT) for name in times}
    program = program.with_plan({**program.plan, **chosen})
    rows = program.report.layers
    for i, row in enumerate(rows):
        if row.name in times:
            made = layer_row(row.name, candidates[row.name], SPARSE_FLOAT, row.reason)
            float_ms, fast_ms = times[row.name]
            rows[i] = replace(made, float_ms=float_ms, fast_ms=fast_ms, sqnr_db=row.sqnr_db)
    return program


def mostly_zero(layers: Mapping[str, nn.Module]) -> dict[str, Layer]:
    """Return the layers that may be worth a timing, by name."""
    return {
        name: layer
        for name, layer in layers.items()
        if isinstance(layer, Layer) and _is_mostly_zero(layer.weight)
    }


def sparse_times(
    layers: Mapping[str, Layer], shapes: Mapping[str, Sequence[tuple[int, ...]]]
) -> dict[str, tuple[float, float]]:
    """Return (dense, sparse) milliseconds of the layers that are faster sparse, by name.

    layers: of `mostly_zero`. shapes: of each one's inputs; one that did not run has none. Layers
    that BUDGET_S does not reach are not timed.
    """
    found: dict[str, tuple[float, float]] = {}
    start = time.perf_counter()
    for name, layer in layers.items():
        seen = shapes.get(name, ())
        if not _is_served(layer, seen):
            continue
        if time.perf_counter() - start > BUDGET_S:
            break
        xs = layer_inputs(layer, seen)
        sparse = lower_layer(layer, LayerPlan(SPARSE_FLOAT))
        with torch.inference_mode():
            float_ms, fast_ms = race_ms(partial(layer, *xs), partial(sparse, *xs), 0.02)
        if fast_ms * NOISE < float_ms:
            found[name] = float_ms, fast_ms
    return found


def _is_mostly_zero(weight: Tensor) -> bool:
    """Return True where a weight is float32, on a CPU, contiguous, and mostly zero.

    Filters of models in channels_last are not: their neighbours expect answers in it.
    """
    if weight.dtype != torch.float32 or weight.device.type != "cpu" or is_nhwc(weight):
        return False
    if not LEAST_WEIGHTS <= weight.numel() < MOST_WEIGHTS:
        return False
    return int(torch.count_nonzero(weight)) <= (1 - LEAST_ZEROS) * weight.numel()


def _is_served(layer: Layer, shapes: Sequence[tuple[int, ...]]) -> bool:
    """Return True where the layer ran, on an input that is not empty and has a batch."""
    dims = {"linear": 1, "conv1d": 3, "conv2d": 4}[layer.spec.kind]
    return bool(shapes) and 0 not in shapes[0] and len(shapes[0]) >= dims
