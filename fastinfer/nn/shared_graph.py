"""A graph module whose tensors lie in the very modules that held them before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx, nn


class SharedGraph(fx.GraphModule):
    """A graph over `root` that shares with it the modules its get_attr nodes read tensors from.

    fx.GraphModule makes such modules anew, with the same tensors: another graph over them would not
    see a tensor that load_state_dict(assign=True) or torch.export puts in the place of one. Copies
    by `deepcopy` share what the originals shared.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph, class_name: str = "GraphModule") -> None:
        super().__init__(root, graph, class_name)
        self.share_tensors(root)

    def share_tensors(self, root: nn.Module) -> None:
        """Read tensors from the modules of root."""
        for node in self.graph.nodes:
            if node.op == "get_attr":
                holder = str(node.target).partition(".")[0]
                if holder in root._modules:
                    self._modules[holder] = root._modules[holder]

    def _deepcopy_init(self) -> Callable[..., Any]:
        return SharedGraph.__init__
