"""Which tensors of the graph share one affine map, and who makes and reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import fx

from fastinfer.graph.layer import Layer
from fastinfer.graph.transparent import is_transparent


@dataclass
class TensorGroup:
    """Tensors connected by operations that only move elements.

    producers are layers whose output is in the group; inputs_of and residuals_of are the layers
    that read it; is_single says that it is one tensor that only layers make and read.
    """

    members: list[fx.Node] = field(default_factory=list)
    producers: list[fx.Node] = field(default_factory=list)
    inputs_of: list[fx.Node] = field(default_factory=list)
    residuals_of: list[fx.Node] = field(default_factory=list)
    is_single: bool = True


def find_groups(
    graph: fx.Graph, layers: Mapping[fx.Node, Layer], static: frozenset[fx.Node]
) -> dict[fx.Node, TensorGroup]:
    """Return the group of every tensor; layers outside `static` count as float operations."""
    parent: dict[fx.Node, fx.Node] = {node: node for node in graph.nodes}

    def root(node: fx.Node) -> fx.Node:
        while parent[node] is not node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for node in graph.nodes:
        if is_transparent(node):
            for source in node.all_input_nodes:
                parent[root(source)] = root(node)

    groups: dict[fx.Node, TensorGroup] = {}
    for node in graph.nodes:
        group = groups.setdefault(root(node), TensorGroup())
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
    for group in groups.values():
        group.is_single = group.is_single and len(group.members) == 1
    return {node: groups[root(node)] for node in graph.nodes}
