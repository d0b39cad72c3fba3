"""convert: one call from a model to a faster one."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from fastinfer.compress.quantize import Calibrator, quantize
from fastinfer.compress.quantize.precision import STATIC, requested_precision
from fastinfer.config import Config, named_ignores, resolve_config
from fastinfer.graph.capture import capture
from fastinfer.graph.errors import CaptureError
from fastinfer.lower import checked_regions, lower
from fastinfer.measure import describe_machine
from fastinfer.nn.converted_module import ConvertedModule, InferenceModule, ModulePath
from fastinfer.passes import FLOAT_PASSES, INT8_PASSES, STATIC_FLOAT_PASSES, run_passes
from fastinfer.program import Program
from fastinfer.report import Report
from fastinfer.request import check_request
from fastinfer.runtime import require_kernels
from fastinfer.tune import choose, choose_modules, guard_accuracy, time_whole
from fastinfer.types.call import CallSpec

Evaluate = Callable[[nn.Module], float]

#: A result is slower than the original only when it is so by more than timings vary.
NOISE = 1.03


def convert(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    config: Config | str = "auto",
    calibration: Iterable[Any] | None = None,
    evaluate: Evaluate | None = None,
    max_drop: float | None = None,
    target_ms: float | None = None,
) -> nn.Module:
    """Return a module that answers the calls of model faster; model is untouched.

    Args:
        model: any nn.Module. One in train mode is converted as in eval mode.
        example_inputs: a tensor, or a tuple or list of positional arguments, or a dict of keyword
            arguments. With it the model is captured and timed here; without it leaf layers are
            swapped and activations quantized at each call.
        example_kwargs: keyword arguments of the example call.
        config: a preset name ("auto", "int8", "int8-dynamic", "int8-weight-only", "bf16", "fp32")
            or a Config.
        calibration: batches for static scales: tensors, tuples, dicts or (input, label) pairs.
        evaluate: model -> figure, higher is better; used with max_drop.
        max_drop: how much evaluate may fall; layers go back to float until it holds.
        target_ms: latency wanted on the example; the report says whether it is reached.

    Raises:
        TypeError, ValueError: a malformed or contradictory request, before any work.

    """
    start = time.perf_counter()
    config = resolve_config(config)
    request = check_request(
        model, example_inputs, example_kwargs, config, calibration, evaluate, max_drop, target_ms
    )
    require_kernels()
    model, report = request.model, request.report
    config = named_ignores(config, model)
    fast = None
    if request.args is not None:
        try:
            fast = _convert_graph(
                model, request.args, request.kwargs, config, calibration, evaluate, max_drop, report
            )
        except CaptureError as error:
            _check_runs(model, request.args, request.kwargs)
            report.note(f"module path: {error}")
    else:
        report.note("module path: no example_inputs to capture the model with")
    if fast is None:
        report.path, report.between_total, report.between_int8 = "modules", 0, 0
        swapped = choose_modules(model, config, report, args=request.args, kwargs=request.kwargs)
        fast = ModulePath(swapped, report)
        if calibration is not None:
            report.note("calibration was not used: the module path finds ranges at each call")
    if request.args is not None:
        fast = _check_whole(model, fast, request.args, request.kwargs, config, report, target_ms)
    report.convert_s = time.perf_counter() - start
    report.environment = describe_machine()
    return fast


def _convert_graph(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    config: Config,
    calibration: Iterable[Any] | None,
    evaluate: Evaluate | None,
    max_drop: float | None,
    report: Report,
) -> InferenceModule:
    captured = capture(model, args, kwargs)
    report.path = "graph"
    report.notes += captured.report.notes
    call = captured.call
    assert call is not None
    passes = STATIC_FLOAT_PASSES if requested_precision(config) == STATIC else FLOAT_PASSES
    program = Program(captured.graph_module, report=report, call=call)
    with _stage("passes"):
        program = run_passes(program, passes)
    inputs = call.flatten(args, kwargs)
    assert inputs is not None

    flatten = _flatten_batches(call, report)
    float_counts = dict(report.passes)

    def build(program: Program) -> nn.Module:
        report.passes = dict(float_counts)  # of the last build only, however many are tried
        lowered = replace(program, graph_module=lower(program))
        run_passes(lowered, INT8_PASSES)
        regions = checked_regions(lowered.graph_module, inputs, report)
        return ConvertedModule(lowered.graph_module, call, report, model, regions)

    with _stage("calibrate"):
        calibrator = Calibrator(program, config, example=(args, kwargs), flatten=flatten)
    if config.precision != "fp32":
        calibrator.run(calibration)
    with _stage("quantize"):
        program = quantize(program, calibrator, config)
    with _stage("choose"):
        program = choose(program, calibrator, config, inputs)
    # An error of the user's evaluate is his to see.
    with _stage("guard") if evaluate is None else nullcontext():
        program = guard_accuracy(
            program,
            calibrator,
            config,
            evaluate=evaluate,
            max_drop=max_drop,
            build=build,
            original=model,
        )
    with _stage("lower"):
        fast = build(program)
    assert isinstance(fast, InferenceModule)
    return fast


@contextmanager
def _stage(name: str) -> Iterator[None]:
    """Turn what goes wrong in a stage into a reason for the module path: convert never fails."""
    try:
        yield
    except Exception as error:  # a fault of ours; the report carries it
        raise CaptureError(f"{name} failed: {type(error).__name__}: {error}") from error


def _flatten_batches(
    call: CallSpec, report: Report
) -> Callable[[tuple[Any, ...], dict[str, Any]], tuple[Any, ...] | None]:
    """Return a function from a batch's arguments to the graph's inputs.

    It names a batch that does not fit, and skips one of sizes that only the float model takes.
    """
    numbers = itertools.count()

    def flatten(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
        index = next(numbers)
        try:
            flat = call.flatten(args, kwargs)
        except TypeError as error:
            raise ValueError(f"calibration: batch {index} does not fit forward: {error}") from error
        if flat is None:
            raise ValueError(
                f"calibration: batch {index} has another structure than example_inputs"
            )
        for value, wanted in zip(flat, call.tensor_inputs, strict=True):
            if value.dtype != wanted.dtype or value.device != wanted.device:
                raise ValueError(
                    f"calibration: batch {index}: input {wanted.name!r}: expected "
                    f"{wanted.describe()} on {wanted.device}, got {value.dtype} on {value.device}"
                )
        if not call.accepts([tuple(value.shape) for value in flat]):
            wanted_text = ", ".join(f"{i.name!r} {i.describe()}" for i in call.tensor_inputs)
            report.note(
                f"calibration: batch {index} was skipped: the captured graph takes {wanted_text}, "
                f"got {[list(value.shape) for value in flat]}"
            )
            return None
        return flat

    return flatten


def _check_runs(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise ValueError when the model does not take its own example."""
    args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    except Exception as error:  # whatever the model's own code raises
        raise ValueError(
            "convert: example_inputs: the model does not run on example_inputs: "
            f"{type(error).__name__}: {error}"
        ) from error


