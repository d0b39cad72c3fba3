"""cancel_quantize: a tensor that is int8 already is not dequantized and quantized again."""

from __future__ import annotations

import torch
from torch import fx

from fastinfer.graph.match import finish, nodes_calling, order
from fastinfer.program import Program

Map = tuple[float, int]


def map_of(node: fx.Node) -> Map:
    """Return (scale, zero_point) of a quantize or dequantize node."""
    scale, zero_point = node.args[1:3]
    return float(scale), int(zero_point)  # type: ignore[arg-type]


def is_quantize(node: fx.Node) -> bool:
    """Return True for a node that makes uint8 of float."""
    return node.op == "call_function" and node.target is torch.ops.fastinfer.quantize.default


def is_dequantize(node: fx.Node) -> bool:
    """Return True for a node that makes float of uint8."""
    return node.op == "call_function" and node.target is torch.ops.fastinfer.dequantize.default


def cancel_quantize(program: Program) -> int:
    """Remove quantize(dequantize(q)) of one map, and second copies of a quantize; return how many.

    The round trip is exact: scale * (q - zero_point) quantizes to q again.
    """
    graph_module = program.graph_module
    graph, count = graph_module.graph, 0
    seen: dict[object, fx.Node] = {}
    positions = order(graph)
    for node in nodes_calling(graph, torch.ops.fastinfer.quantize.default):
        source = node.args[0]
        if not isinstance(source, fx.Node):
            continue
        if is_dequantize(source) and map_of(source) == map_of(node):
            node.replace_all_uses_with(source.args[0])  # type: ignore[arg-type]
            graph.erase_node(node)
            count += 1
            continue
        first = seen.setdefault((source, *node.args[1:]), node)
        if first is not node and positions[first] < positions[node]:
            node.replace_all_uses_with(first)
            graph.erase_node(node)
            count += 1
    for node in nodes_calling(graph, torch.ops.fastinfer.dequantize.default):
        if not node.users:
            graph.erase_node(node)
    if count:
        finish(graph_module)
    return count
