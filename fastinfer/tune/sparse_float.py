"""leave_out_zeros: float layers that are mostly zero, on sparse kernels where those win."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastinfer.compress.quantize.precision import is_ignored
from fastinfer.compress.quantize.report_rows import layer_row
from fastinfer.config import Config
from fastinfer.graph.layer import Layer
from fastinfer.lower.lowerings import lower_layer
from fastinfer.program import LayerPlan, Program
from fastinfer.tune.choose import NOISE, layer_inputs, race_ms, shapes_of

#: Seconds for all timings of one model; layers not reached stay dense.
BUDGET_S = 3.0
#: With fewer zeros dense kernels are faster (docs/sparsity.md), so nothing is timed.
LEAST_ZEROS = 0.4
#: Smaller weights are not worth a timing.
LEAST_WEIGHTS = 4096

SPARSE = "fp32-sparse"


def leave_out_zeros(program: Program, config: Config, inputs: Sequence[Any]) -> Program:
    """Return the program with float layers planned as sparse ones where these are faster here.

    inputs: the graph's flat inputs of the example. The report's rows get the times. Layers named in
    `ignore` stay as they are.
    """
    candidates = {
        name: layer
        for name, plan in program.plan.items()
        if plan.precision == "fp32" and not is_ignored(name, config)
        if (layer := mostly_zero(program.graph_module.get_submodule(name))) is not None
    }
    if not candidates:
        return program
    shapes = shapes_of(program, inputs)
    chosen: dict[str, LayerPlan] = {}
    times: dict[str, tuple[float, float]] = {}
    start = time.perf_counter()
    for name, layer in candidates.items():
        if time.perf_counter() - start > BUDGET_S:
            break
        found = sparse_times(layer, shapes.get(name, ()))
        if found is not None:
            chosen[name], times[name] = replace(program.plan[name], precision=SPARSE), found
    if not chosen:
        return program
    program = program.with_plan({**program.plan, **chosen})
    rows = program.report.layers
    for i, row in enumerate(rows):
        if row.name in chosen:
            made = layer_row(row.name, candidates[row.name], SPARSE, row.reason)
            float_ms, fast_ms = times[row.name]
            rows[i] = replace(made, float_ms=float_ms, fast_ms=fast_ms, sqnr_db=row.sqnr_db)
    return program


def sparse_times(layer: Layer, shapes: Sequence[tuple[int, ...]]) -> tuple[float, float] | None:
    """Return (dense, sparse) milliseconds of a layer where sparse is the faster, else None.

    shapes: of its inputs; a layer that did not run has none.
    """
    if not _is_served(layer, shapes):
        return None
    xs = layer_inputs(layer, shapes)
    sparse = lower_layer(layer, LayerPlan(SPARSE))
    with torch.inference_mode():
        float_ms, fast_ms = race_ms(partial(layer, *xs), partial(sparse, *xs), 0.02)
    return (float_ms, fast_ms) if fast_ms * NOISE < float_ms else None


def mostly_zero(layer: object) -> Layer | None:
    """Return the layer where its weight is float32, on a CPU, and mostly zero."""
    if not isinstance(layer, Layer) or layer.weight.numel() < LEAST_WEIGHTS:
        return None
    weight = layer.weight
    if weight.dtype != torch.float32 or weight.device.type != "cpu" or _is_nhwc(weight):
        return None
    zeros = 1 - int(torch.count_nonzero(weight)) / weight.numel()
    return layer if zeros >= LEAST_ZEROS else None


def _is_nhwc(weight: Tensor) -> bool:
    """Return True for a filter of a model in channels_last, whose layers answer in it."""
    is_image = weight.dim() == 4 and not weight.is_contiguous()
    return is_image and weight.is_contiguous(memory_format=torch.channels_last)


def _is_served(layer: Layer, shapes: Sequence[tuple[int, ...]]) -> bool:
    """Return True where the layer ran, on an input that is not empty and has a batch."""
    dims = {"linear": 1, "conv1d": 3, "conv2d": 4}[layer.spec.kind]
    return bool(shapes) and 0 not in shapes[0] and len(shapes[0]) >= dims
