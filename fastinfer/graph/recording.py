"""What the submodules of a model are called with in one call of it."""

from __future__ import annotations

import time
import weakref
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fastinfer.types.call import Call, tensors_of

#: Calls of different sizes that are kept of one module: the levels of a pyramid, not the steps of a
#: loop.
KEPT_CALLS = 8


@dataclass
class Recording:
    """The calls of a module: kept are those of distinct sizes, `count` and `seconds` say of all."""

    calls: list[Call] = field(default_factory=list)
    count: int = 0
    seconds: float = 0.0

    @property
    def by_size(self) -> list[Call]:
        """The kept calls without empty tensors, the one with the most elements first."""
        sized = [(_elements(call), call) for call in self.calls]
        return [
            call for size, call in sorted(sized, key=lambda pair: pair[0], reverse=True) if size
        ]


def _elements(call: Call) -> int:
    """Return the elements of the call's tensors, 0 when one of them is empty."""
    sizes = [tensor.numel() for tensor in tensors_of(call)]
    return sum(sizes) if all(sizes) else 0


def _form(call: Call) -> tuple[Any, ...]:
    """Return what tells calls apart: structure, sizes and the arguments that are no tensors."""
    leaves, structure = pytree.tree_flatten(call)
    return str(structure), tuple(_leaf_form(leaf) for leaf in leaves)


def _leaf_form(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return tuple(leaf.shape), leaf.dtype
    return (type(leaf), leaf) if isinstance(leaf, (int, float, str)) else type(leaf)


class _Copies:
    """Copies of tensors as they are now, one for each: a block's input is that of its parts too."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Tensor], int, Tensor]] = {}

    def __call__(self, tensor: Tensor) -> Tensor:
        version = -1 if tensor.is_inference() else tensor._version
        known = self._known.get(id(tensor))
        if known is not None and known[0]() is tensor and known[1] == version != -1:
            return known[2]
        copied = tensor.detach().clone()
        self._known[id(tensor)] = weakref.ref(tensor), version, copied
        return copied


class _Recorder:
    """Hooks on modules that fill their recordings while the model runs."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.recordings: dict[str, Recording] = {}
        self._forms: dict[str, set[Any]] = {}
        self._starts: dict[str, float] = {}
        self._copied = _Copies()
        self._handles: list[Any] = []
        for name, module in modules.items():
            self._watch(name, module)

    def _watch(self, name: str, module: nn.Module) -> None:
        def before(_: nn.Module, args: Any, kwargs: Any) -> None:
            self._keep(name, (tuple(args), dict(kwargs)))
            self._starts[name] = time.perf_counter()

        def after(_: nn.Module, args: Any, output: Any) -> None:
            self.recordings[name].seconds += time.perf_counter() - self._starts[name]

        self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        self._handles.append(module.register_forward_hook(after))

    def _keep(self, name: str, call: Call) -> None:
        recording = self.recordings.setdefault(name, Recording())
        recording.count += 1
        forms = self._forms.setdefault(name, set())
        if len(forms) < KEPT_CALLS and (form := _form(call)) not in forms:
            forms.add(form)
            recording.calls.append(pytree.tree_map_only(Tensor, self._copied, call))

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def record_calls(model: nn.Module, call: Call, names: Collection[str]) -> dict[str, Recording]:
    """Return what the named submodules are called with in one call of the model.

    A module that is not called has no entry. Tensors are copies; the model may write into its own.

    Raises what the model raises.
    """
    modules = {name: module for name, module in model.named_modules() if name in names}
    recorder = _Recorder(modules)
    try:
        args, kwargs = pytree.tree_map_only(Tensor, torch.clone, call)
        with torch.no_grad():
            model(*args, **kwargs)
    finally:
        recorder.remove()
    return recorder.recordings
