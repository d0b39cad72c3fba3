"""fuse_residual: an addition behind a layer becomes the residual of its epilogue."""

from __future__ import annotations

from dataclasses import replace as changed

import torch
from torch import fx

from fastinfer.graph.layer import Layer
from fastinfer.graph.match import (
    arguments,
    dims,
    dtype,
    finish,
    layer_of,
    nodes_calling,
    order,
    replace,
)
from fastinfer.program import Program

aten = torch.ops.aten


def fuse_residual(program: Program) -> int:
    """Fuse additions of a layer's output and a tensor of the same shape; return how many.

    Where both operands are layers the later one takes the other's output. Broadcasting additions
    and constants stay.
    """
    graph_module = program.graph_module
    count = 0
    for add in nodes_calling(graph_module.graph, aten.add.Tensor):
        if arguments(add)["alpha"] != 1:
            continue
        taker, other = _choose(graph_module, add)
        if taker is None or other is None:
            continue
        layer = layer_of(graph_module, taker, Layer)
        layer.spec = changed(layer.spec, epilogue=changed(layer.spec.epilogue, has_residual=True))
        add.prepend(taker)  # its only user is the addition, so it may wait for the other operand
        taker.args = (taker.args[0], other)
        replace(add, taker)
        count += 1
    if count:
        finish(graph_module)
    return count


def _choose(graph_module: fx.GraphModule, add: fx.Node) -> tuple[fx.Node | None, fx.Node | None]:
    """Return the layer that takes the residual and the other operand, or (None, None)."""
    a, b = add.args[:2]
    if not isinstance(a, fx.Node) or not isinstance(b, fx.Node) or a is b:
        return None, None
    if dims(a) is None or dims(a) != dims(b) or dtype(a) != dtype(b):
        return None, None
    positions = order(add.graph)
    pairs = [(a, b), (b, a)]
    able = [(x, y) for x, y in pairs if _can_take(graph_module, x) and y.op != "get_attr"]
    if not able:
        return None, None
    return max(able, key=lambda pair: positions[pair[0]])


def _can_take(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    layer = layer_of(graph_module, node, Layer)
    if layer is None or len(node.users) != 1:
        return False
    epilogue = layer.spec.epilogue
    return epilogue.activation.is_identity and not epilogue.has_residual
