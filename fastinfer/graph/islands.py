"""Islands: what a graph computes in float, or moves, beside int8 layers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable

import torch
from torch import fx

Test = Callable[[fx.Node], bool]

aten = torch.ops.aten

#: What computes nothing: torch answers a view, or a copy that the engine has a step of its own for.
VIEWS: frozenset[object] = frozenset(
    {
        operator.getitem, aten.permute.default, aten.transpose.int, aten.t.default,
        aten.mT.default, aten.reshape.default, aten.view.default, aten._unsafe_view.default,
        aten.view_as.default, aten.flatten.using_ints, aten.unflatten.int, aten.squeeze.default,
        aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default, aten.select.int,
        aten.unbind.int, aten.slice.Tensor, aten.chunk.default, aten.split.Tensor,
        aten.split_with_sizes.default, aten.expand.default, aten.expand_as.default,
        aten.contiguous.default, aten.clone.default, aten.alias.default, aten.dropout.default,
        aten.detach.default,
    }
)  # fmt: skip


#: Of those what the engine steps through, and torch would have to copy for it.
_PERMUTES = frozenset({aten.permute.default, aten.transpose.int, aten.t.default, aten.mT.default})


def island_nodes(
    graph: fx.Graph, is_candidate: Test, is_anchor: Test, views: Collection[object] = VIEWS
) -> set[fx.Node]:
    """Return the candidates that a way of candidates joins to an anchor, but for views at its ends.

    A step of the engine is worth its while between anchors, where it saves that a region ends and
    another begins, and beside one: torch's threads would wait for the next operation on the cores
    that the region wants. A view there costs torch nothing, but for permutes of what the region
    reads.
    """
    nodes = list(graph.nodes)
    candidates = {node for node in nodes if is_candidate(node)}
    before = _reached(nodes, candidates, is_anchor, lambda node: node.all_input_nodes)
    behind = _reached(reversed(nodes), candidates, is_anchor, lambda node: node.users)
    inside = before & behind
    for node in reversed(nodes):
        if node in before and (node.target not in views or any(n in inside for n in node.users)):
            inside.add(node)
    for node in nodes:
        sources = node.all_input_nodes
        is_view = node.target in views and node.target not in _PERMUTES
        if node in behind and (not is_view or any(n in inside for n in sources)):
            inside.add(node)
    return inside


def _reached(
    nodes: Iterable[fx.Node],
    candidates: set[fx.Node],
    is_anchor: Test,
    neighbours: Callable[[fx.Node], Iterable[fx.Node]],
) -> set[fx.Node]:
    reached: set[fx.Node] = set()
    for node in nodes:
        if node in candidates and any(n in reached or is_anchor(n) for n in neighbours(node)):
            reached.add(node)
    return reached
