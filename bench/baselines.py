"""What torch itself offers for the same work: every benchmark times these in the same run.

onednn's int8 ops get uint8 activations (signed ones take a slow reference path) and weights that
were packed for the shape beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Quantized:
    """An int8 layer as numbers: real weight = scale[n] * weight, x = x_scale * (q - zero point).

    weight: [N, K] or [N, C/groups, kh, kw] int8; scale, bias: [N] float32.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor
    x_scale: float
    x_zero_point: int
    out_scale: float
    out_zero_point: int

    @property
    def float_weight(self) -> Tensor:
        """The weight in float32."""
        return self.weight.float() * self.scale.reshape(-1, *[1] * (self.weight.dim() - 1))

    @property
    def multiplier(self) -> Tensor:
        """What turns an accumulator into output steps, [N] float32."""
        return (self.scale.double() * self.x_scale / self.out_scale).float()

    @property
    def folded_bias(self) -> Tensor:
        """The int32 bias with the zero-point correction folded in, [N]."""
        steps = (self.bias.double() / (self.scale.double() * self.x_scale)).round()
        rows = self.weight.flatten(1).long().sum(1)
        return (steps - self.x_zero_point * rows).to(torch.int32)


@dataclass(frozen=True)
class Geometry:
    """How a filter walks, square."""

    stride: int = 1
    padding: int = 0
    groups: int = 1


def onednn_linear(layer: Quantized, x: Tensor) -> Run:
    """Return onednn.qlinear_pointwise over x [M, K] uint8 -> [M, N] uint8."""
    ops = torch.ops.onednn
    packed = ops.qlinear_prepack(layer.weight, list(x.shape))
    zeros = torch.zeros(len(layer.scale), dtype=torch.int32)

    def run() -> Tensor:
        return ops.qlinear_pointwise(
            x, layer.x_scale, layer.x_zero_point, packed, layer.scale, zeros, layer.bias,
            layer.out_scale, layer.out_zero_point, torch.uint8, "none", [], "",
        )  # fmt: skip

    return run


def onednn_conv(layer: Quantized, x: Tensor, geometry: Geometry) -> Run:
    """Return onednn.qconv_pointwise over x [N, C, H, W] uint8, channels last."""
    ops = torch.ops.onednn
    stride, padding = [geometry.stride] * 2, [geometry.padding] * 2
    packed = ops.qconv_prepack(
        layer.weight, layer.scale, layer.x_scale, layer.x_zero_point, stride, padding, [1, 1],
        geometry.groups, list(x.shape),
    )  # fmt: skip
    zeros = torch.zeros(len(layer.scale), dtype=torch.int32)

    def run() -> Tensor:
        return ops.qconv_pointwise(
            x, layer.x_scale, layer.x_zero_point, packed, layer.scale, zeros, layer.bias, stride,
            padding, [1, 1], geometry.groups, layer.out_scale, layer.out_zero_point, torch.uint8,
            "none", [], None,
        )  # fmt: skip

    return run


def float_linear(layer: Quantized, x: Tensor) -> Run:
    """Return F.linear in float32 over the real values of x."""
    real = layer.x_scale * (x.float() - layer.x_zero_point)
    weight, bias = layer.float_weight, layer.bias
    return lambda: F.linear(real, weight, bias)


def float_conv(layer: Quantized, x: Tensor, geometry: Geometry) -> Run:
    """Return F.conv2d in float32, channels last, over the real values of x."""
    real = (layer.x_scale * (x.float() - layer.x_zero_point)).contiguous(
        memory_format=torch.channels_last
    )
    weight = layer.float_weight.contiguous(memory_format=torch.channels_last)
    bias = layer.bias
    return lambda: F.conv2d(
        real, weight, bias, geometry.stride, geometry.padding, 1, geometry.groups
    )
