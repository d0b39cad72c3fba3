"""choose: every layer int8 or float, by time on the example's shapes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from fastinfer.compress.quantize.calibrate import Calibrator
from fastinfer.compress.quantize.decide import plan_layers
from fastinfer.compress.quantize.pipeline import refresh_rows
from fastinfer.config import Config
from fastinfer.graph.layer import Layer
from fastinfer.lower.lowerings import lower_layer
from fastinfer.program import LayerPlan, Program

#: Seconds for all timings of one model; layers not reached stay as planned.
BUDGET_S = 4.0
#: A layer turns float only when it is slower by more than what timings vary.
NOISE = 1.05

#: (float, fast) milliseconds of a layer, by what makes it different from others.
Times = dict[Any, tuple[float, float]]


class _Shapes(fx.Interpreter):
    """Runs the float graph once and keeps the inputs' shapes of every layer."""

    def __init__(self, program: Program) -> None:
        super().__init__(program.graph_module)
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record and run."""
        self.shapes[str(target)] = tuple(tuple(a.shape) for a in args if isinstance(a, Tensor))
        return super().call_module(target, args, kwargs)


def best_ms(call: Any, limit_s: float) -> float:
    """Return the least of some runs in milliseconds: at least 2, about limit_s in all."""
    call()
    best, spent, runs = float("inf"), 0.0, 0
    while runs < 2 or (spent < limit_s and runs < 50):
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
        best, spent, runs = min(best, seconds), spent + seconds, runs + 1
    return best * 1e3


def _inputs(shapes: Sequence[tuple[int, ...]], plan: LayerPlan) -> list[Tensor]:
    """Return random inputs of a layer under its plan: uint8 where it reads codes."""
    values = []
    for index, shape in enumerate(shapes):
        coded = plan.precision == "int8" and (index == 0 or plan.output is not None)
        value = torch.randint(0, 256, shape, dtype=torch.uint8) if coded else torch.randn(shape)
        if coded and value.dim() == 4:
            value = value.contiguous(memory_format=torch.channels_last)
        values.append(value)
    return values


def _time(module: nn.Module, inputs: list[Tensor], limit_s: float) -> float:
    with torch.inference_mode():
        return best_ms(lambda: module(*inputs), limit_s)


def choose(
    program: Program,
    calibrator: Calibrator,
    config: Config,
    inputs: Sequence[Any],
    known: Times | None = None,
) -> Program:
    """Return the program with layers that lose to float planned as float.

    inputs: the graph's flat inputs of the example. known: layers timed already, to be added to:
    submodules of one model have many alike. Only "auto" is timed, and not with
    allow_slower. A layer behind a float neighbour also pays for quantizing its input.
    """
    if config.precision != "auto" or config.allow_slower:
        return program
    recorder = _Shapes(program)
    with torch.no_grad():
        recorder.run(*inputs)
    static = {n for n, p in program.plan.items() if p.precision == "int8"}
    static |= set(program.between)
    times: dict[str, tuple[float, float]] = {}
    known = {} if known is None else known
    new = 0
    start = time.perf_counter()
    for node, layer in calibrator.layers.items():
        name = str(node.target)
        plan = program.plan[name]
        if plan.precision == "fp32" or name not in recorder.shapes:
            continue
        if time.perf_counter() - start > BUDGET_S and new > 4:
            break
        bordered = plan.precision == "int8" and not _from_static(node, static)
        key = (layer.spec, recorder.shapes[name], plan.output is None, plan.precision, bordered)
        if key not in known:
            known[key] = _time_layer(layer, plan, recorder.shapes[name], bordered)
            new += 1
        times[name] = known[key]
    losers = {n: t for n, t in times.items() if t[1] > t[0] * NOISE}
    if losers:
        chosen = {}
        for node in calibrator.layers:
            name = str(node.target)
            entry = program.plan[name]
            chosen[node] = (entry.precision, entry.reason)
            if name in losers:
                slow, fast = losers[name][1], losers[name][0]
                chosen[node] = ("fp32", f"float is faster ({fast:.3f} against {slow:.3f} ms)")
        program = plan_layers(program, calibrator, config, chosen)
    refresh_rows(program, calibrator)
    rows = program.report.layers
    rows[:] = [
        replace(row, float_ms=times[row.name][0], fast_ms=times[row.name][1])
        if row.name in times
        else row
        for row in rows
    ]
    return program


def _from_static(node: fx.Node, static: set[str]) -> bool:
    source = node.args[0]
    if not isinstance(source, fx.Node):
        return False
    return (str(source.target) if source.op == "call_module" else source.name) in static


def _time_layer(
    layer: Layer, plan: LayerPlan, shapes: tuple[tuple[int, ...], ...], bordered: bool
) -> tuple[float, float]:
    """Return (float, fast) milliseconds of one layer."""
    floats = [torch.randn(shape) for shape in shapes]
    float_ms = _time(layer, floats, 0.02)
    fast_ms = _time(lower_layer(layer, plan), _inputs(shapes, plan), 0.02)
    if bordered and plan.input is not None:
        nhwc = len(shapes[0]) == 4
        with torch.inference_mode():
            fast_ms += best_ms(lambda: torch.ops.fastinfer.quantize(floats[0], 0.1, 0, nhwc), 0.005)
    return float_ms, fast_ms
