"""choose: every layer int8 or float, by time on the example's shapes."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from fastinfer.compress.quantize.calibrate import Calibrator
from fastinfer.compress.quantize.decide import plan_layers
from fastinfer.compress.quantize.pipeline import refresh_rows
from fastinfer.config import Config
from fastinfer.graph.layer import Layer
from fastinfer.lower.lowerings import lower_layer
from fastinfer.program import LayerPlan, Program
from fastinfer.tune.gpu_race import gpu_race_ms
from fastinfer.tune.noise import noise, noise_codes
from fastinfer.types.folded import KnownWeights

#: Seconds for all timings of one model; layers not reached stay as planned.
BUDGET_S = 4.0
#: A layer turns float only when it is slower by more than what timings vary.
NOISE = 1.05
#: int8 so many times as fast in each of ROUNDS rounds needs no further ones.
CLEAR, ROUNDS = 2.0, 3

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


def _input_shapes(
    program: Program, calibrator: Calibrator, inputs: Sequence[Any]
) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Return the shapes of every layer's tensors in the call of inputs, by the layer's name."""
    first = calibrator.samples[0]
    if [_shape(value) for value in first] == [_shape(value) for value in inputs]:
        # The statistics have the shapes of the first call that was observed, this one's too. An
        # input that is the residual as well counts twice.
        seen = calibrator.statistics
        return {
            str(node.target): tuple(
                seen[source.name].shape for source in node.args if isinstance(source, fx.Node)
            )
            for node in calibrator.layers
        }
    return shapes_of(program, inputs)


def shapes_of(program: Program, inputs: Sequence[Any]) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Return the shapes of every layer's tensors in a call of the float graph, by layer's name."""
    recorder = _Shapes(program)
    with torch.no_grad():
        recorder.run(*inputs)
    return recorder.shapes


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def best_ms(call: Any, limit_s: float) -> float:
    """Return the least of some runs in milliseconds: at least 2, about limit_s in all."""
    return _race((call,), limit_s)[0]


def race_ms(float_call: Any, fast_call: Any, limit_s: float) -> tuple[float, float]:
    """Return `best_ms` of both, run in turn; less often where fast_call is clearly the faster."""
    float_ms, fast_ms = _race((float_call, fast_call), limit_s)
    return float_ms, fast_ms


def _race(calls: Sequence[Any], limit_s: float) -> list[float]:
    for call in calls:
        call()
    best, spent, runs = [math.inf] * len(calls), [0.0] * len(calls), [0] * len(calls)
    pending = list(range(len(calls)))
    while pending:
        for i in pending:
            start = time.perf_counter()
            calls[i]()
            seconds = time.perf_counter() - start
            best[i], spent[i], runs[i] = min(best[i], seconds), spent[i] + seconds, runs[i] + 1
        if min(runs) >= ROUNDS and best[-1] * CLEAR < best[0]:
            break
        pending = [i for i in pending if runs[i] < 2 or (spent[i] < limit_s and runs[i] < 50)]
    return [seconds * 1e3 for seconds in best]


def is_nhwc(x: Tensor) -> bool:
    """Return True for an image or a filter in channels_last that is not contiguous too."""
    is_image = x.dim() == 4 and not x.is_contiguous()
    return is_image and x.is_contiguous(memory_format=torch.channels_last)


def layer_inputs(
    layer: Layer,
    shapes: Sequence[tuple[int, ...]],
    plan: LayerPlan | None = None,
    nhwc: bool = False,
) -> list[Tensor]:
    """Return random inputs of a layer, under its plan uint8 where it reads codes.

    nhwc: images of float are NHWC in memory, as those of codes are.
    """
    weight = layer.weight
    values = []
    for index, shape in enumerate(shapes):
        coded = plan is not None and plan.precision == "int8"
        coded = coded and (index == 0 or plan.output is not None)  # type: ignore[union-attr]
        value = noise_codes(shape, weight.device) if coded else noise(shape, weight)
        if value.dim() == 4 and (coded or nhwc):
            value = value.contiguous(memory_format=torch.channels_last)
        values.append(value)
    return values


def choose(
    program: Program,
    calibrator: Calibrator,
    config: Config,
    inputs: Sequence[Any],
    known: Times | None = None,
    served: fx.GraphModule | None = None,
) -> Program:
    """Return the program with layers that lose to float planned as float.

    inputs: the graph's flat inputs of the example. known: layers timed already, to be added to:
    submodules of one model have many alike. Only "auto" is timed, and not with
    allow_slower. A layer behind a float neighbour also pays for quantizing its input. served: has
    the layers to time, where they are not the program's own.
    """
    if config.precision != "auto" or config.allow_slower:
        return program
    shapes = _input_shapes(program, calibrator, inputs)
    static = {n for n, p in program.plan.items() if p.precision == "int8"}
    static |= set(program.between)
    # On a GPU float images stay in NHWC where the input or a filter is; the CPU's figures are of
    # layers whose inputs are made here, in torch's own order.
    tensors = [*program.graph_module.parameters(), *(x for x in inputs if isinstance(x, Tensor))]
    nhwc = any(x.is_cuda and is_nhwc(x) for x in tensors)
    times: dict[str, tuple[float, float]] = {}
    known = {} if known is None else known
    new = 0
    start = time.perf_counter()
    for node, layer in calibrator.layers.items():
        name = str(node.target)
        plan = program.plan[name]
        if plan.precision == "fp32" or name not in shapes:
            continue
        if time.perf_counter() - start > BUDGET_S and new > 4:
            break
        bordered = plan.precision == "int8" and not _from_static(node, static)
        key = (layer.spec, shapes[name], plan.output is None, plan.precision, bordered)
        if key not in known:
            timed = layer if served is None else served.get_submodule(name)
            assert isinstance(timed, Layer)
            known[key] = _time_layer(timed, plan, shapes[name], bordered, program.weights, nhwc)
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


def _device_of(layer: Layer) -> torch.device:
    return layer.weight.device


def _time_layer(
    layer: Layer,
    plan: LayerPlan,
    shapes: tuple[tuple[int, ...], ...],
    bordered: bool,
    known: KnownWeights,
    nhwc: bool = False,
) -> tuple[float, float]:
    """Return (float, fast) milliseconds of one layer."""
    floats, inputs = layer_inputs(layer, shapes, nhwc=nhwc), layer_inputs(layer, shapes, plan, nhwc)
    packed = lower_layer(layer, plan, known)
    device, border = _device_of(layer), []
    if bordered and plan.input is not None:
        is_image = len(shapes[0]) == 4
        border = [lambda: torch.ops.fastinfer.quantize(floats[0], 0.1, 0, is_image)]
    with torch.inference_mode():
        if device.type == "cuda":
            calls = [lambda: layer(*floats), lambda: packed(*inputs), *border]
            float_ms, *fast = gpu_race_ms(calls, device, replayed=True)
            return float_ms, sum(fast)
        float_ms, fast_ms = race_ms(lambda: layer(*floats), lambda: packed(*inputs), 0.02)
        return float_ms, fast_ms + sum(best_ms(call, 0.005) for call in border)
