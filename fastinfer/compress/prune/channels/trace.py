"""Follows channels through a captured graph: which axis of which tensor carries which labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from fastinfer.compress.prune.channels.labels import Axis, Classes, Labels, MaybeAxis
from fastinfer.graph.match import arguments, attribute, tensor_name

#: Labels of each axis of a tensor.
Axes = tuple[MaybeAxis, ...]
#: Tries of which factor of a split axis holds the channels; (3, heads, head_dim) needs three.
MAX_TRIES = 6


@dataclass(frozen=True)
class Product:
    """A convolution or linear: its weight meets `positions` outputs of each channel."""

    weight: str
    positions: int


@dataclass(frozen=True)
class Split:
    """A reshape that makes several axes of one: `owner` are the labels of the one taken."""

    key: tuple[str, int]
    candidates: int
    owner: Axis

    def feeds(self, other: Split) -> bool:
        """Return True when the other splits what this one gave."""
        return bool(np.isin(other.owner, self.owner).any())


@dataclass
class Trace:
    """What one walk over the graph finds.

    axes: of every node, a list where it has several results. tensors: (name, axis) -> labels of
    the model's own tensors. made, read: labels that layers produce and consume. streams: labels
    where two activations are added. norms: nodes that take statistics over channels, and the
    channels. reshapes: (submodule, labels) where code may name sizes. statistics: names of running
    means and variances.
    """

    graph_module: fx.GraphModule
    own: frozenset[str]
    choices: dict[tuple[str, int], int] = field(default_factory=dict)
    labels: Labels = field(default_factory=Labels)
    axes: dict[fx.Node, Any] = field(default_factory=dict)
    tensors: dict[tuple[str, int], Axis] = field(default_factory=dict)
    made: list[Axis] = field(default_factory=list)
    read: list[Axis] = field(default_factory=list)
    streams: list[Axis] = field(default_factory=list)
    norms: dict[fx.Node, Axis] = field(default_factory=dict)
    reshapes: list[tuple[str, Axis]] = field(default_factory=list)
    splits: list[Split] = field(default_factory=list)
    statistics: set[str] = field(default_factory=set)
    products: list[Product] = field(default_factory=list)
    constants: set[fx.Node] = field(default_factory=set)

    def of(self, node: object) -> Axes:
        """Return the labels of a node's axes, () for what is no tensor."""
        found = self.axes.get(node, ()) if isinstance(node, fx.Node) else ()
        return found if isinstance(found, tuple) else ()

    def shape(self, node: object) -> tuple[int, ...]:
        """Return the sizes of a node's tensor."""
        value = node.meta.get("val") if isinstance(node, fx.Node) else None
        return tuple(int(s) for s in value.shape) if isinstance(value, Tensor) else ()

    def produce(self, axis: MaybeAxis) -> None:
        """Note that a layer's rows make these channels."""
        if axis is not None:
            self.made.append(axis)

    def consume(self, axis: MaybeAxis) -> None:
        """Note that a layer's columns read these channels."""
        if axis is not None:
            self.read.append(axis)

    def multiply(self, weight: object, positions: int) -> None:
        """Note a product of a weight of the model's own."""
        if isinstance(weight, fx.Node) and weight.op == "get_attr":
            self.products.append(Product(tensor_name(weight), positions))

    def code_sizes(self, node: fx.Node, axis: MaybeAxis) -> None:
        """Note that the sizes of the axis stand in the code of the submodule the node is of."""
        if axis is not None:
            self.reshapes.append((module_path(node), axis))

    def freeze_all(self, nodes: Iterable[object], reason: str) -> None:
        """Let every channel of these tensors stay."""
        for node in nodes:
            for axis in self.of(node):
                self.labels.freeze(axis, reason)


def module_path(node: fx.Node) -> str:
    """Return the name of the submodule whose code made the node, "" for the model's own."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(value[0]) for value in stack.values()]
    return paths[-1] if paths else ""


def trace(graph_module: fx.GraphModule, own: Iterable[str]) -> tuple[Trace, Classes]:
    """Return what a walk over the graph finds, and the classes of channels that go together.

    Which factor of a split axis holds the channels is tried, the largest first: of
    (heads, head_dim) head_dim turns out to stay, as products of queries and keys sum over it.

    Args:
        graph_module: captured with fixed sizes.
        own: names of tensors that may be made smaller: the model's parameters and buffers.
    """
    names = frozenset(own)
    choices: dict[tuple[str, int], int] = {}
    for attempt in range(MAX_TRIES):
        found = Trace(graph_module, names, choices)
        _walk(found)
        classes = found.labels.resolve()
        stuck = [
            split
            for split in found.splits
            if choices.get(split.key, 0) + 1 < split.candidates and classes.stays(split.owner)
        ]
        if not stuck or attempt == MAX_TRIES - 1:
            break
        # Where what one split gave is split again, the second may be the wrong one: it goes first.
        last = [s for i, s in enumerate(stuck) if not any(s.feeds(t) for t in stuck[i + 1 :])]
        choices = {**choices, **{s.key: choices.get(s.key, 0) + 1 for s in last}}
    return found, classes


def _walk(found: Trace) -> None:
    # Here, as the rules import this module's Trace.
    from fastinfer.compress.prune.channels.rules import apply_rule

    for node in found.graph_module.graph.nodes:
        if node.op == "placeholder":
            found.axes[node] = (None,) * len(found.shape(node))
        elif node.op == "get_attr":
            found.axes[node] = _tensor_axes(found, node)
            found.constants.add(node)
        elif node.op == "output":
            found.freeze_all(node.all_input_nodes, "the model's output")
        else:
            inputs = node.all_input_nodes
            if all(n in found.constants for n in inputs):
                found.constants.add(node)
            found.axes[node] = apply_rule(found, node, _named(node))


def _named(node: fx.Node) -> dict[str, Any]:
    return arguments(node) if isinstance(node.target, torch._ops.OpOverload) else {}


def _tensor_axes(found: Trace, node: fx.Node) -> Axes:
    """Return the labels of one of the model's tensors, the same at each use."""
    value = attribute(found.graph_module, str(node.target))
    if not isinstance(value, Tensor):
        return ()
    name = tensor_name(node)
    if name not in found.own or not value.is_floating_point():
        return (None,) * value.dim()
    axes: list[MaybeAxis] = []
    for axis, size in enumerate(value.shape):
        if size == 1:
            axes.append(None)
            continue
        if (name, axis) not in found.tensors:
            found.tensors[name, axis] = found.labels.fresh(size)
        axes.append(found.tensors[name, axis])
    return tuple(axes)


def repeated(axis: MaybeAxis, times: int) -> MaybeAxis:
    """Return each label `times` times in a row."""
    return None if axis is None else np.repeat(axis, times)
