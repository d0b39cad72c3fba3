"""sink_dequantize: operations that only move elements run on uint8."""

from __future__ import annotations

import operator

import torch
from torch import fx

from fastinfer.graph.match import finish
from fastinfer.graph.transparent import is_transparent
from fastinfer.passes.cancel_quantize import DEQUANTIZE, QUANTIZE, qparams
from fastinfer.program import Program

aten = torch.ops.aten
#: Answer several tensors, or have no uint8 kernel on CPU (torch 2.14.1).
_NOT_ON_UINT8 = frozenset(
    {
        operator.getitem,
        aten.max_pool2d_with_indices.default,
        aten.adaptive_max_pool2d.default,
        aten.max_pool1d.default,
    }
)
_LISTS = frozenset(
    {
        aten.chunk.default,
        aten.split.Tensor,
        aten.split_with_sizes.default,
        aten.unbind.int,
    }
)


def sink_dequantize(program: Program) -> int:
    """Move dequantize nodes behind what only moves elements; return how many operations moved.

    Only where int8 follows: every user in the end quantizes with the same map again.
    """
    graph = program.graph_module.graph
    count = 0
    for node in list(graph.nodes):
        if not is_transparent(node) or node.target in _NOT_ON_UINT8:
            continue
        sources = node.all_input_nodes
        maps = {qparams(s) if s.target is DEQUANTIZE else None for s in sources}
        if len(maps) != 1 or None in maps:
            continue
        (wanted,) = maps
        if not _requantized(node, wanted):
            continue
        results = list(node.users) if node.target in _LISTS else [node]
        for source in sources:
            node.replace_input_with(source, source.args[0])
        for result in results:
            users = list(result.users)
            with graph.inserting_after(result):
                after = graph.call_function(DEQUANTIZE, (result, *wanted))
            for user in users:
                user.replace_input_with(result, after)
        for source in sources:
            if not source.users:
                graph.erase_node(source)
        count += 1
    if count:
        finish(program.graph_module)
    return count


def _requantized(node: fx.Node, wanted: object) -> bool:
    """Return True when all paths from node lead through moves to a quantize with this map."""
    if not node.users:
        return False
    for user in node.users:
        if user.target is QUANTIZE:
            if qparams(user) != wanted:
                return False
        elif user.target is operator.getitem and node.target in _LISTS:
            if not _requantized(user, wanted):
                return False
        elif not is_transparent(user) or user.target in _NOT_ON_UINT8:
            return False
        elif not _requantized(user, wanted):
            return False
    return True
