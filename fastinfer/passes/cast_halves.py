"""cast_halves: in a float16 or bfloat16 graph, its dtype behind uint8."""

from __future__ import annotations

import torch
from torch import fx

from fastinfer.graph.match import dtype, finish
from fastinfer.passes.cancel_quantize import is_dequantize, is_quantize
from fastinfer.program import Program
from fastinfer.types.device import HALVES

_to_copy = torch.ops.aten._to_copy.default


def cast_halves(program: Program) -> int:
    """Cast what dequantize answers, float32, to the graph's dtype; return how many casts it took.

    `lower` notes on each dequantize node what dtype its tensor has in the graph; quantize takes all
    of them. It is the last pass: those before look for quantize beside dequantize.
    """
    graph_module = program.graph_module
    graph, count = graph_module.graph, 0
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


def _in_float32(node: fx.Node) -> torch.Tensor | None:
    value = node.meta.get("val")
    return value.to(torch.float32) if isinstance(value, torch.Tensor) else None
