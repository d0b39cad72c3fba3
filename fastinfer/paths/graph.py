"""The graph path: a captured module, the whole model or a part, calibrated, judged and lowered."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from fastinfer.compress.quantize import Calibrator, quantize
from fastinfer.compress.quantize.precision import STATIC, requested_precision
from fastinfer.compress.quantize.report_rows import count_bytes
from fastinfer.config import Config
from fastinfer.engine import CudaGraphs, CudaRecorder
from fastinfer.graph.in_float32 import in_float32, is_half, values_in_float32
from fastinfer.lower import checked_regions, lower
from fastinfer.nn.converted_module import ConvertedModule
from fastinfer.passes import (
    FLOAT_PASSES,
    HALF_PASSES,
    INT8_PASSES,
    STATIC_FLOAT_PASSES,
    run_passes,
)
from fastinfer.program import Program
from fastinfer.report import Report
from fastinfer.request import Evaluate, Request
from fastinfer.tune import Times, choose, guard_accuracy, leave_out_zeros
from fastinfer.types.call import Call, CallSpec

Flatten = Callable[[tuple[Any, ...], dict[str, Any]], tuple[Any, ...] | None]


class StageError(Exception):
    """A stage failed on a captured module, a fault of ours; the text is the reason."""


@contextmanager
def stage(name: str, report: Report) -> Iterator[None]:
    """Turn what goes wrong in a stage into a reason to go another way: convert never fails.

    The report gets the seconds it took.
    """
    try:
        with report.timed(name):
            yield
    except Exception as error:  # a fault of ours; the report carries it
        raise StageError(f"{name} failed: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Prepared:
    """A captured module after the float passes, to be calibrated.

    `inputs` are the graph's own of the call it was captured with. `graph_module` is what is
    lowered; where it is of float16 or bfloat16, `program` is the same in float32, to plan on.
    """

    module: nn.Module
    program: Program
    calibrator: Calibrator
    inputs: tuple[Any, ...]
    graph_module: fx.GraphModule

    @property
    def is_half(self) -> bool:
        """True where what is planned on is not what is lowered."""
        return self.graph_module is not self.program.graph_module

    @property
    def device(self) -> torch.device:
        """Where the call's tensors are, all of them."""
        return next((x.device for x in self.inputs if isinstance(x, Tensor)), torch.device("cpu"))


@dataclass(frozen=True)
class Judge:
    """The user's measure of accuracy; `whole` makes of a converted module what it takes."""

    evaluate: Evaluate
    max_drop: float
    original: nn.Module
    whole: Callable[[nn.Module], nn.Module]


def prepare(
    module: nn.Module,
    captured: Program,
    call: Call,
    config: Config,
    report: Report,
    flatten: Flatten | None = None,
) -> Prepared:
    """Return the captured module after the float passes; report is filled from here on.

    flatten: from a calibration batch to the graph's inputs, where `Calibrator.run` gets batches.

    Raises StageError.
    """
    report.notes += captured.report.notes
    spec = captured.call
    assert spec is not None
    inputs = spec.flatten(*call)
    assert inputs is not None
    passes = STATIC_FLOAT_PASSES if requested_precision(config) == STATIC else FLOAT_PASSES
    program = Program(captured.graph_module, report=report, call=spec)
    with stage("passes", report):
        program = run_passes(program, passes)
    graph_module = program.graph_module
    with stage("calibrate", report):
        if is_half(graph_module):
            program = replace(program, graph_module=in_float32(graph_module))
        calibrator = Calibrator(program, config, example=call, flatten=flatten)
        calibrator.widens = program.graph_module is not graph_module
    return Prepared(module, program, calibrator, inputs, graph_module)


def finish(
    prepared: Prepared,
    config: Config,
    judge: Judge | None = None,
    kind: type[ConvertedModule] = ConvertedModule,
    known: Times | None = None,
) -> ConvertedModule:
    """Return the module on packed weights; its calibrator has run. known: as of `choose`.

    Raises StageError, and what the user's own evaluate raises.
    """
    program, report = prepared.program, prepared.program.report
    spec = program.call
    assert spec is not None
    float_counts = dict(report.passes)

    def build(program: Program) -> ConvertedModule:
        report.passes = dict(float_counts)  # of the last build only, however many are tried
        planned = replace(program, graph_module=prepared.graph_module)
        lowered = replace(program, graph_module=lower(planned))
        run_passes(lowered, INT8_PASSES)
        if prepared.is_half:
            run_passes(lowered, HALF_PASSES)
        regions = None
        if prepared.device.type == "cpu":
            regions = checked_regions(lowered.graph_module, prepared.inputs, report)
        graphs = CudaGraphs(report.note, CudaRecorder())
        return kind(lowered.graph_module, spec, report, prepared.module, regions, graphs)

    with stage("quantize", report):
        program = quantize(program, prepared.calibrator, config)
    with stage("choose", report):
        inputs = values_in_float32(prepared.inputs) if prepared.is_half else prepared.inputs
        served = prepared.graph_module if prepared.is_half else None
        program = choose(program, prepared.calibrator, config, inputs, known, served)
    # An error of the user's evaluate is his to see.
    with stage("guard", report) if judge is None else report.timed("guard"):
        program = guard_accuracy(
            program,
            prepared.calibrator,
            config,
            evaluate=judge.evaluate if judge else None,
            max_drop=judge.max_drop if judge else None,
            build=(lambda p: judge.whole(build(p))) if judge else None,
            original=judge.original if judge else None,
        )
    if prepared.is_half:
        count_bytes(report, prepared.graph_module)
    else:
        with stage("zeros", report):
            program = leave_out_zeros(program, config, prepared.inputs)
    with stage("lower", report):
        return build(program)


def convert_graph(request: Request, captured: Program) -> ConvertedModule:
    """Return the whole model, captured, on packed weights.

    Raises StageError, and what the user's own evaluate raises.
    """
    report, config = request.report, request.config
    report.path = "graph"
    assert captured.call is not None
    prepared = prepare(
        request.model,
        captured,
        request.call,
        config,
        report,
        _flatten_batches(captured.call, report),
    )
    if config.precision != "fp32":
        with report.timed("calibrate"):
            prepared.calibrator.run(request.calibration)
    return finish(prepared, config, judge_of(request, lambda converted: converted))


def judge_of(request: Request, whole: Callable[[nn.Module], nn.Module]) -> Judge | None:
    """Return the request's measure of accuracy, if it has one."""
    if request.evaluate is None or request.max_drop is None:
        return None
    return Judge(request.accuracy, request.max_drop, request.model, whole)


def _flatten_batches(call: CallSpec, report: Report) -> Flatten:
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
                    f"{wanted.describe()} on {wanted.device}, got {value.dtype} on {value.device}; "
                    "give batches as the example is"
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
