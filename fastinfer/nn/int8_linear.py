"""Linear layers on packed int8 weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastinfer.nn.packed_module import EffectiveWeight, PackedModule
from fastinfer.types.folded import FoldedLayer


class Int8Linear(PackedModule):
    """x [*, K] uint8 -> [*, N] uint8, or float32 when packed so; residual has the result's type."""

    def __init__(self, folded: FoldedLayer) -> None:
        super().__init__(folded)
        self.in_features = folded.weight.shape[1]
        self._op = torch.ops.fastinfer.int8_linear.default

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return epilogue(x @ weight.T)."""
        return self._op(x, self._buffers["packed"], residual, self.out_features, self.float_output)


class Int8LinearDynamic(EffectiveWeight, PackedModule):
    """x [*, K] float32 -> [*, N] float32; each token of x is quantized by its own range.

    activation: what follows and is no clamp (clamps are in the packed weight), or None.
    """

    def __init__(
        self, folded: FoldedLayer, activation: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__(folded)
        self.in_features = folded.weight.shape[1]
        self._activation = activation
        self._op = torch.ops.fastinfer.int8_linear_dynamic.default

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return activation(x @ weight.T + bias + residual)."""
        y: Tensor = self._op(x, self._buffers["packed"], self.out_features, True)
        if residual is not None:
            y = y + residual
        return y if self._activation is None else self._activation(y)
