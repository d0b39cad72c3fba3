"""cast_halves: in a float16 or bfloat16 graph, float32 right before and behind uint8."""

from __future__ import annotations

import torch
from torch import fx

from fastinfer.graph.match import dtype, finish
from fastinfer.passes.cancel_quantize import is_dequantize, is_quantize
from fastinfer.program import Program
from fastinfer.types.device import HALVES

_to_copy = torch.ops.aten._to_copy.default


def cast_halves(program: Program) -> int:
    """Cast what quantize reads to float32, and what dequantize answers to the graph's dtype.

    Return how many casts were placed. `lower` notes on each dequantize node what dtype its tensor
    has in the graph. It is the last pass: those before look for quantize beside dequantize.
    """
    graph_module = program.graph_module
    graph, count = graph_module.graph, 0
    widened: dict[fx.Node, fx.Node] = {}
    for node in list(graph.nodes):
        source = node.args[0] if is_quantize(node) else None
        if not isinstance(source, fx.Node) or is_dequantize(source):
            continue
        if dtype(source) == torch.float32 or _is_cast(source):
            continue
        if source not in widened:
            with graph.inserting_after(source):
                wide = graph.call_function(_to_copy, (source,), {"dtype": torch.float32})
            wide.meta["val"] = _in_float32(source)
            widened[source] = wide
            count += 1
        node.replace_input_with(source, widened[source])
    for node in list(graph.nodes):
        wanted = dtype(node) if is_dequantize(node) else None
        users = [user for user in node.users if not is_quantize(user)]
        if wanted not in HALVES or not users:
            continue
        with graph.inserting_after(node):
            narrowed = graph.call_function(_to_copy, (node,), {"dtype": wanted})
        narrowed.meta = dict(node.meta)
        node.meta["val"] = _in_float32(node)
        for user in users:
            user.replace_input_with(node, narrowed)
        count += 1
    if count:
        finish(graph_module)
    return count


def _is_cast(node: fx.Node) -> bool:
    return node.target is _to_copy and node.kwargs.get("dtype") is torch.float32


def _in_float32(node: fx.Node) -> torch.Tensor | None:
    value = node.meta.get("val")
    return value.to(torch.float32) if isinstance(value, torch.Tensor) else None
