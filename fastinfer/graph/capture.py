"""capture: a model and an example call become a Program, dynamic in every size that allows it."""

from __future__ import annotations

import io
import logging
import os
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from fastinfer.graph import known_shapes
from fastinfer.graph.domain import call_spec, model_signature, verified
from fastinfer.graph.errors import CaptureError
from fastinfer.graph.functional import NotFunctionalError, replace_in_place
from fastinfer.graph.match import attribute, set_tensor
from fastinfer.program import Program
from fastinfer.report import Report
from fastinfer.types.call import Call, bind, tensors_of

#: CPU seconds that export may spend on symbolic sizes before fewer dimensions are left free. Swin-T
#: with a free height and width takes 271 s (torch 2.14.1, Zen 3, 2026-11), MobileNetV2 3 s.
SYMBOLIC_SECONDS = 12.0

#: Layers may answer in channels_last, where a view of an eager model would not exist any more.
_LAYOUT_FREE = {
    torch.ops.aten.view.default: torch.ops.aten.reshape.default,
    torch.ops.aten._unsafe_view.default: torch.ops.aten.reshape.default,
}
_STRIDED = (torch.ops.aten.as_strided.default, torch.ops.aten.stride.int)

VARIED = "the sizes that differ between calls"
#: Dimensions left free, most general first: every one, those of VARIED and the batch, the batch,
#: none.
FREEDOMS = ("every size", VARIED, "the batch size", "no size")


def capture(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: dict[str, Any] | None = None,
    *,
    others: Sequence[Call] = (),
    prefix: str = "",
    freedoms: Sequence[str] = FREEDOMS,
) -> Program:
    """Return the model as a functional ATen graph over the tensor arguments of the call.

    The model must be in eval mode and is not modified; its tensors are shared, not copied. The
    graph's tensors are get_attr nodes under prefix and the model's own names.

    Args:
        model: any module in eval mode.
        args: positional arguments of one example call.
        kwargs: keyword arguments of that call.
        others: further calls, on which the graph is checked, and which say which sizes vary.
        prefix: of every name, "backbone." where the model is the submodule backbone of another.
        freedoms: which sizes to try to leave free, of FREEDOMS, in this order.

    Raises:
        CaptureError: the model does not export, or the graph would not answer as the model does.

    """
    _check_capturable(model)
    signature = model_signature(model)
    calls = [bind(signature, a, k) for a, k in ((tuple(args), dict(kwargs or {})), *others)]
    reasons: list[str] = []
    waiting = [f for f in freedoms if f != VARIED or any(v - {0} for v in _varied(calls))]
    while waiting:
        freedom = waiting.pop(0)
        try:
            program = _capture(model, signature, calls, freedom, prefix)
        except CaptureError as error:
            reasons.append(str(error))
            if isinstance(error.__cause__, GuardOnDataDependentSymNode):
                # Values decide, not the sizes of inputs; where every size is known, bounds on how
                # many values there are may settle it. Each try of a detector takes 10 s.
                del waiting[:-1]
            continue
        if reasons:
            program.report.note(
                f"captured with {freedom} free; other calls run the float model ({reasons[-1]})"
            )
        return program
    raise CaptureError(reasons[-1])


