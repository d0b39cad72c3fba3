"""A region's packed buffers as the engine keeps them from one call to the next."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastinfer import runtime

#: A module and the name of its buffer or parameter.
Source = tuple[nn.Module, str]


class Bound:
    """A number that the engine knows packed buffers and a program by, until this object goes.

    modules: of the region; sources: of its packed buffers, which must be what they are now, and no
    module may have a hook on its forward, for `holds` to be True.
    """

    def __init__(
        self, program: str, modules: Sequence[nn.Module], sources: Sequence[Source]
    ) -> None:
        tensors = tensors_of(sources)
        extension = runtime.require_kernels()
        self._namespaces = tuple(module.__dict__ for module in modules)
        self._slots = tuple(
            (module.__dict__, name, tensor)
            for (module, name), tensor in zip(sources, tensors, strict=True)
        )
        # It borrows the tuples from this object.
        self._watch = extension.ModuleWatch(self._namespaces, self._slots)
        self.number: int = torch.ops.fastinfer.int8_region_bind(tensors, program)
        # Not at exit: the process' memory goes anyhow, and torch may have gone before.
        weakref.finalize(self, extension.release_region, self.number).atexit = False

    def holds(self) -> bool:
        """Return True while no module has a hook or another tensor than it had."""
        return bool(self._watch.holds())


class Binding:
    """Where a module keeps its Bound. Copies and pickles have none: their tensors are others."""

    def __init__(self) -> None:
        self.bound: Bound | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Binding:
        return Binding()

    def __reduce__(self) -> tuple[type[Binding], tuple[()]]:
        return Binding, ()


def tensors_of(sources: Sequence[Source]) -> list[Tensor]:
    """Return the tensors as they are now."""
    return [
        module._buffers[name] if name in module._buffers else module._parameters[name]
        for module, name in sources
    ]
