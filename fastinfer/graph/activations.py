"""Which activation an operator of a captured graph computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from fastinfer.graph.match import arguments
from fastinfer.types import Activation
from fastinfer.types.epilogue import RELU, RELU6

aten = torch.ops.aten

_Reader = Callable[[dict[str, Any]], Activation | None]


def clamp(low: Any, high: Any) -> Activation | None:
    """Return the clamp of [low, high], None standing for no bound; None where that is none."""
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
    aten.hardtanh.default: lambda v: clamp(v["min_val"], v["max_val"]),
    aten.clamp.default: lambda v: clamp(v["min"], v["max"]),
    aten.clamp_min.default: lambda v: clamp(v["min"], None),
    aten.clamp_max.default: lambda v: clamp(None, v["max"]),
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


def activation_of(node: fx.Node) -> Activation | None:
    """Return the activation a node computes of its first argument, None when it is none."""
    reader = _ACTIVATIONS.get(node.target) if node.op == "call_function" else None
    if reader is None or not node.args or not isinstance(node.args[0], fx.Node):
        return None
    return reader(arguments(node))
