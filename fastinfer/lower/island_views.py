"""What islands are made of, rewritten so that each node is a step of the engine."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from fastinfer.graph.islands import island_nodes
from fastinfer.graph.match import dims
from fastinfer.lower.island_nodes import END, all_integers, island_operation, reshape_like
from fastinfer.lower.region_nodes import (
    SPLITS,
    erase_unread,
    is_uint8,
    is_value,
    part_sizes,
    rank,
    set_shape,
    shape,
)

aten = torch.ops.aten


def prepare_islands(graph_module: fx.GraphModule, is_anchor: Callable[[fx.Node], bool]) -> None:
    """Rewrite what islands are made of so that every node is a step, where it can be.

    is_anchor: a node that is a step anywhere.
    """
    graph = graph_module.graph

    def may_be_step(node: fx.Node) -> bool:
        is_view = node.op == "call_function" and node.target in _VIEWS
        return is_view or island_operation(node, graph_module) is not None

    inside = island_nodes(graph, may_be_step, is_anchor)
    _single_slices(graph, inside)
    _reshapes(graph, inside)


def _single_slices(graph: fx.Graph, inside: set[fx.Node]) -> None:
    """Turn unbind and select into slices of one index, which are reshaped, and cut splits."""
    for node in [n for n in graph.nodes if n in inside and not n.kwargs]:
        if not _is_known(node.args[0]):
            continue
        if node.target is aten.select.int:
            _single_slice(graph, inside, node, *node.args)
        elif node.target in SPLITS:
            _parts(graph, node, inside)
        elif node.target is aten.unbind.int:
            x, *dim = node.args
            users = list(node.users)
            if any(user.target is not operator.getitem for user in users):
                continue
            for user in users:
                _single_slice(graph, inside, user, x, (*dim, 0)[0], user.args[1])
            graph.erase_node(node)
    for node in reversed(list(graph.nodes)):
        if node.target is aten.permute.default and not node.users:
            graph.erase_node(node)


def _parts(graph: fx.Graph, node: fx.Node, inside: set[fx.Node]) -> None:
    """Turn chunk and split into a slice for each part, where sizes are known."""
    x, _, *rest = node.args
    dim, users = (*rest, 0)[0], list(node.users)
    size = (dims(x) or ())[dim]  # type: ignore[index]
    if type(size) is not int or any(user.target is not operator.getitem for user in users):
        return
    ends = list(itertools.accumulate(part_sizes(size, node)))
    for user in users:
        index: Any = user.args[1]
        first, last = (0, *ends)[index % len(ends)], ends[index]
        with graph.inserting_before(user):
            part = graph.call_function(aten.slice.Tensor, (x, dim, first, last))
        part.meta = dict(user.meta)
        user.replace_all_uses_with(part)
        graph.erase_node(user)
        inside.add(part)
    graph.erase_node(node)


def _is_known(x: object) -> bool:
    return isinstance(x, fx.Node) and shape(x) is not None and dims(x) is not None


def _single_slice(
    graph: fx.Graph, inside: set[fx.Node], node: fx.Node, x: Any, dim: Any, index: Any
) -> None:
    """Put a slice and a squeeze in the place of a node, x at an index."""
    if not all_integers([dim, index]):
        return
    last = index + 1 if index != -1 else END
    at, order = dim % rank(x), None  # type: ignore[operator]
    # Of a permuted tensor the slice comes first: a batch that was outermost stays so.
    if x.target is aten.permute.default and _is_known(x.args[0]) and all_integers(x.args[1]):
        moved = [d % rank(x) for d in x.args[1]]  # type: ignore[operator]
        x, at = x.args[0], moved[at]
        order = [d - (d > at) for d in moved if d != at]
    with graph.inserting_before(node):
        part = graph.call_function(aten.slice.Tensor, (x, at, index, last))
        made = graph.call_function(aten.squeeze.dim, (part, at))
        turned = made if order is None else graph.call_function(aten.permute.default, (made, order))
    sizes = list(shape(x) or ())
    part.meta, made.meta, turned.meta = dict(x.meta), dict(x.meta), dict(node.meta)
    part.meta["val"] = aten.slice.Tensor(x.meta["val"], at, index, last)
    set_shape(part, (*sizes[:at], 1, *sizes[at + 1 :]))
    if order is not None:
        made.meta["val"] = aten.squeeze.dim(part.meta["val"], at)
        set_shape(made, (*sizes[:at], *sizes[at + 1 :]))
        inside.add(made)
    inside.add(turned)
    node.replace_all_uses_with(turned)
    graph.erase_node(node)


_RESHAPES = frozenset(
    {
        aten.reshape.default, aten.view.default, aten._unsafe_view.default, aten.view_as.default,
        aten.flatten.using_ints, aten.unflatten.int, aten.squeeze.default, aten.squeeze.dim,
        aten.squeeze.dims, aten.unsqueeze.default,
    }
)  # fmt: skip


_VIEWS = _RESHAPES | {aten.select.int, aten.unbind.int, operator.getitem, *SPLITS}


def _reshapes(graph: fx.Graph, inside: set[fx.Node]) -> None:
    """Turn what changes a shape alone into reshape_like, with sizes that a program can hold."""
    before: list[fx.Node] = []
    for node in list(graph.nodes):
        made = None
        if node in inside and node.target in _RESHAPES and not node.kwargs:
            made = _reshaped(node, before)
        if made is not None:
            x = made[0]
            others = [n for n in node.all_input_nodes if n is not x]
            with graph.inserting_before(node):
                new = graph.call_function(reshape_like, made)
            new.meta = dict(node.meta)
            node.replace_all_uses_with(new)
            graph.erase_node(node)
            erase_unread(graph, others)
            node = new
        if dims(node) is not None and is_value(node):
            before.append(node)


def _reshaped(
    node: fx.Node, before: list[fx.Node]
) -> tuple[fx.Node, fx.Node | None, tuple[int, ...]] | None:
    x, wanted = node.args[0], dims(node)
    if not isinstance(x, fx.Node) or wanted is None or not _is_known(x):
        return None
    if node.target is aten.flatten.using_ints and rank(node) == 2:
        return None  # has a step of its own
    own_sizes = _sizes(wanted, dims(x) or ())
    if own_sizes is not None:
        return x, None, own_sizes
    for like in sorted(before, key=is_uint8, reverse=True):
        sizes = _sizes(wanted, dims(like) or ())
        if sizes is not None and -1 not in sizes:
            return x, like, sizes
    return None


def _sizes(wanted: tuple[object, ...], given: tuple[object, ...]) -> tuple[int, ...] | None:
    """Return sizes for reshape_like, which finds those that are no numbers among given."""
    found = []
    for i, size in enumerate(wanted):
        if i < len(given) and given[i] == size and (i == 0 or type(size) is not int):
            found.append(-2 - i)  # a batch stays a batch, also one that was a number
        elif type(size) is int:
            found.append(size)
        else:
            found.append(-2 - given.index(size) if size in given else -1)
    return tuple(found) if found.count(-1) <= 1 else None


def restore_reshapes(graph: fx.Graph) -> None:
    """Put torch's reshape in the place of every reshape_like: in a graph that is run, and saved."""
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target is not reshape_like:
            continue
        x, like, sizes = node.args
        with graph.inserting_before(node):
            base = x if like is None else like
            found = [
                n if n > -2 else graph.call_function(aten.sym_size.int, (base, -2 - n))
                for n in sizes  # type: ignore[union-attr]
            ]
            made = graph.call_function(aten.reshape.default, (x, found))
        made.meta = dict(node.meta)
        node.replace_all_uses_with(made)
        graph.erase_node(node)
