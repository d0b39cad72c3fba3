"""Graphs as JSON: nodes by name, and what they may call."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx, nn

from fastinfer.artifact.errors import ArtifactError
from fastinfer.artifact.op_names import read_target, write_target
from fastinfer.artifact.values import read_value, write_value
from fastinfer.config import UnsupportedError

#: fx writes names into the Python source it makes of a graph, so each must be what it says it is.
_PATH = re.compile(r"[\w+:/ -]+(\.[\w+:/ -]+)*")


def write_graph(graph: fx.Graph) -> list[dict[str, Any]]:
    """Return the nodes of a graph in order.

    Raises:
        UnsupportedError: a node calls what an artifact may not name, or holds no data.
    """
    return [_write_node(node) for node in graph.nodes]


def _write_node(node: fx.Node) -> dict[str, Any]:
    row: dict[str, Any] = {"op": node.op, "name": node.name}
    if node.op == "call_function":
        row["target"] = write_target(node.target)
    elif node.op in ("placeholder", "get_attr", "call_module", "output"):
        row["target"] = str(node.target)
    else:
        raise UnsupportedError(f"save: node {node.name}: expected no {node.op} in a graph")
    if not _is_sound(row["op"], row["target"]):
        raise UnsupportedError(
            f"save: expected names of letters, digits and '_+-:/ ', got {row['target']!r}"
        )
    row["args"] = write_value(node.args, node.name)["tuple"]
    if node.kwargs:
        row["kwargs"] = {k: write_value(v, node.name) for k, v in node.kwargs.items()}
    return row


def read_graph(rows: list[dict[str, Any]]) -> fx.Graph:
    """Return the graph of what `write_graph` made.

    Raises:
        ArtifactError: a node names what an artifact may not, or is malformed.
    """
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    for row in rows:
        op, name, target = row["op"], row["name"], row["target"]
        if not _is_sound(op, target):
            raise ArtifactError(f"load: node {name!r}: {op} of {target!r} is not allowed")
        args = tuple(read_value(value, nodes) for value in row["args"])
        kwargs = {key: read_value(v, nodes) for key, v in row.get("kwargs", {}).items()}
        if not all(map(_is_identifier, kwargs)):
            raise ArtifactError(f"load: node {name!r}: expected argument names, got {[*kwargs]}")
        function = read_target(target) if op == "call_function" else target
        node = graph.create_node(op, function, args, kwargs, name)
        if node.name != name:
            raise ArtifactError(f"load: node: expected a name of its own, got {name!r}")
        nodes[name] = node
    graph.lint()
    return graph


def _is_identifier(name: object) -> bool:
    return isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name)


def _is_sound(op: object, target: object) -> bool:
    """Return True when a node of this kind may name this target."""
    if op == "placeholder":
        return _is_identifier(target)
    if op in ("get_attr", "call_module"):
        return isinstance(target, str) and _PATH.fullmatch(target) is not None
    return op == "call_function" or (op == "output" and target == "output")


def attributes(graph_module: fx.GraphModule, op: str) -> dict[str, Any]:
    """Return what a graph's nodes of one kind (get_attr, call_module) name, by name, sorted.

    Raises:
        UnsupportedError: a get_attr node names no tensor: a graph inside the graph.
    """
    found: dict[str, Any] = {}
    for name in sorted({str(n.target) for n in graph_module.graph.nodes if n.op == op}):
        value: Any = graph_module
        for part in name.split("."):
            value = getattr(value, part)
        if not isinstance(value, Tensor if op == "get_attr" else nn.Module):
            raise UnsupportedError(
                f"save: expected tensors and layers in the graph, got {name}: a "
                f"{type(value).__name__}; such a model cannot be saved"
            )
        found[name] = value
    return found


def graph_module(graph: fx.Graph, parts: Mapping[str, nn.Module | Tensor]) -> fx.GraphModule:
    """Return a graph with the modules and tensors it names.

    Raises:
        ArtifactError: one of them is missing or of the other kind.
    """
    for node in graph.nodes:
        if node.op in ("get_attr", "call_module"):
            wanted = Tensor if node.op == "get_attr" else nn.Module
            if not isinstance(parts.get(str(node.target)), wanted):
                raise ArtifactError(f"load: node {node.name}: there is no {node.target!r} to name")
    return fx.GraphModule(dict(parts), graph)
