"""The devices that a graph's operators name: of torch.arange, of a cast."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx


def put_on(graph_module: fx.GraphModule, device: torch.device) -> None:
    """Let every operator that names a device name this one."""
    changed = False

    def there(value: Any) -> Any:
        nonlocal changed
        if not isinstance(value, torch.device) or value == device:
            return value
        changed = True
        return device

    for node in graph_module.graph.nodes:
        node.args = fx.node.map_aggregate(node.args, there)
        node.kwargs = fx.node.map_aggregate(node.kwargs, there)
    if changed:
        graph_module.recompile()
