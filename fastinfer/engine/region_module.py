"""A module that runs a region of a graph in one call of the engine."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from fastinfer.types.region import Region

Source = nn.Module | Tensor


class RegionModule(nn.Module):
    """The nodes of `graph_module` as one op.

    sources: what the region's steps name by index: a module with a buffer `packed`, or a table. The
    modules belong to the graph they came from and are not registered here, so a state_dict has each
    once. A hook on one of them makes the region run node by node, so that the hook sees its call.
    """

    def __init__(
        self, region: Region, sources: Sequence[Source], graph_module: fx.GraphModule
    ) -> None:
        super().__init__()
        self.region = region
        self._program = region.to_text()
        # In tuples: nn.Module would register them.
        self._modules_of = tuple(s for s in sources if isinstance(s, nn.Module))
        self._sources = tuple(sources)
        self._graph_modules = (graph_module,)
        self._op = torch.ops.fastinfer.int8_region.default

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return what the graph's nodes would."""
        for module in self._modules_of:
            if module._forward_hooks or module._forward_pre_hooks:
                result: Tensor | tuple[Tensor, ...] = self._graph_modules[0](*inputs)
                return result
        packed = [s if isinstance(s, Tensor) else s._buffers["packed"] for s in self._sources]
        outputs: list[Tensor] = self._op(inputs, packed, self._program)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

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
