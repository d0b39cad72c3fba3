"""Islands: what a graph computes in float, or moves, between int8 layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import fx

Test = Callable[[fx.Node], bool]


def island_nodes(graph: fx.Graph, is_candidate: Test, is_anchor: Test) -> set[fx.Node]:
    """Return the candidates on a way from an anchor to an anchor that has candidates only.

    A step of the engine is worth its while there: it saves that a region ends and another begins.
    At a region's border it would not, and a view there costs torch nothing.
    """
    nodes = list(graph.nodes)
    candidates = {node for node in nodes if is_candidate(node)}
    before = _reached(nodes, candidates, is_anchor, lambda node: node.all_input_nodes)
    behind = _reached(reversed(nodes), candidates, is_anchor, lambda node: node.users)
    return before & behind


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
