"""common_subexpressions: compute equal things once."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fastinfer.graph.match import finish, replace
from fastinfer.program import Program


def common_subexpressions(program: Program) -> int:
    """Merge pure operators with equal arguments; return how many were removed."""
    graph_module = program.graph_module
    seen: dict[Any, fx.Node] = {}
    count = 0
    for node in list(graph_module.graph.nodes):
        if not _is_pure(node):
            continue
        key = (node.op, node.target, _key(node.args), _key(dict(node.kwargs)))
        first = seen.setdefault(key, node)
        # Two outputs stay two tensors: the caller may write into one of them.
        if first is not node and not any(user.op == "output" for user in node.users):
            replace(node, first)
            count += 1
    if count:
        finish(graph_module)
    return count


def _is_pure(node: fx.Node) -> bool:
    if node.op == "get_attr":
        return True
    if node.op != "call_function":
        return False
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        random = torch.Tag.nondeterministic_seeded in target.tags
        return not target._schema.is_mutable and not random
    return getattr(target, "__module__", "") in ("_operator", "builtins", "math")


def _key(value: Any) -> Any:
    """Return a hashable value, equal exactly when the arguments are (1, 1.0 and True differ)."""
    if isinstance(value, fx.Node):
        return value
    if isinstance(value, (tuple, list)):
        return tuple(_key(item) for item in value)
    if isinstance(value, dict):
        return tuple((name, _key(item)) for name, item in value.items())
    if isinstance(value, slice):
        return ("slice", _key(value.start), _key(value.stop), _key(value.step))
    return (type(value), repr(value))
