"""convert: one call from a model to a faster one."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fastinfer.config import Config, resolve_config
from fastinfer.graph.capture import capture
from fastinfer.graph.errors import CaptureError
from fastinfer.measure import describe_machine
from fastinfer.measure.collector import young_only
from fastinfer.nn.converted_module import ConvertedModule, InferenceModule, ModulePath
from fastinfer.paths import StageError, convert_graph, convert_modules, convert_submodules
from fastinfer.report import Report
from fastinfer.request import Evaluate, Request, check_request
from fastinfer.runtime import require_kernels
from fastinfer.tune import loses, time_whole


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
    request = check_request(
        model,
        example_inputs,
        example_kwargs,
        resolve_config(config),
        calibration,
        evaluate,
        max_drop,
        target_ms,
    )
    require_kernels()
    with young_only():
        fast = _convert(request)
        if request.args is not None:
            fast = _check_whole(fast, request, target_ms)
    request.report.convert_s = time.perf_counter() - start
    request.report.environment = describe_machine()
    return fast


def _convert(request: Request) -> InferenceModule:
    """Return the model converted in the first way that works."""
    report = request.report
    if request.args is None:
        report.note("module path: no example_inputs to capture the model with")
    else:
        try:
            with report.timed("capture"):
                captured = capture(request.model, request.args, request.kwargs)
        except CaptureError as error:
            report.uncaptured[""] = str(error)
            return convert_submodules(request)
        try:
            return convert_graph(request, captured)
        except StageError as error:
            report.note(f"module path: {error}")
            report.between_total, report.between_int8, report.regions = 0, 0, []
    report.path = "modules"
    return convert_modules(request)


def _check_whole(
    fast: InferenceModule, request: Request, target_ms: float | None
) -> InferenceModule:
    """Return fast, or a copy of the original where fast is not faster under "auto"."""
    model, report = request.model, request.report
    try:
        with report.timed("time_whole"):
            times = time_whole({"original": model, "converted": fast}, request.call)
    except Exception as error:  # the user's model or a layer of it; the original still works
        report.note(f"the converted model failed on the example and was dropped: {error}")
        return _keep_original(model, report, str(error))
    report.float_ms, report.fast_ms = times["original"], times["converted"]
    if isinstance(fast, ConvertedModule) and fast.is_replayed:
        report.note("calls are replayed as CUDA graphs, one for each shape that came twice")
    if loses(times, request.config):
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
    report.between_int8, report.regions = 0, []
    report.parts = [replace(p, path="original", reason=reason) for p in report.parts]
    report.layers[:] = [replace(r, precision="fp32", reason=reason) for r in report.layers]
    with torch.no_grad():
        return ModulePath(copy.deepcopy(model), report)


__all__ = ["convert"]
