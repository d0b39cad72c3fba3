"""cancel_quantize: quantize(dequantize(q)) with one map is q."""

from __future__ import annotations

import torch
from torch import fx

from fastinfer.graph.match import finish
from fastinfer.program import Program

QUANTIZE = torch.ops.fastinfer.quantize.default
DEQUANTIZE = torch.ops.fastinfer.dequantize.default


def qparams(node: object) -> tuple[object, object] | None:
    """Return (scale, zero_point) of a quantize or dequantize node, None for anything else."""
    if isinstance(node, fx.Node) and node.op == "call_function":
        if node.target in (QUANTIZE, DEQUANTIZE):
            return node.args[1], node.args[2]
    return None


def cancel_quantize(program: Program) -> int:
    """Remove quantize nodes whose input was dequantized with the same map; return how many."""
    graph = program.graph_module.graph
    count = 0
    for node in list(graph.nodes):
        source = node.args[0] if node.target is QUANTIZE else None
        if not isinstance(source, fx.Node) or source.target is not DEQUANTIZE:
            continue
        if qparams(source) != qparams(node):
            continue
        node.replace_all_uses_with(source.args[0])
        graph.erase_node(node)
        if not source.users:
            graph.erase_node(source)
        count += 1
    if count:
        finish(program.graph_module)
    return count
