"""A float layer with its epilogue: what the passes fuse and what `lower` replaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fastinfer.types import Activation, Epilogue
from fastinfer.types.float_functions import OWN_UNARY


def apply_activation(activation: Activation, x: torch.Tensor) -> torch.Tensor:
    """Return the activation of x, any shape, in x's dtype."""
    name, p = activation.name, activation.params
    if name == "identity":
        return x
    if name == "clamp":
        return torch.clamp(x, p[0], p[1])
    function = _FUNCTIONS[name]
    y: torch.Tensor = function(x, *p)
    return y


def activate(activation: Activation, x: torch.Tensor) -> torch.Tensor:
    """Return the activation of an int8 layer's float32 result.

    On a CPU by our own function where there is one: torch's rounds differently on other CPUs, and
    the engine has a step for ours.
    """
    if activation.name in OWN_UNARY and x.device.type == "cpu":
        y: torch.Tensor = torch.ops.fastinfer.float_unary(x, activation.name)
        return y
    return apply_activation(activation, x)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "mish": F.mish,
    "softplus": F.softplus,
    "selu": F.selu,
    "celu": F.celu,
    "log_sigmoid": F.logsigmoid,
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "threshold": F.threshold,
    "abs": torch.abs,
    "neg": torch.neg,
    "square": torch.square,
    "exp": torch.exp,
    "erf": torch.erf,
    "sin": torch.sin,
    "cos": torch.cos,
    "add_scalar": lambda x, number: x + number,
    "mul_scalar": lambda x, number: x * number,
    "div_scalar": lambda x, number: x / number,
    "rsub_scalar": lambda x, number: number - x,
}


@dataclass(frozen=True)
class LayerSpec:
    """Geometry of a layer. kind is "linear", "conv1d" or "conv2d"; pairs are (height, width).

    For conv1d the pairs hold (1, size) so that the layer is a conv2d over [N, C, 1, L].
    """

    kind: str
    out_features: int
    in_features: int
    kernel_size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    epilogue: Epilogue = field(default_factory=Epilogue)

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "conv1d", "conv2d"):
            raise ValueError(f"LayerSpec: expected linear, conv1d or conv2d, got {self.kind!r}")

    @property
    def is_depthwise(self) -> bool:
        """True for a convolution with one input and one output channel per group."""
        return self.kind != "linear" and 1 < self.groups == self.in_features == self.out_features


class Layer(nn.Module):
    """Float linear or convolution followed by its epilogue; the calibrated, replaceable unit.

    weight: [N, K] (linear), [N, C/groups, k] (conv1d) or [N, C/groups, kh, kw] (conv2d), float.
    """

    def __init__(self, spec: LayerSpec, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def accumulate(self, x: torch.Tensor) -> torch.Tensor:
        """Return the layer's output before its epilogue."""
        s = self.spec
        if s.kind == "linear":
            return F.linear(x, self.weight, self.bias)
        if s.kind == "conv1d":
            return F.conv1d(
                x, self.weight, self.bias, s.stride[1], s.padding[1], s.dilation[1], s.groups
            )
        return F.conv2d(x, self.weight, self.bias, s.stride, s.padding, s.dilation, s.groups)

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """Return activation(layer(x) + residual)."""
        y = self.accumulate(x)
        if residual is not None:
            y = y + residual
        return apply_activation(self.spec.epilogue.activation, y)

    def extra_repr(self) -> str:
        """Describe the geometry."""
        return repr(self.spec)
