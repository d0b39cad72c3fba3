"""fuse_activation: the function behind a layer becomes part of its epilogue."""

from __future__ import annotations

from dataclasses import replace as changed

from fastinfer.graph.activations import activation_of, clamp
from fastinfer.graph.layer import Layer
from fastinfer.graph.match import finish, layer_of, replace
from fastinfer.program import Program
from fastinfer.types import Activation


def fuse_activation(program: Program) -> int:
    """Fuse activations whose input is a layer without another user; return how many."""
    graph_module = program.graph_module
    count = 0
    for node in list(graph_module.graph.nodes):
        activation = activation_of(node)
        if activation is None:
            continue
        source = node.args[0]
        layer = layer_of(graph_module, source, Layer)
        if layer is None or len(source.users) != 1:
            continue
        fused = _after(layer.spec.epilogue.activation, activation)
        if fused is None:
            continue
        layer.spec = changed(layer.spec, epilogue=changed(layer.spec.epilogue, activation=fused))
        replace(node, source)
        count += 1
    if count:
        finish(graph_module)
    return count


def _after(first: Activation, second: Activation) -> Activation | None:
    """Return second(first(x)) as one activation, None when there is none."""
    if first.is_identity:
        return second
    if first.name == second.name == "clamp":
        low, high = second.bounds
        return clamp(*(min(max(bound, low), high) for bound in first.bounds))
    return None
