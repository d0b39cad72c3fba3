"""sink_dequantize: operators that only move elements run on uint8 between int8 layers."""

from __future__ import annotations

import operator

import torch
from torch import fx

from fastinfer.graph.match import finish
from fastinfer.graph.transparent import UINT8_OPS, tensor_inputs
from fastinfer.passes.cancel_quantize import Map, is_dequantize, is_quantize, map_of
from fastinfer.program import Program


def sink_dequantize(program: Program) -> int:
    """Move dequantize nodes behind the operators that may run on uint8; return how many moved.

    An operator runs on uint8 when all its tensors have one map and its result, maybe through more
    such operators, is quantized again with that map. Users that want float get a dequantize of
    the result, which is exact: selecting and dequantizing commute.
    """
    graph_module = program.graph_module
    maps = _reachable(graph_module.graph)
    moved = _wanted(maps)
    if not moved:
        return 0
    graph = graph_module.graph
    for node in [n for n in graph.nodes if n in moved]:
        for source in list(tensor_inputs(node)):
            if is_dequantize(source):
                node.replace_input_with(source, source.args[0])
        # getitem of several results is part of the operator: the results are what users see.
        if _gives_tensor(node):
            _dequantize_for_others(graph, node, maps[node], moved)
    for node in reversed(list(graph.nodes)):
        if is_dequantize(node) and not node.users:
            graph.erase_node(node)
    finish(graph_module)
    return len(moved)


def _dequantize_for_others(graph: fx.Graph, node: fx.Node, quant: Map, moved: set[fx.Node]) -> None:
    others = [user for user in node.users if user not in moved]
    if not others:
        return
    with graph.inserting_after(node):
        value = graph.call_function(torch.ops.fastinfer.dequantize.default, (node, *quant))
    value.meta = dict(node.meta)
    for user in others:
        if is_quantize(user) and map_of(user) == quant:
            user.replace_all_uses_with(node)
            graph.erase_node(user)
        else:
            user.replace_input_with(node, value)


def _reachable(graph: fx.Graph) -> dict[fx.Node, Map]:
    """Return the operators that could run on uint8, each with its map."""
    maps: dict[fx.Node, Map] = {}
    for node in graph.nodes:
        if node.op != "call_function" or node.target not in UINT8_OPS:
            continue
        sources = list(tensor_inputs(node))
        if node.target is operator.getitem and sources and sources[0] not in maps:
            continue
        found = {
            map_of(source) if is_dequantize(source) else maps.get(source) for source in sources
        }
        quant = found.pop() if len(found) == 1 else None
        if quant is not None:
            maps[node] = quant
    return maps


def _gives_tensor(node: fx.Node) -> bool:
    """Return False for an operator that answers a list of tensors."""
    return (
        not node.users
        or any(user.target is not operator.getitem for user in node.users)
        or (isinstance(node.meta.get("val"), torch.Tensor))
    )


def _wanted(maps: dict[fx.Node, Map]) -> set[fx.Node]:
    """Return the operators of maps from which a quantize with their map is reached."""
    wanted: set[fx.Node] = set()
    for node in reversed(list(maps)):
        for user in node.users:
            quantized = is_quantize(user) and map_of(user) == maps[node]
            if quantized or user in wanted:
                wanted.add(node)
                break
    # All results of one split move together: their getitems read the same uint8 list.
    for node in list(maps):
        source = next(tensor_inputs(node), None)
        if node.target is operator.getitem and source in wanted:
            wanted.add(node)
    # cat of a part that stays float cannot move; then nothing before it needs to, either.
    changed = True
    while changed:
        stuck = {
            node
            for node in wanted
            if any(not is_dequantize(s) and s not in wanted for s in tensor_inputs(node))
        }
        changed = bool(stuck)
        wanted -= stuck
    return wanted