def _check_capturable(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if module.training:
            raise CaptureError(f"capture: expected a model in eval mode, {name or 'it'} trains")
        hooks = [
            hook
            for table in (module._forward_hooks, module._forward_pre_hooks)
            for hook in table.values()
            # Old-style weight_norm and spectral_norm are hooks; what they compute is captured.
            if not type(hook).__module__.startswith("torch.nn.utils")
        ]
        if hooks:
            where = f"module {name!r}" if name else "the model"
            raise CaptureError(f"{where} has forward hooks, which a captured graph would not call")


def _capture(
    model: nn.Module, signature: Any, calls: list[dict[str, Any]], freedom: str, prefix: str
) -> Program:
    bound = calls[0]
    batched, repeated = _with_batch_two(bound) if freedom != "no size" else (bound, False)
    exported = _export(model, signature, batched, freedom, _free_dims(freedom, calls))
    leaves, in_spec = pytree.tree_flatten(bound)
    unlifted = exported.module()
    try:
        graph_module, placeholders = _plain(unlifted, leaves, prefix)
    except NotFunctionalError:
        # torch's own functionalization traces anew: 6x the seconds of replace_in_place.
        exported = _functionalized(exported)
        unlifted = exported.module()
        try:
            graph_module, placeholders = _plain(unlifted, leaves, prefix)
        except NotFunctionalError as error:
            raise CaptureError(str(error)) from error
    spec = call_spec(
        signature, in_spec, leaves, placeholders, exported, unlifted, example_was_one=repeated
    )
    spec = verified(model, graph_module, spec, bound, calls[1:])
    return Program(graph_module, report=Report(path="graph"), call=spec)


def _varied(calls: list[dict[str, Any]]) -> list[set[int]]:
    """Return for each tensor of the first call the dimensions whose size another one has not."""
    leaves, structure = pytree.tree_flatten(calls[0])
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    varied: list[set[int]] = [set() for _ in tensors]
    for call in calls[1:]:
        others, other_structure = pytree.tree_flatten(call)
        others = [leaf for leaf in others if isinstance(leaf, torch.Tensor)]
        if other_structure != structure or len(others) != len(tensors):
            continue
        for dims, mine, other in zip(varied, tensors, others, strict=True):
            if mine.dim() == other.dim():
                dims |= {d for d in range(mine.dim()) if mine.shape[d] != other.shape[d]}
    return varied


def _free_dims(freedom: str, calls: list[dict[str, Any]]) -> list[set[int]]:
    """Return the dimensions of each tensor of the call that are left free."""
    tensors = tensors_of(calls[0])
    if freedom == "every size":
        return [set(range(t.dim())) for t in tensors]
    batch = [{0} if t.dim() else set[int]() for t in tensors]
    if freedom == VARIED:
        return [first | other for first, other in zip(batch, _varied(calls), strict=True)]
    return batch if freedom == "the batch size" else [set() for _ in tensors]


def _with_batch_two(bound: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the arguments with batch 2 where the example has batch 1, and whether it had.

    torch.export takes size 1 as a constant (0/1 specialisation).
    """
    leaves, spec = pytree.tree_flatten(bound)
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    if not tensors or any(t.dim() == 0 or t.shape[0] != 1 for t in tensors):
        return bound, False
    doubled = [torch.cat([x, x]) if isinstance(x, torch.Tensor) else x for x in leaves]
    return pytree.tree_unflatten(doubled, spec), True


def _export(
    model: nn.Module,
    signature: Any,
    bound: dict[str, Any],
    freedom: str,
    free_dims: list[set[int]],
) -> torch.export.ExportedProgram:
    arguments = signature.bind_partial()
    arguments.arguments.update(bound)
    args, kwargs = arguments.args, arguments.kwargs
    shapes = torch.export.ShapesCollection()
    auto = torch.export.Dim.AUTO
    tensors = tensors_of(bound)
    for tensor, free in zip(tensors, free_dims, strict=True):
        if free:
            shapes[tensor] = dict.fromkeys(sorted(free), auto)
    seconds = SYMBOLIC_SECONDS if freedom == "every size" else float("inf")
    try:
        dynamic = shapes.dynamic_shapes(model, args, kwargs) if freedom != "no size" else None
        with _quiet(), torch.no_grad(), _Tracing(seconds):
            return torch.export.export(model, args, kwargs, dynamic_shapes=dynamic, strict=False)
    except Exception as error:  # export raises whatever the model's code or its tracer raises
        raise CaptureError(f"torch.export: {type(error).__name__}: {_first_line(error)}") from error


def _functionalized(exported: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return the program with writes through views replaced, operators otherwise as they are."""
    try:
        with _quiet(), torch.no_grad():
            return exported.run_decompositions({})
    except Exception as error:  # whatever tracing raises
        raise CaptureError(f"torch.export: functionalization: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    line = text.splitlines()[0].partition(". ")[0]
    if isinstance(error, GuardOnDataDependentSymNode):
        # Said twice, and sums over the levels of a pyramid; where it stands says more.
        line = line.partition(" (unhinted")[0]
        line = line if len(line) <= 120 else f"{line[:119]}…"
        return f"{line}{_place(error)}"
    return line[:200]


def _place(error: Exception) -> str:
    """Return the last line of the model's own code in the traceback, " at boxes.py:103, f"."""
    package = Path(__file__).parents[1]
    ours = tuple(f"{folder}{os.sep}" for folder in (Path(torch.__file__).parent, package))
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith((*ours, "<"))]
    if not theirs:
        return ""
    return f" at {Path(theirs[-1].filename).name}:{theirs[-1].lineno}, {theirs[-1].name}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the tracer's warnings: they are for whoever writes the model, and run to pages.

    torch 2.14 also prints the graph so far to stderr where values decide: 9000 lines of a detector.
    """
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class _Tracing(TorchFunctionMode):
    """Raises TimeoutError in a torch call soon after the deadline; knows shapes at once.

    ResNet-50 makes 33 000 calls, most of them of attributes: the clock is read at some only.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.end = time.thread_time() + seconds
        self.calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.calls += 1
        if self.calls % 32 == 0 and time.thread_time() > self.end:
            raise TimeoutError(f"symbolic sizes take longer than {self.seconds:.0f} s")
        return known_shapes.traced(func)(*args, **(kwargs or {}))


def _plain(
    unlifted: fx.GraphModule, leaves: list[Any], prefix: str
) -> tuple[fx.GraphModule, list[fx.Node | None]]:
    """Return the graph with flat inputs and outputs, its tensors under TENSORS, and functional.

    The second value has for each leaf of the call its placeholder, None when it is no tensor.
    """
    graph = fx.Graph()
    root = nn.Module()
    result = fx.GraphModule(root, graph)
    graph = result.graph
    copies: dict[fx.Node, fx.Node] = {}
    tensors: dict[int, str] = {}
    placeholders: list[fx.Node | None] = []
    for node in unlifted.graph.nodes:
        if node.op == "placeholder":
            leaf = leaves[len(placeholders)]
            if isinstance(leaf, torch.Tensor):
                copies[node] = graph.node_copy(node)
                placeholders.append(copies[node])
            else:
                placeholders.append(None)
                if any(user.name != "_guards_fn" for user in node.users):
                    raise CaptureError(f"the argument {node.name} is used as a symbolic number")
        elif node.target in ("_guards_fn", torch._C._set_grad_enabled):
            continue
        elif node.op == "get_attr":
            value = attribute(unlifted, node.target)
            if isinstance(value, torch.Tensor):
                target = tensors.get(id(value))
                if target is None:
                    target = tensors[id(value)] = set_tensor(result, prefix + node.target, value)
                copies[node] = graph.get_attr(target)
                copies[node].meta = dict(node.meta)
            else:
                result.add_module(node.target, value)
                copies[node] = graph.node_copy(node)
        elif node.op == "output":
            flat = node.args[0]
            flat = tuple(flat) if isinstance(flat, (tuple, list)) else (flat,)
            graph.output(fx.map_arg(flat, lambda n: copies[n]))
        elif node.target in _STRIDED:
            raise CaptureError(f"{node.target} depends on the memory layout of its input")
        else:
            copies[node] = graph.node_copy(node, lambda n: copies[n])
            target = known_shapes.MEANT.get(node.target, node.target)
            copies[node].target = _LAYOUT_FREE.get(target, target)
    replace_in_place(graph)
    graph.eliminate_dead_code()
    graph.lint()
    result.recompile()
    return result, placeholders
