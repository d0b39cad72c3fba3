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


def _numbers(name: str, *arguments: str) -> _Reader:
    """Return the reader of an operator whose arguments of these names are its numbers."""

    def read(values: dict[str, Any]) -> Activation | None:
        found = [values[a] for a in arguments]
        if not all(type(v) in (int, float) and math.isfinite(v) for v in found):
            return None
        return Activation(name, tuple(map(float, found)))

    return read


def _with_scalar(name: str, sign: float = 1.0) -> _Reader:
    """Return the reader of x op number; sign: of the number in the activation."""

    def read(values: dict[str, Any]) -> Activation | None:
        number = values["other"]
        plain = type(number) in (int, float) and math.isfinite(number)
        if not plain or values.get("alpha", 1) != 1:
            return None
        return Activation(name, (sign * float(number),))

    return read


def _power(values: dict[str, Any]) -> Activation | None:
    return Activation("square") if values["exponent"] == 2 else None


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
    aten.selu.default: lambda v: Activation("selu"),
    aten.celu.default: _numbers("celu", "alpha"),
    aten.log_sigmoid.default: lambda v: Activation("log_sigmoid"),
    aten.hardshrink.default: _numbers("hardshrink", "lambd"),
    aten.softshrink.default: _numbers("softshrink", "lambd"),
    aten.threshold.default: _numbers("threshold", "threshold", "value"),
    aten.abs.default: lambda v: Activation("abs"),
    aten.neg.default: lambda v: Activation("neg"),
    aten.square.default: lambda v: Activation("square"),
    aten.pow.Tensor_Scalar: _power,
    aten.exp.default: lambda v: Activation("exp"),
    aten.erf.default: lambda v: Activation("erf"),
    aten.sin.default: lambda v: Activation("sin"),
    aten.cos.default: lambda v: Activation("cos"),
    aten.add.Tensor: _with_scalar("add_scalar"),
    aten.sub.Tensor: _with_scalar("add_scalar", -1.0),
    aten.mul.Tensor: _with_scalar("mul_scalar"),
    aten.div.Tensor: _with_scalar("div_scalar"),
    aten.rsub.Scalar: _with_scalar("rsub_scalar"),
}


def activation_of(node: fx.Node) -> Activation | None:
    """Return the activation a node computes of its first argument, None when it is none."""
    reader = _ACTIVATIONS.get(node.target) if node.op == "call_function" else None
    if reader is None or not node.args or not isinstance(node.args[0], fx.Node):
        return None
    return reader(arguments(node))
