"""A float16 or bfloat16 graph in float32: what it is observed, planned and judged on.

Codes and sums of int8 layers are computed in float32 or wider whatever the model's dtype, so a plan
made in float32 holds for both.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from fastinfer.types.device import HALVES, takes_int8


def is_half(graph_module: fx.GraphModule) -> bool:
    """Return True where a graph has tensors of float16 or bfloat16 that may become int8."""
    return any(
        t.dtype in HALVES and takes_int8(t.dtype, t.device)
        for table in (graph_module.parameters(), graph_module.buffers())
        for t in table
    )


def in_float32(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Return a copy of a graph, nodes and modules of the same names, with float32 for halves."""
    copied = copy.deepcopy(graph_module)
    copied._apply(_widened)
    for node in copied.graph.nodes:
        node.args = fx.node.map_aggregate(node.args, _wide_dtype)
        node.kwargs = fx.node.map_aggregate(node.kwargs, _wide_dtype)
        if "val" in node.meta:
            node.meta["val"] = pytree.tree_map_only(Tensor, _widened, node.meta["val"])
    copied.recompile()
    return copied


def values_in_float32(values: Sequence[Any]) -> tuple[Any, ...]:
    """Return a call's flat inputs with float32 for halves."""
    return tuple(_widened(v) if isinstance(v, Tensor) else v for v in values)


def _widened(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32) if tensor.dtype in HALVES else tensor


def _wide_dtype(value: Any) -> Any:
    return torch.float32 if isinstance(value, torch.dtype) and value in HALVES else value
