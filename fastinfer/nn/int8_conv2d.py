"""Convolutions on packed int8 weights. 4-D tensors are NHWC in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fastinfer.nn.packed_module import EffectiveWeight, PackedModule
from fastinfer.types.folded import FoldedLayer

Pair = Sequence[int]


@dataclass(frozen=True)
class ConvGeometry:
    """How a filter walks; pairs are (height, width), (1, size) for a 1-D convolution."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)


def _short(pair: Pair) -> int | list[int]:
    """Return a pair as the op takes it: one int where both are equal, which parses faster."""
    return pair[0] if pair[0] == pair[1] else list(pair)


class _Int8Conv(PackedModule):
    def __init__(self, folded: FoldedLayer, geometry: ConvGeometry) -> None:
        super().__init__(replace(folded, strided=max(geometry.stride) > 1))
        self.kernel_size = list(geometry.kernel_size)
        self.stride = list(geometry.stride)
        self.padding = list(geometry.padding)
        self.dilation = list(geometry.dilation)
        self.groups = folded.groups
        self.out_channels = self.out_features
        self.in_channels = folded.weight.shape[1] * folded.groups
        pairs = (self.kernel_size, self.stride, self.padding, self.dilation)
        self._geometry = tuple(_short(pair) for pair in pairs)

    def extra_repr(self) -> str:
        """Describe geometry and weight."""
        return (
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}, {super().extra_repr()}"
        )


class Int8Conv2d(_Int8Conv):
    """x [N, C, H, W] uint8 -> [N, out, OH, OW] uint8, or float32 when packed so."""

    def __init__(self, folded: FoldedLayer, geometry: ConvGeometry) -> None:
        super().__init__(folded, geometry)
        ops = torch.ops.fastinfer
        if folded.op == "depthwise_conv2d":
            self._op = ops.int8_depthwise_conv2d.default
            self._rest = (*self._geometry, self.float_output)
        else:
            self._op = ops.int8_conv2d.default
            self._rest = (self.out_features, *self._geometry, self.groups, self.float_output)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return epilogue(conv2d(x, weight))."""
        return self._op(x, self._buffers["packed"], residual, *self._rest)


class Int8Conv1d(Int8Conv2d):
    """x [N, C, L] uint8 -> [N, out, OL]; a 2-D convolution over images of one row."""

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return epilogue(conv1d(x, weight))."""
        row = None if residual is None else residual.unsqueeze(2)
        return super().forward(x.unsqueeze(2), row).squeeze(2)


class Int8Conv2dDynamic(EffectiveWeight, _Int8Conv):
    """x [N, C, H, W] float32 -> float32; each sample of x is quantized by its own range.

    activation: what follows and is no clamp (clamps are in the packed weight), or None.
    keeps_layout: answer contiguous where x is, for code that takes a view of the result.
    """

    keeps_layout = False

    def __init__(
        self,
        folded: FoldedLayer,
        geometry: ConvGeometry,
        activation: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(folded, geometry)
        self._activation = activation
        self._op = torch.ops.fastinfer.int8_conv2d_dynamic.default

    def _convolve(self, x: Tensor) -> Tensor:
        return self._op(x, self._buffers["packed"], self.out_features, *self._geometry, self.groups)

    def _finish(self, x: Tensor, y: Tensor, residual: Tensor | None) -> Tensor:
        if self.keeps_layout and x.is_contiguous():
            y = y.contiguous()
        if residual is not None:
            y = y + residual
        return y if self._activation is None else self._activation(y)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return activation(conv2d(x, weight) + bias + residual)."""
        y = self._convolve(x) if x.dim() != 3 else self._convolve(x.unsqueeze(0)).squeeze(0)
        return self._finish(x, y, residual)


class Int8Conv1dDynamic(Int8Conv2dDynamic):
    """x [N, C, L] or [C, L] float32 -> float32; a 2-D convolution over images of one row."""

    @property
    def weight(self) -> Tensor:
        """The effective weight [N, C/groups, k], float32, made at each access."""
        return super().weight.squeeze(2)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return activation(conv1d(x, weight) + bias + residual)."""
        if x.dim() == 2:
            y = self._convolve(x.unsqueeze(0).unsqueeze(2)).squeeze(2).squeeze(0)
        else:
            y = self._convolve(x.unsqueeze(2)).squeeze(2)
        return self._finish(x, y, residual)
