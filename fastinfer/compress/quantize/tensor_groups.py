"""Which tensors of the graph share one affine map, and who makes and reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import fx

from fastinfer.graph.between import Between
from fastinfer.graph.layer import Layer
from fastinfer.graph.match import dims
from fastinfer.graph.transparent import is_transparent, tensor_inputs

#: Parts of a cat that others read too share its map only if their ranges differ by less: sharing
#: costs them log2 of this in bits, converting costs one more rounding.
SHARED_RATIO = 1.5

#: The range of a tensor, None where it is not known.
Range = Callable[[fx.Node], tuple[float, float] | None]


@dataclass
class TensorGroup:
    """Tensors with one affine map: connected by operations that only move elements.

    producers are layers whose output is in the group; inputs_of and residuals_of are the layers
    that read it, betweens the int8 operations between layers that do; is_single says that it is
    one tensor that only layers make and read.
    """

    members: list[fx.Node] = field(default_factory=list)
    producers: list[fx.Node] = field(default_factory=list)
    inputs_of: list[fx.Node] = field(default_factory=list)
    residuals_of: list[fx.Node] = field(default_factory=list)
    betweens: list[fx.Node] = field(default_factory=list)
    is_single: bool = True


class _Sets:
    """Disjoint sets of nodes, each with the range of its members."""

    def __init__(self, graph: fx.Graph, known: Range) -> None:
        self._parent = {node: node for node in graph.nodes}
        self._range = {node: known(node) for node in graph.nodes}

    def root(self, node: fx.Node) -> fx.Node:
        parent = self._parent
        while parent[node] is not node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    def join(self, a: fx.Node, b: fx.Node) -> None:
        a, b = self.root(a), self.root(b)
        if a is b:
            return
        ranges = [r for r in (self._range[a], self._range[b]) if r is not None]
        self._parent[a] = b
        if ranges:
            self._range[b] = min(lo for lo, _ in ranges), max(hi for _, hi in ranges)

    def width(self, node: fx.Node) -> float:
        """Return what 255 steps of a per-tensor map of the node's set span."""
        lo, hi = self._range[self.root(node)] or (0.0, 0.0)
        return max(hi, 0.0) - min(lo, 0.0)


def find_groups(
    graph: fx.Graph,
    layers: Mapping[fx.Node, Layer],
    static: frozenset[fx.Node],
    betweens: Mapping[fx.Node, Between] | None = None,
    split: frozenset[fx.Node] = frozenset(),
    known: Range = lambda node: None,
) -> dict[fx.Node, TensorGroup]:
    """Return the group of every tensor; layers outside `static` count as float operations.

    betweens: the operations between layers that run in int8; split: the cats among them that share
    no map with their parts.
    """
    betweens = betweens or {}
    sets = _Sets(graph, known)
    for node in graph.nodes:
        is_cat = node in betweens and betweens[node].spec.kind == "cat"
        if is_transparent(node) and not is_cat:
            for source in tensor_inputs(node):
                sets.join(source, node)
        if node in betweens and betweens[node].spec.kind == "upsample":
            sets.join(betweens[node].inputs[0], node)
    for node, between in betweens.items():
        if between.spec.kind == "cat" and node not in split:
            _share_cat(sets, node, between)

    groups: dict[fx.Node, TensorGroup] = {}
    for node in graph.nodes:
        group = groups.setdefault(sets.root(node), TensorGroup())
        group.members.append(node)
        if node in static:
            group.producers.append(node)
        else:
            group.is_single = False
        for user in node.users:
            if user not in static:
                group.is_single = False
                continue
            if user.args[0] is node:
                group.inputs_of.append(user)
            if len(user.args) > 1 and user.args[1] is node:
                group.residuals_of.append(user)
    for node, between in betweens.items():
        for source in between.inputs:
            groups[sets.root(source)].betweens.append(node)
    for group in groups.values():
        group.is_single = group.is_single and len(group.members) == 1
    return {node: groups[sets.root(node)] for node in graph.nodes}


def split_cats(
    betweens: Mapping[fx.Node, Between], static: frozenset[fx.Node]
) -> frozenset[fx.Node]:
    """Return the cats of channels that only static layers read: their parts may differ in scale."""
    return frozenset(
        node
        for node, between in betweens.items()
        if between.spec.kind == "cat"
        and between.spec.dim == 1
        and between.spec.sizes
        and len(dims(node) or ()) in (2, 4)
        and all(user in static and user.all_input_nodes == [node] for user in node.users)
    )


def connected_cats(
    betweens: Mapping[fx.Node, Between], cats: frozenset[fx.Node]
) -> list[list[fx.Node]]:
    """Return the cats in graph order, those together that are linked by parts they share."""
    found: list[tuple[set[fx.Node], list[fx.Node]]] = []
    for node, between in betweens.items():
        if node not in cats:
            continue
        parts, linked = set(between.inputs), [node]
        apart = []
        for others in found:
            if others[0] & parts:
                parts, linked = parts | others[0], others[1] + linked
            else:
                apart.append(others)
        found = [*apart, (parts, linked)]
    return [linked for _, linked in found]


def _share_cat(sets: _Sets, node: fx.Node, cat: Between) -> None:
    """Give parts of a cat its own map where that costs nothing, or little.

    A part that nothing else reads is rounded once to the result's step instead of twice. One that
    others read would be coarser for them, and through a chain of cats so would all of a network.
    """
    for part in cat.inputs:
        alone = set(part.users) == {node} and not is_transparent(part)
        widths = sorted((sets.width(part), sets.width(node)))
        if alone or widths[1] <= SHARED_RATIO * widths[0]:
            sets.join(part, node)