def _check_whole(
    model: nn.Module,
    fast: InferenceModule,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    config: Config,
    report: Report,
    target_ms: float | None,
) -> InferenceModule:
    """Return fast, or a copy of the original where fast is not faster under "auto"."""
    try:
        times = time_whole({"original": model, "converted": fast}, args, kwargs)
    except Exception as error:  # the user's model or a layer of it; the original still works
        report.note(f"the converted model failed on the example and was dropped: {error}")
        return _keep_original(model, report, str(error))
    report.float_ms, report.fast_ms = times["original"], times["converted"]
    undone = config.precision == "auto" and not config.allow_slower
    if undone and report.fast_ms > report.float_ms * NOISE:
        report.note(
            f"kept the original: converted {report.fast_ms:.3f} ms, original "
            f"{report.float_ms:.3f} ms"
        )
        report.fast_ms = report.float_ms
        fast = _keep_original(model, report, "the whole model is faster in float")
    if target_ms is not None:
        reached = report.fast_ms <= target_ms
        report.note(
            f"target_ms={target_ms:g} {'reached' if reached else 'NOT reached'}: "
            f"{report.fast_ms:.3f} ms"
        )
    return fast


def _keep_original(model: nn.Module, report: Report, reason: str) -> InferenceModule:
    report.path = "original"
    report.between_int8 = 0
    report.layers[:] = [replace(r, precision="fp32", reason=reason) for r in report.layers]
    with torch.no_grad():
        return ModulePath(copy.deepcopy(model), report)


__all__ = ["convert"]
