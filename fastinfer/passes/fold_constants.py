"""fold_constants: compute now what depends on weights and literals alone."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from fastinfer.graph.match import add_constant, constant, dtype, finish
from fastinfer.program import Program

aten = torch.ops.aten

#: A folded tensor may be this large, or twice the bytes of the constants it comes from.
_FREE_BYTES = 1 << 20


def fold_constants(program: Program) -> int:
    """Replace operators on constants by their value; return how many values were stored.

    Random operators, values the model answers directly and values that are much larger than what
    they come from (an expanded buffer) stay.
    """
    graph_module = program.graph_module
    values: dict[fx.Node, Any] = {}
    sizes: dict[fx.Node, int] = {}
    folded = 0
    for node in list(graph_module.graph.nodes):
        tensor = constant(graph_module, node)
        if tensor is not None:
            values[node], sizes[node] = tensor, _bytes(tensor)
        elif _is_foldable(node) and all(source in values for source in _sources(node)):
            value = _evaluate(node, values)
            size = sum(sizes[source] for source in _sources(node))
            if value is not None and _bytes(value) <= max(_FREE_BYTES, 2 * size):
                values[node], sizes[node] = value, size
    for node, value in values.items():
        needed = [user for user in node.users if user not in values]
        if node.op == "get_attr" or not needed or not isinstance(value, torch.Tensor):
            continue
        if any(user.op == "output" for user in needed):
            continue
        stored = add_constant(graph_module, node, f"folded.{node.name}", value.contiguous())
        stored.meta = dict(node.meta)
        for user in needed:
            user.replace_input_with(node, stored)
        folded += 1
    if folded:
        graph_module.graph.eliminate_dead_code()
        finish(graph_module)
    return folded


#: Of their first argument they take dtype and device.
_NEW = frozenset({aten.new_zeros.default, aten.new_ones.default, aten.new_full.default})


def _sources(node: fx.Node) -> list[fx.Node]:
    """Return the nodes that a node's value depends on."""
    return list(node.all_input_nodes)[1:] if node.target in _NEW else node.all_input_nodes


def _is_foldable(node: fx.Node) -> bool:
    if node.op != "call_function":
        return False
    if node.target is operator.getitem:
        return True
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target._schema.is_mutable:
        return False
    return torch.Tag.nondeterministic_seeded not in target.tags


def _evaluate(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    known = values
    if node.target in _NEW:
        like = node.all_input_nodes[0]
        if "val" not in like.meta:
            return None
        known = {**values, like: torch.empty(0, dtype=dtype(like), device=like.meta["val"].device)}
    args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), lambda source: known[source])
    try:
        with torch.no_grad():
            return node.target(*args, **kwargs)  # type: ignore[operator]
    except (RuntimeError, TypeError, NotImplementedError):
        return None  # what cannot run alone (a symbolic size, another device) stays in the graph


def _bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, (tuple, list)):
        return sum(_bytes(item) for item in value)
    return 0
