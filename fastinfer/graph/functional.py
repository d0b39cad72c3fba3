"""Make a captured graph functional: in-place operators become the ones that answer a new tensor."""

from __future__ import annotations

import operator

import torch
from torch import fx

from fastinfer.graph.match import arguments, order

#: Operators whose schema hides that they may answer their input itself.
_MAY_RETURN_INPUT = frozenset(
    {
        torch.ops.aten.dropout.default,
        torch.ops.aten.feature_dropout.default,
        torch.ops.aten.alpha_dropout.default,
        torch.ops.aten.pad.default,
    }
)


class NotFunctionalError(Exception):
    """The graph writes into memory that it, its inputs or its state also see elsewhere."""


def is_mutating(node: fx.Node) -> bool:
    """Return True when the operator writes into one of its arguments."""
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and bool(schema.is_mutable)


def replace_in_place(graph: fx.Graph) -> int:
    """Replace in-place operators by out-of-place ones; return how many.

    Raises NotFunctionalError when an operator has no such form, or when the memory it writes is
    read later by another name (a view), or belongs to an input, a parameter or a buffer.
    """
    mutating = [node for node in graph.nodes if is_mutating(node)]
    if not mutating:
        return 0
    positions = order(graph)
    aliases = _alias_classes(graph)
    for node in mutating:
        written = node.args[0] if node.args else None
        functional = _out_of_place(node)
        if functional is None or not isinstance(written, fx.Node):
            raise NotFunctionalError(f"{node.target} has no out-of-place form")
        # Nodes before this one that may see the memory; its own result comes after and is new.
        for other in aliases[written]:
            if other.op in ("placeholder", "get_attr"):
                raise NotFunctionalError(f"{node.target} writes into {other.name}")
            if positions[other] < positions[node] and any(
                positions[user] > positions[node] for user in other.users
            ):
                raise NotFunctionalError(f"{node.target} writes into memory that {other} reads")
        node.target = functional
    return len(mutating)


def _out_of_place(node: fx.Node) -> torch._ops.OpOverload | None:
    """Return aten.add.Tensor for aten.add_.Tensor, if it takes the same arguments."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return None
    namespace, _, name = target._schema.name.partition("::")
    if not name.endswith("_") or name.endswith("__"):
        return None
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    functional = getattr(packet, target._overloadname, None)
    if functional is None:
        return None
    wanted = [str(a.real_type) for a in target._schema.arguments]
    if [str(a.real_type) for a in functional._schema.arguments][: len(wanted)] != wanted:
        return None
    return functional  # type: ignore[no-any-return]


def _alias_classes(graph: fx.Graph) -> dict[fx.Node, list[fx.Node]]:
    """Return for each node the nodes that may share memory with it, itself included."""
    classes: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.nodes:
        merged = {id(classes[source]): classes[source] for source in _aliased_arguments(node)}
        members = [member for one in merged.values() for member in one] + [node]
        for member in members:
            classes[member] = members
    return classes


def _aliased_arguments(node: fx.Node) -> list[fx.Node]:
    if node.op != "call_function":
        return []
    inputs = list(node.all_input_nodes)
    if node.target is operator.getitem or node.target in _MAY_RETURN_INPUT:
        return inputs
    schema = getattr(node.target, "_schema", None)
    if schema is None or all(r.alias_info is None for r in schema.returns):
        return []
    # add_(self, other) answers self; other's memory stays apart.
    values = arguments(node)
    shared = {a.name for a in schema.arguments if a.alias_info is not None}
    return [n for n in inputs if any(_holds(values[name], n) for name in shared)]


def _holds(value: object, node: fx.Node) -> bool:
    """Return True when an argument is the node or a list that has it."""
    return value is node or (isinstance(value, (list, tuple)) and any(v is node for v in value))
