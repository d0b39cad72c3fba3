"""A node of a lowered graph as a step of the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from fastinfer.engine import Source


@dataclass(frozen=True)
class Operation:
    """A node as a step: the nodes it reads, its arguments, and the buffers it names, in order.

    The place of a buffer's index among the arguments is where `sources` go: see SOURCE. then: the
    steps that make the node's value of this one's, each its kind, the nodes it reads besides, and
    its arguments.
    """

    kind: str
    reads: tuple[fx.Node, ...]
    arguments: tuple[Any, ...] = ()
    sources: tuple[Source, ...] = ()
    then: tuple[tuple[str, tuple[fx.Node, ...], tuple[Any, ...]], ...] = ()


#: Stands among the arguments for the index of the next source.
SOURCE = object()


def table_of(node: Any, graph_module: fx.GraphModule) -> Source | None:
    """Return the module and the name of the tensor a get_attr node reads, None for another node."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    path, _, name = str(node.target).rpartition(".")
    holder = graph_module.get_submodule(path)
    return (holder, name) if isinstance(getattr(holder, name), Tensor) else None
