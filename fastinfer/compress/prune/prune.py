"""prune_layers: one call from a float model to the same model with zeros where they cost least."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastinfer.compress.progress import ProgressBar
from fastinfer.compress.prune.by_graph import GraphPruning, layer_row
from fastinfer.compress.prune.calibration import calls_of, graph_batches
from fastinfer.compress.prune.channels import prune_channels
from fastinfer.compress.prune.layer_times import Latency
from fastinfer.compress.prune.layers import find_layers
from fastinfer.compress.prune.modules import layer_geometry, leaf_layers, module_grams, passes
from fastinfer.compress.prune.nonuniform import ALLOCATIONS, Goal, check_goal
from fastinfer.compress.prune.report import ATTRIBUTE, LayerPruning, PruningReport
from fastinfer.compress.prune.request import (
    CHANNEL,
    PruningRequest,
    check_choices,
    check_ignored,
    check_model,
)
from fastinfer.compress.prune.resident import Peak
from fastinfer.compress.prune.solve import solve
from fastinfer.compress.prune.walk import Tell
from fastinfer.graph.capture import capture
from fastinfer.graph.errors import CaptureError
from fastinfer.types.call import Call, tensors_of
from fastinfer.types.example import example_call
from fastinfer.types.sparsity import Pattern, named_pattern

#: Methods that channels can be chosen by.
CHANNEL_METHODS = ("obs", "obd", "magnitude")


def prune_layers(
    model: nn.Module,
    example_inputs: Any,
    request: PruningRequest,
    latency: Latency | None = None,
) -> nn.Module:
    """Return a copy of the model whose weights have zeros; `fastinfer.prune` says which.

    latency: the least error within a latency, instead of a sparsity.

    Raises:
        TypeError, ValueError: a malformed request, before any work; or a latency that cannot be
            reached, before anything is changed.
    """
    pattern, sparsity, method = request.pattern, request.sparsity, request.method
    calibration, allocation = request.calibration, request.allocation
    start = time.perf_counter()
    model = check_model(model)
    ignored = check_choices(request)
    check_ignored(model, ignored)
    example = example_call("prune", example_inputs)
    if allocation not in ALLOCATIONS:
        raise ValueError(
            f"prune: allocation: expected one of {list(ALLOCATIONS)}, got {allocation!r}"
        )
    goal = None
    if allocation != "uniform" or latency is not None:
        goal = check_goal(pattern, sparsity, method, latency, example is not None)
    if example is None and method != "magnitude":
        raise ValueError(
            f"prune: example_inputs: method {method!r} needs inputs to run the model on, got None"
        )
    if pattern == CHANNEL:
        return _channels(model, example_inputs, sparsity, method, calibration, ignored)
    wanted = goal if goal is not None else named_pattern(pattern, sparsity)
    share = (sparsity or 0.0) if isinstance(wanted, Goal) else 1 - wanted.density
    peak = Peak()
    pruned = copy.deepcopy(model)
    report = PruningReport(pattern, share, method)
    modes = {name: module.training for name, module in pruned.named_modules()}
    pruned.eval()
    if any(modes.values()):
        report.note("the model was in train mode; it was pruned as it is in eval mode")
    with ProgressBar() as bar, torch.no_grad():
        _prune(pruned, example, wanted, method, calibration, ignored, report, peak, bar.tell)
    for name, module in pruned.named_modules():
        module.training = modes[name]
    report.parameters = sum(p.numel() for p in pruned.parameters())
    peak.look()
    report.seconds, report.peak_bytes = time.perf_counter() - start, peak.bytes
    if not report.pruned and share > 0:
        warnings.warn(
            "prune: no layer was pruned; print(fastinfer.pruning_report(model)) says why",
            stacklevel=3,
        )
    setattr(pruned, ATTRIBUTE, report)
    return pruned


def _channels(
    model: nn.Module,
    example_inputs: Any,
    sparsity: float | None,
    method: str,
    calibration: Iterable[Any] | None,
    ignore: Sequence[str],
) -> nn.Module:
    """Return the model with fewer channels."""
    if sparsity is None:
        raise ValueError("prune: sparsity: expected the share of parameters that go, got None")
    if method not in CHANNEL_METHODS:
        raise ValueError(
            f"prune: method: expected one of {list(CHANNEL_METHODS)} for pattern 'channel', "
            f"got {method!r}"
        )
    return prune_channels(
        model,
        example_inputs,
        sparsity=sparsity,
        importance="magnitude" if method == "magnitude" else "taylor",
        calibration=calibration,
        ignore=ignore,
        compensate=method == "obs",
    )


def _prune(
    model: nn.Module,
    example: Call | None,
    wanted: Pattern | Goal,
    method: str,
    calibration: Iterable[Any] | None,
    ignore: Sequence[str],
    report: PruningReport,
    peak: Peak,
    tell: Tell,
) -> None:
    """Prune the model in place, by its graph where it has one."""
    goal = wanted if isinstance(wanted, Goal) else None
    if example is None:
        assert not isinstance(wanted, Goal)
        report.note("no example: the layers' order in the model stands for that of their calls")
        _prune_modules(model, [], wanted, method, ignore, report, peak, tell)
        return
    count = len(tensors_of(example))
    is_data_free = method == "magnitude" and goal is None
    calls = [] if is_data_free else calls_of(calibration, example, count)
    if not is_data_free and calibration is None:
        report.note(
            "calibrated on the example alone: pass calibration= for weights that hold on other data"
        )
    try:
        # Other calls say which sizes vary.
        program = capture(model, *example, others=[c for c in calls if c is not example][:2])
    except CaptureError as error:
        if isinstance(wanted, Goal):
            raise ValueError(
                "prune: allocation: sparsities of layers are weighed on the captured graph, and "
                f"this model has none; use allocation='uniform'. {error}"
            ) from error
        report.note(f"layers were pruned on their own, by hooks on the dense model: {error}")
        _prune_modules(model, calls, wanted, method, ignore, report, peak, tell)
        return
    layers = find_layers(program.graph_module, ignore)
    changing = [call.node for layer in layers if not layer.dense for call in layer.calls]
    batches = graph_batches(program, calls, changing, report) if calls else []
    pruning = GraphPruning(model, program, layers, method, report, peak, tell)
    if isinstance(wanted, Goal):
        if not batches:
            raise ValueError(
                "prune: calibration: the captured graph takes no batch, and allocation 'error' "
                "needs some; pass batches of the example's sizes"
            )
        pruning.to_goal(batches, example, wanted)
        return
    if calls and not batches:
        report.note("layers were pruned on their own: the graph takes no calibration batch")
        _prune_modules(model, calls, wanted, method, ignore, report, peak, tell)
        return
    pruning.to_levels(batches, {layer.name: wanted for layer in layers})


def _prune_modules(
    model: nn.Module,
    calls: Sequence[Call],
    pattern: Pattern,
    method: str,
    ignore: Sequence[str],
    report: PruningReport,
    peak: Peak,
    tell: Tell,
) -> None:
    """Prune leaf layers, each on the dense model's inputs and outputs."""
    found = leaf_layers(model, ignore)
    rows: dict[str, LayerPruning] = {}
    results: list[tuple[nn.Module, Tensor, Tensor | None]] = []
    wanted = {name: module for name, (module, reason) in found.items() if not reason}
    for portion in passes(wanted):
        grams = module_grams(model, portion, calls, peak) if calls else {}
        for name, module in portion.items():
            tell(f"pruning {name}", len(rows), len(wanted))
            weight, bias = module.weight, module.bias
            assert isinstance(weight, Tensor)
            geometry = layer_geometry(module)
            if geometry is None or (calls and name not in grams):
                why = "padding that is not zeros" if geometry is None else "the data never reach it"
                rows[name] = LayerPruning(name, "", weight.numel(), 0, reason=why)
                continue
            solutions = [
                solve(
                    matrix,
                    grams[name][g] if calls else None,
                    pattern,
                    method,
                    is_centred=bias is not None,
                )
                for g, matrix in enumerate(geometry.matrices(weight))
            ]
            rows[name] = layer_row(name, weight, solutions, pattern, report.pattern)
            new_bias = None
            if isinstance(bias, Tensor) and all(s.bias is not None for s in solutions):
                new_bias = torch.cat([s.bias for s in solutions if s.bias is not None])
            matrices = [s.matrix for s in solutions]
            results.append((module, geometry.weight(matrices, weight), new_bias))
    for module, new_weight, new_bias in results:
        module.weight.copy_(new_weight)  # type: ignore[operator]
        if new_bias is not None:
            module.bias.copy_(new_bias)  # type: ignore[operator]
    for name, (module, reason) in found.items():
        found_weight = module._parameters.get("weight")
        size = 0 if found_weight is None else found_weight.numel()
        report.layers.append(rows.get(name, LayerPruning(name, "", size, 0, reason=reason)))
