"""The largest submodules that can be captured, of a model that cannot be as a whole."""

from __future__ import annotations

import heapq
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from torch import nn

from fastinfer.graph.capture import capture
from fastinfer.graph.errors import CaptureError
from fastinfer.graph.recording import Recording
from fastinfer.program import Program
from fastinfer.types.call import Call

#: CPU seconds for all tries of one model. A detector's backbone and heads take 5 to 11 s, a failing
#: part up to 2 s (torch 2.14.1, Zen 4, 2026-11).
SEARCH_SECONDS = 60.0
#: After so many failures of one class of modules, others of it are not tried.
TRIES_OF_A_CLASS = 2

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


@dataclass(frozen=True)
class Submodule:
    """A captured submodule: `calls` are those it was captured with and checked on."""

    name: str
    module: nn.Module
    program: Program
    calls: tuple[Call, ...]
    count: int


@dataclass
class Search:
    """What was captured, in the model's order, and why the others were not, by name."""

    found: list[Submodule] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)


def candidates(model: nn.Module, is_ignored: Callable[[str], bool]) -> set[str]:
    """Return the names of the submodules that hold a layer that is not ignored.

    A plain layer is none: nothing around it would be gained.
    """
    found: set[str] = set()
    for name, module in model.named_modules(remove_duplicate=False):
        if not _has_weights(module) or is_ignored(name):
            continue
        if type(module) in _LAYERS:
            name = name.rpartition(".")[0]
        while name:
            found.add(name)
            name = name.rpartition(".")[0]
    return found


def _has_weights(module: nn.Module) -> bool:
    """Return True for a layer and for a module that may use a matrix of its own as one."""
    return isinstance(module, _LAYERS) or (
        not _is_torchs(module) and any(p.dim() > 1 for p in module.parameters(recurse=False))
    )


def capture_submodules(
    model: nn.Module, recordings: Mapping[str, Recording], names: Collection[str]
) -> Search:
    """Return the captured submodules of model, top-down: where one fails its children are tried.

    What takes longest in the recorded call is tried first. A module that is not called itself, as a
    ModuleList, stands for its children.

    names: the submodules worth a try.
    """
    search = Search()
    first_names = {id(module): name for name, module in model.named_modules()}
    order = {name: index for index, name in enumerate(first_names.values())}
    failures: dict[type[nn.Module], list[str]] = defaultdict(list)
    queue: list[tuple[float, int, str, nn.Module]] = []
    seen: set[int] = set()

    def descend(module: nn.Module) -> None:
        for child in module.children():
            name = first_names[id(child)]
            if name not in names or id(child) in seen:
                continue
            seen.add(id(child))
            recording = recordings.get(name)
            if recording is None:
                descend(child)
            else:
                heapq.heappush(queue, (-recording.seconds, order[name], name, child))

    end = time.thread_time() + SEARCH_SECONDS
    descend(model)
    while queue:
        _, _, name, module = heapq.heappop(queue)
        alike = failures[type(module)]
        if time.thread_time() > end:
            search.reasons[name] = f"not tried: the search took {SEARCH_SECONDS:.0f} s"
            continue
        if len(alike) >= TRIES_OF_A_CLASS and not _is_torchs(module):
            search.reasons[name] = f"not tried: {alike[0]} of the same class failed"
            descend(module)
            continue
        try:
            search.found.append(_captured(name, module, recordings[name]))
        except CaptureError as error:
            failures[type(module)].append(name)
            search.reasons[name] = str(error)
            descend(module)
    search.found.sort(key=lambda part: order[part.name])
    return search


def _is_torchs(module: nn.Module) -> bool:
    """Return True for torch's own classes: two of nn.Sequential have nothing in common."""
    return type(module).__module__.startswith("torch.nn.")


def _captured(name: str, module: nn.Module, recording: Recording) -> Submodule:
    calls = recording.by_size
    if not calls:
        raise CaptureError("the example calls it without a tensor that has elements")
    if type(module).__call__ is not nn.Module.__call__:
        raise CaptureError("its class has a __call__ of its own, which a graph would not run")
    (args, kwargs), *others = calls
    try:
        program = capture(module, args, kwargs, others=others, prefix=f"{name}.")
    except CaptureError:
        raise
    except Exception as error:  # a fault of ours, or a forward without a signature
        raise CaptureError(f"capture: {type(error).__name__}: {error}") from error
    return Submodule(name, module, program, tuple(calls), recording.count)
