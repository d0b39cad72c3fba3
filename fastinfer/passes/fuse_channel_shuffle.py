"""fuse_channel_shuffle: the three moves by which models shuffle channels become one operator."""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import fx

from fastinfer.graph.match import dims, finish, nodes_calling, replace
from fastinfer.program import Program

aten = torch.ops.aten

_RESHAPES = (aten.view.default, aten.reshape.default, aten._unsafe_view.default)


def fuse_channel_shuffle(program: Program) -> int:
    """Replace view [N, g, C/g, H, W], transpose(1, 2), view [N, C, H, W]; return how many.

    Source: ShuffleNet (arXiv 1707.01083), section 3.1.
    """
    graph_module = program.graph_module
    count = 0
    for last in nodes_calling(graph_module.graph, *_RESHAPES):
        transpose = last.args[0]
        groups = _groups(transpose, last)
        if groups is None:
            continue
        assert isinstance(transpose, fx.Node)
        first = transpose.args[0]
        assert isinstance(first, fx.Node)
        with graph_module.graph.inserting_before(last):
            shuffled = graph_module.graph.call_function(
                aten.channel_shuffle.default, (first.args[0], groups)
            )
        shuffled.meta = dict(last.meta)
        replace(last, shuffled)
        count += 1
    if count:
        finish(graph_module)
    return count


def _groups(transpose: object, last: fx.Node) -> int | None:
    """Return the number of groups when the nodes are a shuffle whose parts nobody else reads."""
    if not _is_call(transpose, (aten.transpose.int,)):
        return None
    first = transpose.args[0]
    if list(transpose.args[1:]) != [1, 2] or not _is_call(first, _RESHAPES):
        return None
    whole, parts, back = dims(first.args[0]), dims(first), dims(last)
    if whole is None or parts is None or len(whole) != 4 or len(parts) != 5 or back != whole:
        return None
    if parts[:1] + parts[3:] != whole[:1] + whole[2:]:
        return None
    groups, each, channels = parts[1], parts[2], whole[1]
    if not (isinstance(groups, int) and isinstance(each, int) and isinstance(channels, int)):
        return None
    return groups if groups * each == channels else None


def _is_call(node: object, targets: tuple[object, ...]) -> TypeGuard[fx.Node]:
    return (
        isinstance(node, fx.Node)
        and node.op == "call_function"
        and node.target in targets
        and len(node.users) == 1
    )
