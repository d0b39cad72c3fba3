"""A module that runs a region of a graph in one call of the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from fastinfer import runtime
from fastinfer.engine.binding import Binding, Bound, Source, tensors_of
from fastinfer.types.region import Region


class RegionModule(nn.Module):
    """The nodes of `graph_module` as one op.

    sources: what the steps name by index: packed weights, tables, parameters of norms. They belong
    to the graph they came from and are not registered here, so a state_dict has each once. Every
    call takes them as they are then: the engine keeps them from one call to the next, for as long
    as their modules have the same tensors (passing all of them takes longer than a layer). Tools
    that trace see the op that takes them. A hook on a layer makes the region run node by node, so
    that the hook sees its call. names: of the steps, for people.
    """

    #: Its own calls need not go through nn.Module.__call__.
    takes_no_hooks = True

    def __init__(
        self,
        region: Region,
        sources: Sequence[Source],
        graph_module: fx.GraphModule,
        names: Sequence[str],
    ) -> None:
        super().__init__()
        self.region = region
        self.names = tuple(names)
        self.program = region.to_text()
        # In tuples: nn.Module would register them.
        called = [str(n.target) for n in graph_module.graph.nodes if n.op == "call_module"]
        nodes = graph_module.graph.nodes
        called = dict.fromkeys(str(n.target) for n in nodes if n.op == "call_module")
        modules = (m for name in called for m in graph_module.get_submodule(name).modules())
        self._modules_of = tuple(dict.fromkeys(modules))
        self._sources = tuple(sources)
        self._graph_modules = (graph_module,)
        self._binding = Binding()
        # Looked up here: between two calls the way there through torch.ops leaves the caches.
        # Of an op with kernels in C++ OpOverload.__call__ does no more than call _op.
        self._call_bound = torch.ops.fastinfer.int8_region_call.default._op
        self._call_one = torch.ops.fastinfer.int8_region_call_one.default._op
        self._is_of_one = region.n_inputs == 1 and len(region.outputs) == 1

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return what the graph's nodes would."""
        outputs: list[Tensor]
        if _is_plain(inputs):
            bound = self._binding.bound
            if bound is None or not bound.holds():
                if self._has_hooks():
                    return self._run_nodes(inputs)
                bound = self._binding.bound = Bound(self.program, self._modules_of, self._sources)
            if self._is_of_one:
                result: Tensor = self._call_one(inputs[0], bound.number)
                return result
            outputs = self._call_bound(inputs, bound.number)
        else:
            if self._has_hooks():
                return self._run_nodes(inputs)
            outputs = torch.ops.fastinfer.int8_region.default(inputs, self.packed(), self.program)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def answer(self, x: Any, known: Mapping[Any, bool]) -> Tensor | None:
        """Return forward(x), of a region with one output, where only the kernels will see the call.

        None elsewhere, and where known[shape, dtype, device] is not True.
        """
        # All that _is_plain asks, in one frame.
        if torch.compiler.is_compiling() or torch._C._is_tracing():
            return None
        bound = self._binding.bound
        if bound is None or type(x) is not Tensor or x.requires_grad:
            return None
        if not known.get((x.shape, x.dtype, x.device), False):
            return None
        if torch._C._len_torch_dispatch_stack() != 0 or not bound.holds():
            return None
        result: Tensor = self._call_one(x, bound.number)
        return result

    def _has_hooks(self) -> bool:
        return any(m._forward_hooks or m._forward_pre_hooks for m in self._modules_of)

    def _run_nodes(self, inputs: Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
        result: Tensor | tuple[Tensor, ...] = self._graph_modules[0](*inputs)
        return result

    def packed(self) -> list[Tensor]:
        """Return what its steps name by index: packed weights, tables, parameters of norms."""
        return tensors_of(self._sources)

    @property
    def sources(self) -> tuple[Source, ...]:
        """What the region's steps name by index."""
        return self._sources

    @property
    def graph_module(self) -> fx.GraphModule:
        """The nodes it stands for."""
        return self._graph_modules[0]

    def extra_repr(self) -> str:
        """Describe the region."""
        return f"{len(self.region.steps)} steps, {len(self.region.outputs)} results"


def _is_plain(inputs: Sequence[Tensor]) -> bool:
    """Return True for a call that nothing but the kernels will see."""
    # First: torch.compile knows the answer and looks no further.
    if torch.compiler.is_compiling() or not runtime.has_kernels():
        return False
    if torch._C._is_tracing() or torch._C._len_torch_dispatch_stack() != 0:
        return False
    for x in inputs:  # noqa: SIM110 - a generator would be another frame to fetch
        if type(x) is not Tensor or not x.is_cpu:
            return False
    return True
