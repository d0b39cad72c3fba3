"""Calls of our float operations in the place of torch's; v: torch's arguments by name.

None where ours does not compute that. They stand before the node they are for, which stays.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fastinfer.graph.match import dims

own = torch.ops.fastinfer


def new_call(graph: fx.Graph, like: fx.Node, target: Any, *args: Any) -> fx.Node:
    """Return a new call in the place of `like`, with its shape where those it reads have theirs."""
    node = graph.call_function(target, args)
    node.meta = {k: v for k, v in like.meta.items() if k != "val"}
    if all("val" in source.meta for source in node.all_input_nodes):
        values = fx.node.map_arg(args, lambda source: source.meta["val"])
        node.meta["val"] = target(*values)
    return node


def softmax(graph: fx.Graph, node: fx.Node, v: dict[str, Any]) -> fx.Node | None:
    """Return float_softmax for aten.softmax along the last dimension or an image's channels."""
    x, rank = v["self"], len(dims(v["self"]) or ())
    dim = v["dim"] % rank if rank else 0
    is_along_rows = dim == rank - 1 or (dim == 1 and rank == 4)
    if rank < 2 or v["dtype"] not in (None, torch.float32) or not is_along_rows:
        return None
    return new_call(graph, node, own.float_softmax.default, x, dim)


def layer_norm(graph: fx.Graph, node: fx.Node, v: dict[str, Any]) -> fx.Node | None:
    """Return float_layer_norm for aten.layer_norm of the last dimension."""
    rank = len(dims(v["input"]) or ())
    if rank < 2 or len(v["normalized_shape"]) != 1:
        return None
    rest = (v["weight"], v["bias"], v["eps"], rank - 1)
    return new_call(graph, node, own.float_layer_norm.default, v["input"], *rest)


def mean_of_image(graph: fx.Graph, node: fx.Node, v: dict[str, Any]) -> fx.Node | None:
    """Return float_global_avg_pool2d for the adaptive pooling that makes one pixel."""
    if list(v["output_size"]) != [1, 1] or len(dims(v["self"]) or ()) != 4:
        return None
    return new_call(graph, node, own.float_global_avg_pool2d.default, v["self"])
