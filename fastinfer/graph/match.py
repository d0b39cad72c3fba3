"""Reading and rewriting a captured graph: arguments by name, constants, shapes, replacement."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn

#: Submodule of a captured graph module that holds its tensors under the model's own names.
TENSORS = "_tensors"


def nodes_calling(graph: fx.Graph, *targets: object) -> Iterator[fx.Node]:
    """Yield the call_function nodes of the graph, in order, whose target is one of targets."""
    wanted = set(targets)
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in wanted:
            yield node


def arguments(node: fx.Node) -> dict[str, Any]:
    """Return the arguments of an operator call by schema name, defaults filled in."""
    schema = node.target._schema  # type: ignore[union-attr]
    values: dict[str, Any] = {}
    for index, argument in enumerate(schema.arguments):
        if index < len(node.args):
            values[argument.name] = node.args[index]
        elif argument.name in node.kwargs:
            values[argument.name] = node.kwargs[argument.name]
        else:
            values[argument.name] = argument.default_value
    return values


def attribute(graph_module: fx.GraphModule, target: str) -> Any:
    """Return what a get_attr target names."""
    value: Any = graph_module
    for part in target.split("."):
        value = getattr(value, part)
    return value


def constant(graph_module: fx.GraphModule, node: object) -> torch.Tensor | None:
    """Return the tensor of a get_attr node; None for anything else."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value = attribute(graph_module, str(node.target))
    return value if isinstance(value, torch.Tensor) else None


def set_tensor(graph_module: fx.GraphModule, name: str, tensor: torch.Tensor) -> str:
    """Store a tensor under the holder and return its get_attr target; name is made unique."""
    path, _, leaf = f"{TENSORS}.{name}".rpartition(".")
    holder: nn.Module = graph_module
    for part in path.split("."):
        child = holder._modules.get(part)
        if child is None:
            child = nn.Module()
            holder.add_module(part, child)
        holder = child
    unique, count = leaf, 0
    while hasattr(holder, unique):
        count += 1
        unique = f"{leaf}_{count}"
    if isinstance(tensor, nn.Parameter):
        holder.register_parameter(unique, nn.Parameter(tensor.detach(), requires_grad=False))
    else:
        holder.register_buffer(unique, tensor.detach())
    return f"{path}.{unique}"


def tensor_name(node: fx.Node) -> str:
    """Return the model's name of the tensor of a get_attr node ("features.0.weight")."""
    return str(node.target).removeprefix(f"{TENSORS}.")


def add_constant(
    graph_module: fx.GraphModule, before: fx.Node, name: str, tensor: torch.Tensor
) -> fx.Node:
    """Insert a get_attr node for a new tensor before a node and return it."""
    target = set_tensor(graph_module, name, tensor)
    with graph_module.graph.inserting_before(before):
        return graph_module.graph.get_attr(target)


def layer_of(graph_module: fx.GraphModule, node: object, kind: type[nn.Module]) -> Any:
    """Return the submodule a call_module node calls when it is of this kind, else None."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    module = graph_module.get_submodule(str(node.target))
    return module if isinstance(module, kind) else None


def replace(node: fx.Node, other: fx.Node) -> None:
    """Let every user of node use other, keep the shape known for it, and erase node."""
    if "val" in node.meta:
        other.meta.setdefault("val", node.meta["val"])
    node.replace_all_uses_with(other)
    node.graph.erase_node(node)


def pair(value: Any) -> tuple[int, int]:
    """Return (height, width) of a pooling's argument: an int, or a list of one or two."""
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def order(graph: fx.Graph) -> dict[fx.Node, int]:
    """Return the position of each node."""
    return {node: index for index, node in enumerate(graph.nodes)}


def dims(node: object) -> tuple[object, ...] | None:
    """Return the sizes of a node's tensor (ints, or sympy expressions where free), if known."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    if not isinstance(value, torch.Tensor):
        return None
    # Comparing SymInts would add a guard; their expressions compare structurally.
    return tuple(size.node.expr if isinstance(size, torch.SymInt) else size for size in value.shape)


def dtype(node: object) -> torch.dtype | None:
    """Return the dtype of a node's tensor, if known."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value.dtype if isinstance(value, torch.Tensor) else None


def finish(graph_module: fx.GraphModule) -> None:
    """Check and recompile a rewritten graph."""
    graph_module.graph.lint()
    graph_module.recompile()
