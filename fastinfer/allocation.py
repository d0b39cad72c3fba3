"""prune: zeros where they cost least; for a latency, times of the int8 model measured here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fastinfer.api import convert
from fastinfer.compress.prune.layer_times import Latency
from fastinfer.compress.prune.prune import prune_layers
from fastinfer.compress.prune.report import pruning_report
from fastinfer.compress.prune.request import PruningRequest, check_choices
from fastinfer.config import Config
from fastinfer.measure import time_interleaved
from fastinfer.types.example import example_call

#: All that can be int8 is: which layers are worth it is `convert`'s to say afterwards.
INT8 = Config("int8", min_sqnr_db=-math.inf)
#: Seconds of timing for each level of a layer, and for a whole model.
LAYER_SECONDS, WHOLE_SECONDS = 0.05, 0.5
#: A target is missed only by more than timings vary.
NOISE = 1.03
#: Times that the target is tightened where the whole model is slower than its layers said.
RETRIES = 2


def prune(
    model: nn.Module,
    example_inputs: Any,
    *,
    pattern: str,
    sparsity: float | None = None,
    method: str = "obs",
    calibration: Iterable[Any] | None = None,
    ignore: Sequence[str] = (),
    schedule: Any = None,
    allocation: str = "uniform",
    target_ms: float | None = None,
) -> nn.Module:
    """Return a copy of the model whose weights have zeros; the model is untouched.

    The copy is of the model's own class, float, in its mode, and trains; `convert` finds the zeros.
    `pruning_report` says what was done to each layer. Layers of few inputs, the first convolution
    and the last layer stay dense.

    Args:
        model: any nn.Module on cpu. It is pruned as it is in eval mode.
        example_inputs: a tensor, a tuple or list of positional arguments, or a dict of keyword
            arguments. None is enough for magnitude.
        pattern: "unstructured", "nm64", "nm64x2" (and x64, x128, x256 for GPUs; see
            docs/sparsity.md), n kept of m as "2:4", or "channel".
        sparsity: the share of a pruned layer's weights that become zero, 0..1. A pattern as "2:4"
            says it already. Of "channel" the share of the model's parameters that go.
        method: "obs" chooses by second-order information and fits all weights that are kept to the
            dense model's outputs; "sparsegpt" mends weights to the right of those that go, "obd"
            weighs squares of weights with their inputs' variance, "magnitude" takes the smallest.
            Of "channel" "obs" ranks by first-order changes of the output and refits the layers
            that read fewer channels, "obd" only ranks; see `prune_channels` for more choices.
        calibration: batches as for `convert`, without labels or with. The example alone serves
            otherwise, and the report says so. "magnitude" needs none.
        ignore: names or patterns ("head.*") of modules that stay dense.
        schedule: None: a schedule needs training, see `fastinfer.GradualPruner`.
        allocation: "uniform": every layer has the same sparsity. "error": each has its own, chosen
            by what the network's output loses; `sparsity` is the mean over the weights that may go.
            Of N:64 and unstructured patterns.
        target_ms: milliseconds that the pruned model is to take in int8 on the example, on this
            machine with the threads torch has; sparsity must be None. Layers are timed at each
            sparsity, and the least error within the target is taken. The result is converted and
            timed; on a miss the target is tightened at most twice. The report has both times.

    Raises:
        TypeError, ValueError: a malformed request, before any work; a target that cannot be
            reached, with the nearest that can, before anything is pruned.
    """
    request = PruningRequest(pattern, sparsity, method, calibration, ignore, schedule, allocation)
    if target_ms is None:
        return prune_layers(model, example_inputs, request)
    wanted = _checked_target(target_ms)
    check_choices(request)
    if calibration is not None:  # read once for each try
        request = replace(request, calibration=list(calibration))
    clock = _whole_clock(example_inputs)
    return prune_for(model, example_inputs, request, wanted, clock, time_int8)


def prune_for(
    model: nn.Module,
    example_inputs: Any,
    request: PruningRequest,
    target_ms: float,
    whole_ms: Callable[[nn.Module], float],
    layers_ms: Callable[[Sequence[nn.Module], Tensor], Sequence[float]],
) -> nn.Module:
    """Return the pruned model that these clocks say is within the target, or the nearest try.

    whole_ms: a float model -> milliseconds of its int8 form. layers_ms: modules, their input ->
    milliseconds each.

    Raises:
        TypeError, ValueError: as `prune`.
    """
    latency = Latency(target_ms, whole_ms, layers_ms)
    best: nn.Module | None = None
    best_ms = math.inf
    for attempt in range(RETRIES + 1):
        try:
            pruned = prune_layers(model, example_inputs, request, latency)
        except ValueError:
            if best is None:
                raise
            pruning_report(best).note("no allocation is estimated to be fast enough to try again")
            break
        report = pruning_report(pruned)
        if report.allocation is None:  # nothing could be pruned
            return pruned
        measured = whole_ms(pruned)
        report.allocation.target_ms, report.allocation.measured_ms = target_ms, measured
        if attempt:
            report.note(f"tightened to {latency.target_ms:.3f} ms, as the whole was slower")
        if measured < best_ms:
            best, best_ms = pruned, measured
        if measured <= target_ms * NOISE:
            break
        latency.target_ms -= measured - target_ms
    assert best is not None
    if best_ms > target_ms * NOISE:
        pruning_report(best).note(
            f"missed: {best_ms:.3f} ms measured, {target_ms:.3f} were asked for"
        )
    return best


def time_int8(modules: Sequence[nn.Module], x: Tensor) -> list[float]:
    """Return the milliseconds of each module in int8, timed in turn on x."""
    with torch.inference_mode(False):
        fast = [convert(module, x.clone(), config=INT8) for module in modules]
    calls = {str(i): (lambda f=f: f(x)) for i, f in enumerate(fast)}
    with torch.inference_mode():
        timed = time_interleaved(calls, min_time_s=LAYER_SECONDS)
    return [timed[str(i)].median_ms for i in range(len(fast))]


def _whole_clock(example_inputs: Any) -> Callable[[nn.Module], float]:
    """Return what converts a model to int8 and times it on the example."""
    example = example_call("prune", example_inputs)

    def whole_ms(model: nn.Module) -> float:
        if example is None:
            raise ValueError("prune: example_inputs: target_ms is of the example; got None")
        args, kwargs = example
        with torch.inference_mode(False):
            fast = convert(model, example_inputs, config=INT8)
        with torch.inference_mode():
            timed = time_interleaved({"fast": lambda: fast(*args, **kwargs)},
                                     min_time_s=WHOLE_SECONDS)  # fmt: skip
        return timed["fast"].median_ms

    return whole_ms


def _checked_target(target_ms: object) -> float:
    if isinstance(target_ms, bool) or not isinstance(target_ms, (int, float)):
        raise TypeError(
            f"prune: target_ms: expected milliseconds as a number, got {type(target_ms).__name__}"
        )
    if not 0 < target_ms < math.inf:
        raise ValueError(f"prune: target_ms: expected milliseconds above 0, got {target_ms}")
    return float(target_ms)
