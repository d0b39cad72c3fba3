"""The submodule path: the largest submodules with a graph on it, the rest the user's own code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fastinfer.compress.quantize.batches import check_finite, read_calls
from fastinfer.compress.quantize.precision import is_ignored
from fastinfer.graph.layer import Layer
from fastinfer.graph.recording import record_calls
from fastinfer.graph.submodules import Search, candidates, capture_submodules
from fastinfer.lower import with_parts
from fastinfer.nn.converted_module import InferenceModule, ModulePath
from fastinfer.nn.converted_submodule import ConvertedSubmodule
from fastinfer.paths.graph import StageError, finish, judge_of, prepare, stage
from fastinfer.paths.modules import convert_modules
from fastinfer.paths.part import Part, merge_reports
from fastinfer.request import Request
from fastinfer.tune import Times, loses, time_whole
from fastinfer.types.call import tensors_of


def convert_submodules(request: Request) -> InferenceModule:
    """Return a copy of the model whose largest capturable submodules are converted by their graphs.

    Layers outside of them, and those of a submodule whose conversion failed, are swapped one by
    one. Where nothing is captured that is all there is.

    Raises:
        ValueError: the model does not take its example, or a calibration batch.
    """
    with request.report.timed("capture"):
        search = _search(request)
    request.report.uncaptured |= search.reasons
    parts = [part for part in map(Part, search.found) if _prepare(part, request)]
    _calibrate(parts, request)
    known: Times = {}
    for part in parts:
        if part.path == "graph":
            _convert(part, parts, request, known)
    _drop_all_that_do_not_run(parts, request)
    rows = merge_reports(request.report, parts)
    captured = any(part.converted is not None for part in parts)
    request.report.path = "submodules" if captured else "modules"
    return convert_modules(request, _replacements(parts, dropped=False), rows)


def _search(request: Request) -> Search:
    """Return what can be captured; only its own recorded calls are still held afterwards."""
    names = candidates(request.model, partial(is_ignored, config=request.config))
    try:
        recordings = record_calls(request.model, request.call, names)
    except Exception as error:  # whatever the model's own code raises
        raise ValueError(
            "convert: example_inputs: the model does not run on example_inputs: "
            f"{type(error).__name__}: {error}"
        ) from error
    return capture_submodules(request.model, recordings, names)


def _replacements(parts: Sequence[Part], *, dropped: bool = True) -> dict[str, nn.Module | None]:
    """Return what stands in the places of the parts; without `dropped` not those to be swapped."""
    return {p.name: p.converted for p in parts if dropped or p.path != "modules"}


def _prepare(part: Part, request: Request) -> bool:
    """Prepare a part's graph; return False where there is no layer in it, so no part."""
    found = part.submodule
    try:
        part.prepared = prepare(
            found.module, found.program, found.calls[0], request.config, part.report
        )
    except StageError as error:
        part.drop("modules", str(error))
        return True
    return any(isinstance(m, Layer) for m in part.prepared.program.graph_module.modules())


def _calibrate(parts: Sequence[Part], request: Request) -> None:
    """Let every part's calibrator see its calls while the model runs the calibration data.

    Parts that no batch reaches, or all where there is no data, see those of the example.
    """
    if request.config.precision == "fp32":
        return
    if request.calibration is not None:
        n_inputs = len(tensors_of(request.call))
        with _observed(parts), torch.no_grad():
            for index, (args, kwargs) in enumerate(read_calls(request.calibration, n_inputs)):
                check_finite(tensors_of((args, kwargs)), index)
                try:
                    request.model(*_as_example(args, request), **kwargs)
                except Exception as error:  # whatever the model's own code raises
                    raise ValueError(
                        f"calibration: batch {index}: the model does not run on it: "
                        f"{type(error).__name__}: {error}"
                    ) from error
    for part in parts:
        if part.prepared is None or part.prepared.calibrator.samples:
            continue
        part.prepared.calibrator.from_example = request.calibration is None
        if request.calibration is not None:
            part.report.note("no calibration batch reached it: scales from the example only")
        for args, kwargs in part.submodule.calls:
            _observe(part, args, kwargs)


def _as_example(args: tuple[Any, ...], request: Request) -> tuple[Any, ...]:
    """Return the arguments of a batch, images in one list where the example has them so.

    A batch of a detector may come as its images alone, or as a pair of these and their labels.
    """
    example, _ = request.call
    is_list = len(example) == 1 and isinstance(example[0], (list, tuple))
    if is_list and args and all(isinstance(a, Tensor) for a in args):
        return (list(args),)
    return args


@contextmanager
def _observed(parts: Sequence[Part]) -> Iterator[None]:
    """Show the parts' calls to their calibrators."""
    handles = []
    for part in parts:

        def before(_: nn.Module, args: Any, kwargs: Any, part: Part = part) -> None:
            _observe(part, args, kwargs)

        module = part.submodule.module
        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _observe(part: Part, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if part.path != "graph":
        return
    assert part.prepared is not None
    try:
        with stage("calibrate", part.report):
            flat = part.inputs_of(tuple(args), dict(kwargs))
            if flat is not None:
                # The model may write into them later, and the calibrator keeps some.
                part.prepared.calibrator.add(tuple(value.clone() for value in flat))
    except StageError as error:
        part.drop("modules", str(error))


def _convert(part: Part, parts: Sequence[Part], request: Request, known: Times) -> None:
    """Convert a part, judged by itself and within the whole; drop it where it fails or loses."""
    assert part.prepared is not None
    config, model = request.config, request.model

    def whole(candidate: nn.Module) -> nn.Module:
        return ModulePath(
            with_parts(model, _replacements(parts) | {part.name: candidate}), request.report
        )

    try:
        fast = finish(part.prepared, config, judge_of(request, whole), ConvertedSubmodule, known)
    except StageError as error:
        part.drop("modules", str(error))
        return
    found = part.submodule
    answered = sum(part.inputs_of(*call) is not None for call in found.calls)
    if answered < len(found.calls):
        part.report.note(
            f"the graph answers {answered} of {len(found.calls)} kinds of calls of the example; "
            "the others run the float module"
        )
    part.converted = fast
    _keep_if_not_slower(part, request)


def _keep_if_not_slower(part: Part, request: Request) -> None:
    found, report = part.submodule, part.report
    assert part.converted is not None
    models = {"original": found.module, "converted": part.converted}
    try:
        with report.timed("time_whole"):
            times = time_whole(models, *found.calls)
    except Exception as error:  # a layer's fault, or a call that writes into what it gets
        part.drop("modules", f"it failed on the example: {type(error).__name__}: {error}")
        return
    report.float_ms, report.fast_ms = times["original"], times["converted"]
    if loses(times, request.config):
        part.drop(
            "original",
            f"float is faster ({report.float_ms:.3f} against {report.fast_ms:.3f} ms)",
        )


def _drop_all_that_do_not_run(parts: Sequence[Part], request: Request) -> None:
    """Drop every part when the model's own code does not get on with them."""
    if not any(part.converted is not None for part in parts):
        return
    model = ModulePath(with_parts(request.model, _replacements(parts)), request.report)
    args, kwargs = pytree.tree_map_only(Tensor, torch.clone, request.call)
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    except Exception as error:  # the user's code may ask a submodule what the graph has not
        reason = f"the model fails with its submodules converted: {type(error).__name__}: {error}"
        for part in parts:
            part.drop("modules", reason)
