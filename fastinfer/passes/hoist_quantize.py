"""hoist_quantize: what is quantized after elements only moved is quantized before they do."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fastinfer.graph.match import arguments, dims, dtype, finish, pair
from fastinfer.passes.cancel_quantize import is_quantize, map_of
from fastinfer.program import Program

aten = torch.ops.aten
own = torch.ops.fastinfer

#: Operators that move, repeat or choose elements, and do not make them fewer.
_MOVES = frozenset(
    {
        aten.upsample_nearest2d.vec, aten.pad.default, aten.roll.default,
        aten.pixel_shuffle.default, aten.pixel_unshuffle.default, aten.channel_shuffle.default,
        aten.permute.default, aten.transpose.int, aten.reshape.default, aten.flatten.using_ints,
        aten.flip.default, aten.contiguous.default, aten.clone.default, aten.max_pool2d.default,
    }
)  # fmt: skip


def hoist_quantize(program: Program) -> int:
    """Put quantize nodes before the operators that move float elements to them; return how many.

    Exact: a code depends on its element alone, and the largest element has the largest code. On a
    CPU a fourth of the bytes move, and the engine has steps for it.
    """
    graph_module = program.graph_module
    graph, count = graph_module.graph, 0
    for node in reversed(list(graph.nodes)):
        quantized = _only_map(node)
        if quantized is None:
            continue
        x, users = node.args[0], list(node.users)
        with graph.inserting_before(node):
            codes = graph.call_function(
                own.quantize.default, (x, *quantized, len(dims(x) or ()) == 4)
            )
            codes.meta = dict(x.meta)
            made = _moved(graph, node, codes, *quantized)
        made.meta = dict(node.meta)
        for user in users:
            user.replace_all_uses_with(made)
            graph.erase_node(user)
        graph.erase_node(node)
        count += 1
    if count:
        finish(graph_module)
    return count


def _only_map(node: fx.Node) -> tuple[float, int] | None:
    """Return the one map that all users of a moving operator quantize with, None without one."""
    if node.op != "call_function" or node.target not in _MOVES or not node.users:
        return None
    x, value = node.args[0], node.meta.get("val")
    if not isinstance(x, fx.Node) or dtype(x) != torch.float32 or dims(x) is None:
        return None
    if not isinstance(value, torch.Tensor) or value.device.type != "cpu":
        return None
    if not _has_form(node, value) or not all(map(is_quantize, node.users)):
        return None
    maps = {map_of(user) for user in node.users}
    return maps.pop() if len(maps) == 1 else None


def _has_form(node: fx.Node, value: torch.Tensor) -> bool:
    """Return False where there is no operator on codes: an unbatched image, a fill not known."""
    if node.target is aten.max_pool2d.default:
        return value.dim() == 4
    fill = arguments(node)["value"] if node.target is aten.pad.default else None
    return fill is None or isinstance(fill, (int, float))


def _moved(
    graph: fx.Graph, node: fx.Node, codes: fx.Node, scale: float, zero_point: int
) -> fx.Node:
    """Return the operator on codes of the map."""
    values = arguments(node)
    if node.target is aten.max_pool2d.default:
        stride = values["stride"] or values["kernel_size"]
        pairs = (values["kernel_size"], stride, values["padding"], values["dilation"])
        lists = [list(pair(p)) for p in pairs]
        return graph.call_function(
            own.int8_max_pool2d.default, (codes, *lists, values["ceil_mode"])
        )
    rest: Any = node.args[1:]
    if node.target is aten.pad.default and values["mode"] == "constant":
        fill = torch.tensor(float(values["value"] or 0.0))
        code = own.quantize(fill, scale, zero_point, False)
        rest = (values["pad"], "constant", int(code))
    operator: Any = node.target
    return graph.call_function(operator, (codes, *rest), dict(node.kwargs))
