"""A lowered graph in the engine's terms: operators that several steps or other sizes stand for."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from fastinfer.graph.match import dims

aten = torch.ops.aten
own = torch.ops.fastinfer

#: Keys of node.meta, in a copy of a graph: size and type of the example's value.
_SHAPE, _DTYPE = "fastinfer_shape", "fastinfer_dtype"


class Shapes(fx.Interpreter):
    """Runs a graph and notes the shape and dtype of every value."""

    def run_node(self, n: fx.Node) -> Any:
        """Run a node as ever."""
        value = super().run_node(n)
        if isinstance(value, Tensor):
            n.meta[_SHAPE], n.meta[_DTYPE] = tuple(value.shape), value.dtype
        return value


def shape(node: fx.Node) -> tuple[int, ...] | None:
    """Return the example's shape of a node's value, None where it is no tensor."""
    return node.meta.get(_SHAPE)


def rank(node: fx.Node) -> int | None:
    """Return how many dimensions a node's value has."""
    sizes = shape(node)
    return None if sizes is None else len(sizes)


def is_uint8(node: fx.Node) -> bool:
    """Return True for a node whose value is uint8."""
    return node.meta.get(_DTYPE) is torch.uint8


def is_value(node: fx.Node) -> bool:
    """Return True for a node whose value the engine can hold: uint8 or float32, no number alone."""
    return node.meta.get(_DTYPE) in (torch.uint8, torch.float32) and bool(shape(node))


def set_shape(node: fx.Node, sizes: tuple[int, ...]) -> None:
    """Note the example's shape of a node that was made after it was seen."""
    node.meta[_SHAPE] = sizes


#: What cuts a tensor along a dimension.
SPLITS = (aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default)


def channel_slices(graph: fx.Graph) -> None:
    """Turn chunk and split of an image's channels into one slice for each part."""
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in SPLITS or node.kwargs:
            continue
        x, _, *dim = node.args
        users = list(node.users)
        if dim != [1] or rank(x) != 4 or any(u.target is not operator.getitem for u in users):
            continue
        first = 0
        starts = []
        for size in part_sizes(x.meta[_SHAPE][1], node):
            starts.append((first, first + size))
            first += size
        for user in users:
            with graph.inserting_before(user):
                part = graph.call_function(aten.slice.Tensor, (x, 1, *starts[user.args[1]]))
            part.meta = dict(user.meta)
            user.replace_all_uses_with(part)
            graph.erase_node(user)
        graph.erase_node(node)


def part_sizes(channels: int, node: fx.Node) -> list[int]:
    """Return the sizes of the parts that a node of SPLITS cuts so many channels into."""
    argument: Any = node.args[1]
    if node.target is aten.split_with_sizes.default:
        return list(argument)
    size = -(-channels // argument) if node.target is aten.chunk.default else argument
    return [min(size, channels - at) for at in range(0, channels, size)]


def split_constants(graph: fx.Graph) -> None:
    """Give every reader of a tensor a node of its own: some are steps, others are not."""
    for node in list(graph.nodes):
        if node.op != "get_attr":
            continue
        for user in list(node.users)[1:]:
            with graph.inserting_before(node):
                own_node = graph.get_attr(str(node.target))
            own_node.meta = dict(node.meta)
            user.replace_input_with(node, own_node)


def upsamples(graph: fx.Graph) -> None:
    """Give every upsample of ours a size that a program can hold: of another value, or numbers.

    A free size is an expression of the inputs' sizes; a value before it that has the same one says
    it as well. torch's nearest upsample of uint8 becomes int8_upsample2d.
    """
    before: list[fx.Node] = []
    for node in list(graph.nodes):
        if node.op == "call_function" and not node.kwargs:
            _upsample(graph, node, before)
        if rank(node) == 4:
            before.append(node)


def _upsample(graph: fx.Graph, node: fx.Node, before: list[fx.Node]) -> None:
    arguments: Any = node.args
    op: Any = own.int8_upsample2d.default
    if node.target in (op, own.float_upsample2d.default):
        op, (x, like, size, factors, *flags) = node.target, arguments
    elif node.target is aten.upsample_nearest2d.vec and is_uint8(node):
        x, size, *rest = arguments
        like, size, factors, flags = None, size or [], (rest or [None])[0] or [], [False, False]
    else:
        return
    sources: list[Any] = [n for n in size if isinstance(n, fx.Node)]
    if sources:
        wanted = (dims(node) or ())[2:]
        # One that is int8, too, where there is one: it is more likely to be in the region.
        same = [n for n in before if wanted and (dims(n) or ())[2:] == wanted]
        like = next((n for n in same if is_uint8(n)), same[0] if same else None)
        if like is None:
            return
        size = []
    with graph.inserting_before(node):
        arguments = (x, like, size, factors, *flags)
        made = graph.call_function(op, arguments)
    made.meta = dict(node.meta)
    node.replace_all_uses_with(made)
    graph.erase_node(node)
    erase_unread(graph, sources)


def erase_unread(graph: fx.Graph, nodes: list[fx.Node]) -> None:
    """Erase what computed a size that nothing needs any more."""
    while nodes:
        node = nodes.pop()
        if node.op == "call_function" and not node.users:
            sources = [n for n in node.all_input_nodes if not isinstance(n.meta.get("val"), Tensor)]
            graph.erase_node(node)
            nodes += sources
