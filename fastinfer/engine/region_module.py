"""A module that runs a region of a graph in one call of the engine."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from fastinfer.types.region import Region

#: A module and the name of its buffer or parameter.
Source = tuple[nn.Module, str]


class RegionModule(nn.Module):
    """The nodes of `graph_module` as one op.

    sources: what the steps name by index: packed weights, tables, parameters of norms. They are
    read from their modules at every call, which belong to the graph they came from and are not
    registered here, so a state_dict has each once. A hook on a layer makes the region run node by
    node, so that the hook sees its call. names: of the steps, for people.
    """

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
        self._modules_of = tuple(graph_module.get_submodule(name) for name in dict.fromkeys(called))
        self._sources = tuple(sources)
        self._graph_modules = (graph_module,)
        self._op = torch.ops.fastinfer.int8_region.default

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return what the graph's nodes would."""
        for module in self._modules_of:
            if module._forward_hooks or module._forward_pre_hooks:
                result: Tensor | tuple[Tensor, ...] = self._graph_modules[0](*inputs)
                return result
        outputs: list[Tensor] = self._op(inputs, self.packed(), self.program)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def packed(self) -> list[Tensor]:
        """Return what its steps name by index: packed weights, tables, parameters of norms."""
        return [
            module._buffers[name] if name in module._buffers else module._parameters[name]
            for module, name in self._sources
        ]

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
