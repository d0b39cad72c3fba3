"""fuse_activation: the function behind a layer becomes part of its epilogue."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace as changed
from typing import Any

import torch
from torch import fx

from fastinfer.graph.layer import Layer
from fastinfer.graph.match import arguments, finish, layer_of, replace
from fastinfer.program import Program
from fastinfer.types import Activation
from fastinfer.types.epilogue import RELU, RELU6

aten = torch.ops.aten

_Reader = Callable[[dict[str, Any]], Activation | None]


def _clamp(low: Any, high: Any) -> Activation | None:
    low = -math.inf if low is None else low
    high = math.inf if high is None else high
    numbers = all(isinstance(v, (int, float)) for v in (low, high))
    return Activation("clamp", (float(low), float(high))) if numbers and low <= high else None


def _gelu(values: dict[str, Any]) -> Activation:
    return Activation("gelu_tanh" if values["approximate"] == "tanh" else "gelu")


def _elu(values: dict[str, Any]) -> Activation | None:
    plain = values["scale"] == 1 and values["input_scale"] == 1
    return Activation("elu", (float(values["alpha"]),)) if plain else None


def _softplus(values: dict[str, Any]) -> Activation | None:
    plain = values["beta"] == 1 and values["threshold"] == 20
    return Activation("softplus") if plain else None


def _leaky_relu(values: dict[str, Any]) -> Activation:
    return Activation("leaky_relu", (float(values["negative_slope"]),))


_ACTIVATIONS: Mapping[object, _Reader] = {
    aten.relu.default: lambda v: RELU,
    aten.relu6.default: lambda v: RELU6,
    aten.hardtanh.default: lambda v: _clamp(v["min_val"], v["max_val"]),
    aten.clamp.default: lambda v: _clamp(v["min"], v["max"]),
    aten.clamp_min.default: lambda v: _clamp(v["min"], None),
    aten.clamp_max.default: lambda v: _clamp(None, v["max"]),
    aten.silu.default: lambda v: Activation("silu"),
    aten.gelu.default: _gelu,
    aten.hardswish.default: lambda v: Activation("hardswish"),
    aten.hardsigmoid.default: lambda v: Activation("hardsigmoid"),
    aten.sigmoid.default: lambda v: Activation("sigmoid"),
    aten.tanh.default: lambda v: Activation("tanh"),
    aten.leaky_relu.default: _leaky_relu,
    aten.elu.default: _elu,
    aten.mish.default: lambda v: Activation("mish"),
    aten.softplus.default: _softplus,
}


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


def activation_of(node: fx.Node) -> Activation | None:
    """Return the activation a node computes of its first argument, None when it is none."""
    reader = _ACTIVATIONS.get(node.target) if node.op == "call_function" else None
    if reader is None or not node.args or not isinstance(node.args[0], fx.Node):
        return None
    return reader(arguments(node))


def _after(first: Activation, second: Activation) -> Activation | None:
    """Return second(first(x)) as one activation, None when there is none."""
    if first.is_identity:
        return second
    if first.name == second.name == "clamp":
        low, high = second.bounds
        return _clamp(*(min(max(bound, low), high) for bound in first.bounds))
    return None
