"""remove_identity: drop what answers its input: dropout in eval, copies, needless casts, pads."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fastinfer.graph.match import arguments, dims, dtype, finish, replace
from fastinfer.program import Program

aten = torch.ops.aten

_DROPOUTS = frozenset(
    {
        aten.dropout.default,
        aten.feature_dropout.default,
        aten.alpha_dropout.default,
        aten.feature_alpha_dropout.default,
    }
)
#: Copies and new names of a value. Nothing in a captured graph depends on memory layout.
_COPIES = frozenset(
    {
        aten.alias.default,
        aten.clone.default,
        aten.contiguous.default,
        aten.detach.default,
        aten.lift_fresh.default,
        aten.lift_fresh_copy.default,
        aten.resolve_conj.default,
        aten.resolve_neg.default,
    }
)
_CASTS = frozenset(
    {
        aten.to.dtype,
        aten.to.dtype_layout,
        aten.to.device,
        aten.to.other,
        aten.type_as.default,
        aten._to_copy.default,
    }
)
_SHAPES = frozenset({aten.reshape.default, aten.expand.default, aten.flatten.using_ints})


def remove_identity(program: Program) -> int:
    """Remove operators that change nothing; return how many."""
    graph_module = program.graph_module
    count = 0
    for node in list(graph_module.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target is aten._assert_tensor_metadata.default:
            graph_module.graph.erase_node(node)
            count += 1
        elif _is_identity(node):
            replace(node, node.args[0])
            count += 1
    if count:
        finish(graph_module)
    return count


def _is_identity(node: fx.Node) -> bool:
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node):
        return False
    if node.target in _DROPOUTS:
        return not (arguments(node)["train"] and arguments(node)["p"])
    if node.target in _COPIES:
        return not _is_answered(node, source)
    if node.target is aten.pad.default:
        amounts: Any = arguments(node)["pad"]
        return not any(type(n) is not int or n for n in amounts) and not _is_answered(node, source)
    if node.target in _CASTS:
        return _same_type(node, source) and not _is_answered(node, source)
    if node.target in _SHAPES:
        return dims(node) is not None and dims(node) == dims(source)
    return node.target is aten.slice.Tensor and _is_whole(arguments(node))


def _is_answered(node: fx.Node, source: fx.Node) -> bool:
    """Return True where the caller would get an input or a weight instead of its copy."""
    answered = any(user.op == "output" for user in node.users)
    return answered and source.op in ("placeholder", "get_attr")


def _same_type(node: fx.Node, source: fx.Node) -> bool:
    before, after = source.meta.get("val"), node.meta.get("val")
    known = dtype(source) is not None and dtype(source) == dtype(node)
    return known and before.device == after.device  # type: ignore[union-attr]


def _is_whole(values: dict[str, Any]) -> bool:
    start, end = values["start"], values["end"]
    whole_end = end is None or (isinstance(end, int) and end >= 2**62)
    return start in (None, 0) and whole_end and values["step"] == 1
