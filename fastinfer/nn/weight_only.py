"""Layers that store a smaller weight and compute in float: less memory, no int8 arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: The float computation of a layer: (x, weight, bias) -> y.
Compute = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]


class WeightOnly(nn.Module):
    """A layer whose int8 weight is turned into float at every call.

    It saves memory, not time: on CPU the conversion costs more than it saves except where reading
    the weight dominates.

    Args:
        weight: [N, ...] int8. scale: [N] float32. bias: [N] float or None.
        compute: linear or convolution with its geometry bound.
        activation: what follows, or None.
    """

    def __init__(
        self,
        weight: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        compute: Compute,
        activation: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("weight_int8", weight)
        self.register_buffer("scale", scale.reshape([-1] + [1] * (weight.dim() - 1)))
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self._compute = compute
        self._activation = activation

    @property
    def weight(self) -> Tensor:
        """The float weight, made at each access."""
        return self.weight_int8 * self.scale

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return activation(layer(x) + residual)."""
        y = self._compute(x, self.weight, self.bias)
        if residual is not None:
            y = y + residual
        return y if self._activation is None else self._activation(y)

    def extra_repr(self) -> str:
        """Describe the weight."""
        return f"weight={list(self.weight_int8.shape)} int8, computes in float"


class Bf16(nn.Module):
    """A layer that computes in bfloat16 and answers in its input's dtype.

    Args:
        weight, bias: float, stored as bfloat16.
        compute: linear or convolution with its geometry bound.
        activation: what follows, in the input's dtype, or None.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        compute: Compute,
        activation: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().to(torch.bfloat16), requires_grad=False)
        self.bias = (
            None
            if bias is None
            else nn.Parameter(bias.detach().to(torch.bfloat16), requires_grad=False)
        )
        self._compute = compute
        self._activation = activation

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return activation(layer(x) + residual)."""
        y = self._compute(x.to(torch.bfloat16), self.weight, self.bias).to(x.dtype)
        if residual is not None:
            y = y + residual
        return y if self._activation is None else self._activation(y)

    def extra_repr(self) -> str:
        """Describe the weight."""
        return f"weight={list(self.weight.shape)} bfloat16"


class BoundConv:
    """A convolution with its geometry: the `compute` of WeightOnly and Bf16."""

    def __init__(self, dims: int, **geometry: Any) -> None:
        self._function = {1: F.conv1d, 2: F.conv2d}[dims]
        self.dims = dims
        self.geometry = geometry

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the convolution of x."""
        return self._function(x, weight, bias, **self.geometry)
